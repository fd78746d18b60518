"""Ticks in which nothing happens, done many at once: most of a mesh's life.

`quiet_ticks` says how many ticks from now the next one comes that may do more than count; `skip` does the counting for
fewer than that. Exactly what as many calls of `tick` do, which a test holds the rig to: the same life with and without.
"""

from mesh.raft import quorum
from mesh.raft.leader import Leader
from mesh.raft.progress import Installing
from mesh.raft.raft import Raft

FOREVER = 1_000_000
"""Ticks."""


def quiet_ticks(raft: Raft) -> int:
    """At least 1; the tick of that number must be done by the core itself."""
    member, role = raft._member, raft._role
    most = FOREVER
    if raft._out is not None:
        if member.messages:
            return 1  # they may leave with a tick, beside the save
        most = member.options.hang_ticks - raft._hung_ticks
        if most <= 0:
            return 1 if type(role) is Leader else FOREVER
    if type(role) is Leader:
        return _quiet_leader(role, most)
    now = member.configuration
    if len(now.voters) == 1 and quorum.voters(now) == (member.peer,):
        return 1
    timer = member.timeout - member.elapsed
    return max(1, timer if timer < most else most)


def _quiet_leader(role: Leader, most: int) -> int:
    options, replication = role.member.options, role.replication
    if role.transferee is not None or replication._parting:
        return 1
    heartbeat = options.heartbeat_ticks - role._heartbeat_ticks
    most = heartbeat if heartbeat < most else most
    silence = False
    for progress in replication.progress.values():
        left = options.election_ticks - progress.silent_ticks
        if left <= 0:
            silence = True
        elif left < most:
            most = left  # somebody less is heard from then on
    if most < 1 or (silence and _quorum_may_change(role)):
        return 1
    return most


def _quorum_may_change(role: Leader) -> bool:
    """Other than by somebody's falling silent: what a leader has committed, a quorum of it was heard; and as long as
    nobody falls silent, it stays heard."""
    log = role.member.log
    return log.configurations.latest_index > log.committed and not role.replication.has_quorum()


def skip(raft: Raft, ticks: int) -> None:
    """`ticks` < `quiet_ticks`."""
    if raft._out is not None:
        raft._hung_ticks += ticks
        if raft._hung_ticks >= raft._member.options.hang_ticks:
            return
    role = raft._role
    if type(role) is not Leader:
        raft._member.elapsed += ticks
        return
    role._heartbeat_ticks += ticks
    for progress in role.replication.progress.values():
        progress.silent_ticks += ticks
        if isinstance(progress.flow, Installing) and progress.flow.waiting_ticks is not None:
            progress.flow.waiting_ticks += ticks

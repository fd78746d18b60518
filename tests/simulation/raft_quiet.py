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
            return 1 if isinstance(role, Leader) else FOREVER
    if isinstance(role, Leader):
        return min(most, _quiet_leader(role))
    if quorum.voters(member.configuration) == (member.peer,):
        return 1
    return max(1, min(most, member.timeout - member.elapsed))


def _quiet_leader(role: Leader) -> int:
    options, replication = role.member.options, role.replication
    if role.transferee is not None or replication._parting:
        return 1
    most = options.heartbeat_ticks - role._heartbeat_ticks
    for progress in replication.progress.values():
        if options.election_ticks - progress.silent_ticks < most:
            return 1  # near the loss of a quorum, or beyond
    return max(1, most)


def skip(raft: Raft, ticks: int) -> None:
    """`ticks` < `quiet_ticks`."""
    if raft._out is not None:
        raft._hung_ticks += ticks
        if raft._hung_ticks >= raft._member.options.hang_ticks:
            return
    role = raft._role
    if not isinstance(role, Leader):
        raft._member.elapsed += ticks
        return
    role._heartbeat_ticks += ticks
    for progress in role.replication.progress.values():
        progress.silent_ticks += ticks
        if isinstance(progress.flow, Installing) and progress.flow.waiting_ticks is not None:
            progress.flow.waiting_ticks += ticks

"""What holds of a member between any two calls, as assertions: tests and the simulator call them after every step."""

from itertools import pairwise

from mesh.raft import quorum
from mesh.raft.configuration import Configurations, is_voter
from mesh.raft.leader import Leader
from mesh.raft.log import RaftLog, entry_bytes
from mesh.raft.member import Member
from mesh.raft.progress import Installing, Replicating
from mesh.raft.raft import Raft


def check(raft: Raft) -> None:
    member, role = raft._member, raft._role
    check_log(member.log)
    assert member.log.last_term <= member.term, "the log never runs ahead of the term"
    assert not (member.blank and member.vote), "a blank member votes for nobody"
    if isinstance(role, Leader):
        check_leader(member, role)
    else:
        assert member.leader != member.peer, "who leads is a Leader"


def check_log(log: RaftLog) -> None:
    entries = [log.entry(index) for index in range(log.first_index, log.last_index + 1)]
    assert all(entry.index == log.first_index + offset for offset, entry in enumerate(entries)), "contiguous"
    assert all(a.term <= b.term for a, b in pairwise(entries)), "terms never fall"
    assert log.first_index - 1 <= log.applied <= log.committed <= log.last_index, "applied <= committed <= last"
    assert log.first_index - 1 <= log.saved <= log.last_index, "saved within the log"
    assert log.snapshot is None or log.first_index - 1 <= log.snapshot.index <= log.committed, "behind the snapshot"
    base = log.first_index - 1
    again = Configurations(base, log.configurations.at(base))
    for entry in entries:
        again.append(entry)
    assert again.latest == log.configurations.latest, "the configuration is a function of the log"
    assert again.latest_index == log.configurations.latest_index


def check_leader(member: Member, leader: Leader) -> None:
    log = member.log
    assert member.leader == member.peer
    assert member.vote == member.peer, "a leader voted for itself in its term"
    uncommitted = [log.entry(index) for index in range(log.committed + 1, log.last_index + 1)]
    assert leader.uncommitted_bytes == sum(map(entry_bytes, uncommitted)), "uncommitted bytes are counted right"
    configurations = [
        entry for entry in uncommitted if entry.kind.name == "CONFIGURATION" and entry.term == member.term
    ]
    assert len(configurations) <= 1, "one change at a time"
    progress = leader.replication.progress
    assert list(progress) == sorted(progress), "iterated in order of ID"
    assert set(quorum.members(member.configuration)) - {member.peer} <= set(progress)
    for each in progress.values():
        assert each.match < each.next <= log.last_index + 1, "match < next <= last + 1"
        if isinstance(each.flow, Replicating):
            assert each.flow.inflight_bytes == sum(size for _, size in each.flow.inflight)
            assert len(each.flow.inflight) <= member.options.inflight_messages_max
            assert all(index > each.match for index, _ in each.flow.inflight)
        if isinstance(each.flow, Installing):
            assert 0 <= each.flow.offset <= len(each.flow.snapshot.data)
    assert leader.transferee is None or is_voter(member.configuration, leader.transferee)

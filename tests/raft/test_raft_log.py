"""The log and the configurations that follow from it."""

import pytest

from mesh.raft.configuration import (
    AddLearner,
    Change,
    Configurations,
    Demote,
    Promote,
    Remove,
    Replace,
    changed,
    left,
)
from mesh.raft.errors import ChangeRefused, LogLost
from mesh.raft.invariants import check_log
from mesh.raft.log import ENTRY_OVERHEAD_BYTES, RaftLog
from protocols.codec import encode
from protocols.errors import RemoteProtocolError
from protocols.ids import PeerId
from protocols.raft import Configuration, Entry, EntryKind, Snapshot

A, B, C, D = (PeerId(name) for name in "abcd")
GROUP = Configuration(voters=(A, B))


def entry(index: int, term: int = 1, data: bytes = b"") -> Entry:
    return Entry(index, term, EntryKind.NORMAL, data)


def configured(index: int, term: int, *voters: PeerId) -> Entry:
    return Entry(index, term, EntryKind.CONFIGURATION, encode(Configuration(voters=voters)))


def log_of(*terms: int) -> RaftLog:
    log = RaftLog(None, [entry(index, term) for index, term in enumerate(terms, start=1)], GROUP)
    check_log(log)
    return log


def terms(log: RaftLog) -> list[int]:
    check_log(log)
    return [log.entry(index).term for index in range(log.first_index, log.last_index + 1)]


@pytest.mark.parametrize(
    ("last_index", "last_term", "expected"),
    [(3, 2, True), (4, 2, True), (2, 2, False), (1, 3, True), (9, 1, False)],
)
def test_up_to_date_compares_the_term_first(last_index: int, last_term: int, expected: bool) -> None:
    assert log_of(1, 1, 2).up_to_date(last_index, last_term) is expected


def test_merging_keeps_what_agrees_and_replaces_the_rest() -> None:
    log = log_of(1, 1, 2, 2)
    log.merge([entry(2, 1), entry(3, 2)])
    assert terms(log) == [1, 1, 2, 2], "an old message never shortens the log"
    assert log.saved == 4
    log.merge([entry(3, 2), entry(4, 3), entry(5, 3)])
    assert terms(log) == [1, 1, 2, 3, 3]
    assert log.saved == 3
    assert [each.index for each in log.begin_save()] == [4, 5]


def test_a_save_of_replaced_entries_does_not_count() -> None:
    log = log_of(1, 1)
    log.append([entry(3, 1), entry(4, 1), entry(5, 1)])
    assert [each.index for each in log.begin_save()] == [3, 4, 5]
    log.merge([entry(4, 2), entry(5, 2)])
    log.mark_saved()
    assert log.saved == 3, "what stands before the replaced ones is on the disk, and is not written again"
    assert [each.term for each in log.begin_save()] == [2, 2]
    log.mark_saved()
    assert log.saved == 5


def test_committed_entries_are_never_replaced() -> None:
    log = log_of(1, 1, 1)
    assert log.commit(2)
    assert not log.commit(1)
    with pytest.raises(RemoteProtocolError, match="committed entry 2"):
        log.merge([entry(2, 2)])
    with pytest.raises(LogLost, match="the log ends at 3 although this node acknowledged 4"):
        log.commit(4)
    assert terms(log) == [1, 1, 1]


@pytest.mark.parametrize(
    ("index", "term", "expected"), [(9, 9, 6), (6, 2, 4), (6, 1, 2), (3, 1, 2), (2, 1, 2), (5, 0, 0)]
)
def test_the_hint_skips_terms_that_can_not_agree(index: int, term: int, expected: int) -> None:
    assert log_of(1, 1, 2, 2, 4, 4).conflict(index, term) == expected


def test_slices_are_bounded_in_bytes_but_never_empty() -> None:
    log = RaftLog(None, [entry(index, data=bytes(100)) for index in range(1, 6)], GROUP)
    size = 100 + ENTRY_OVERHEAD_BYTES
    assert [each.index for each in log.slice(2, 4, 10**6)] == [2, 3, 4]
    assert [each.index for each in log.slice(2, 9, 2 * size)] == [2, 3]
    assert [each.index for each in log.slice(2, 9, 2 * size - 1)] == [2]
    assert [each.index for each in log.slice(2, 9, 0)] == [2]
    assert log.slice(6, 9, 10**6) == ()


def test_compaction_keeps_trailing_entries_and_the_configuration_there() -> None:
    log = RaftLog(None, [configured(1, 1, A), entry(2), configured(3, 1, B), entry(4), entry(5)], Configuration())
    log.commit(5)
    log.applied = 4
    log.compact(Snapshot(4, 1, Configuration(voters=(B,)), b""), trailing=2)
    check_log(log)
    assert (log.first_index, log.last_index, log.term(2), log.term(1)) == (3, 5, 1, None)
    assert log.configurations.at(2).voters == (A,)
    assert log.configurations.latest.voters == (B,)
    log.compact(Snapshot(3, 1, Configuration(voters=(B,)), b"older"), trailing=0)
    assert log.snapshot is not None
    assert log.snapshot.index == 4


def test_a_snapshot_takes_the_place_of_the_log() -> None:
    log = log_of(1, 1, 1)
    log.commit(2)
    snapshot = Snapshot(9, 3, Configuration(voters=(C,)), b"state")
    log.restore(snapshot)
    assert terms(log) == []
    assert (log.first_index, log.last_index, log.last_term) == (10, 9, 3)
    assert (log.committed, log.applied, log.saved) == (9, 9, 9)
    assert log.configurations.latest.voters == (C,)
    assert log.restored is snapshot


def test_truncation_rolls_the_configuration_back() -> None:
    log = RaftLog(None, [configured(1, 1, A), entry(2), configured(3, 1, A, B), configured(4, 1, A, B, C)], GROUP)
    assert [each.voters for each in log.configurations.since(1)] == [(A,), (A, B), (A, B, C)]
    log.merge([entry(4, 2)])
    assert log.configurations.latest.voters == (A, B)
    log.merge([entry(2, 3)])
    assert (log.configurations.latest.voters, log.configurations.latest_index) == ((A,), 1)
    check_log(log)


def test_configurations_before_any_entry() -> None:
    configurations = Configurations(7, GROUP)
    assert (configurations.latest, configurations.latest_index, configurations.at(8)) == (GROUP, 7, GROUP)


@pytest.mark.parametrize(
    ("change", "voters", "outgoing", "learners"),
    [
        (AddLearner(D), (A, B), (), (C, D)),
        (Promote(C), (A, B, C), (A, B), ()),
        (Demote(A), (B,), (A, B), (A, C)),
        (Remove(A), (B,), (A, B), (C,)),
        (Remove(C), (A, B), (), ()),
        (Replace(A, C), (B, C), (A, B), ()),
    ],
)
def test_voters_change_jointly_and_learners_at_once(
    change: Change, voters: tuple[PeerId, ...], outgoing: tuple[PeerId, ...], learners: tuple[PeerId, ...]
) -> None:
    made = changed(Configuration(voters=(A, B), learners=(C,)), change)
    assert made == Configuration(voters, outgoing, learners)
    assert left(made) == Configuration(voters, (), learners)


@pytest.mark.parametrize(
    ("now", "change", "reason"),
    [
        (GROUP, AddLearner(A), "a is a member already"),
        (GROUP, Promote(A), "a is no learner"),
        (GROUP, Promote(C), "c is no learner"),
        (Configuration(voters=(A,), learners=(B,)), Promote(B, (C,)), "c is no learner"),
        (Configuration(voters=(A,), learners=(B,)), Promote(B, (B,)), "b is no learner"),
        (GROUP, Demote(C), "c is no voter"),
        (GROUP, Remove(C), "c is no member"),
        (Configuration(voters=(A,), learners=(B,)), Replace(B, B), "b is no voter"),
        (Configuration(voters=(A,)), Remove(A), "the last voter can't leave"),
        (Configuration(voters=(A,), learners=(B,)), Demote(A), "the last voter can't leave"),
    ],
)
def test_changes_that_make_no_sense_are_refused(now: Configuration, change: Change, reason: str) -> None:
    with pytest.raises(ChangeRefused, match=reason):
        changed(now, change)

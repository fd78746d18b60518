"""What a leader knows of one member, and the reads that wait for a quorum."""

import pytest

from mesh.raft.errors import Overloaded
from mesh.raft.progress import Installing, Probing, Progress, Replicating
from mesh.raft.reads import Read, Reads
from protocols.ids import PeerId
from protocols.raft import Configuration, Snapshot

A, B = PeerId("a"), PeerId("b")


def test_match_only_grows() -> None:
    progress = Progress(next=10)
    assert progress.acknowledged(4)
    assert not progress.acknowledged(3)
    assert (progress.match, progress.next) == (4, 10)
    assert progress.acknowledged(12)
    assert (progress.match, progress.next) == (12, 13)


def test_a_refusal_while_probing_goes_back_to_the_hint_once() -> None:
    progress = Progress(next=10, match=2, flow=Probing(waiting=True))
    assert progress.refused(9, hint_index=5)
    assert (progress.next, progress.flow) == (6, Probing(waiting=False))
    assert not progress.refused(9, hint_index=3), "the same answer again is about an earlier probe"
    assert progress.refused(5, hint_index=0)
    assert progress.next == 3, "never below what the member acknowledged"


def test_a_refusal_while_replicating_falls_back_to_probing_unless_it_is_late() -> None:
    progress = Progress(next=10, match=5)
    progress.replicate()
    progress.next = 10
    assert not progress.refused(5, hint_index=1)
    assert isinstance(progress.flow, Replicating)
    assert progress.refused(7, hint_index=6)
    assert (progress.flow, progress.next) == (Probing(), 6)


def test_messages_in_flight_are_counted_in_messages_and_bytes() -> None:
    flow = Replicating()
    for index in (3, 6, 9):
        flow.sent(index, index * 10)
    assert (len(flow.inflight), flow.inflight_bytes) == (3, 180)
    flow.answered(7)
    assert (list(flow.inflight), flow.inflight_bytes) == ([(9, 90)], 90)
    flow.drop_oldest()
    assert (len(flow.inflight), flow.inflight_bytes) == (0, 0)


def test_probing_forgets_a_snapshot_under_way() -> None:
    progress = Progress(next=3, match=2, flow=Installing(Snapshot(9, 1, Configuration(), b"")))
    progress.probe()
    assert (progress.flow, progress.next) == (Probing(), 3)


def test_a_round_answers_every_read_before_it() -> None:
    reads = Reads(reads_max=3)
    reads.open_round()
    reads.add(Read(A, 1), index=5)
    reads.add(Read(B, 2), index=6)
    reads.open_round()
    reads.add(Read(A, 3), index=7)
    with pytest.raises(Overloaded):
        reads.add(Read(A, 4), index=7)
    assert reads.answered(0) == []
    assert reads.answered(1) == [(5, Read(A, 1)), (6, Read(B, 2))]
    assert reads.pending() == [Read(A, 3)]
    assert reads.answered(2) == [(7, Read(A, 3))]


def test_early_reads_are_bounded_and_taken_once() -> None:
    reads = Reads(reads_max=2)
    reads.add_early(Read(A, 1))
    reads.add_early(Read(A, 2))
    with pytest.raises(Overloaded):
        reads.add_early(Read(A, 3))
    assert reads.take_early() == [Read(A, 1), Read(A, 2)]
    assert reads.take_early() == reads.pending() == []

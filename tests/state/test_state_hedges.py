"""A test in two leases: one verdict, the other's too late, and nothing lost whichever of them ends how."""

import pytest
from state_builder import ALICE, BOB, Builder, complete

from mesh.state.model import LOSSES_MAX, NO_LEASE, Run, RunPhase, Task
from mesh.state.snapshot import decode_state, encode_state
from protocols.commands import Cancel, Expire, Hedge, Preempt, RaiseFormat, Register, Return
from protocols.ids import LeaseId, PeerId, TestIndex
from protocols.manifests import Needs, Outcome

CAROL = PeerId("carol")
BAD = Outcome.FAILED


class Hedged(Builder):
    """Alice holds tests 0 to 2, Bob hedges test 1; the rest is pending."""

    def __init__(self, **changes: object) -> None:
        super().__init__()
        self.accept(RaiseFormat(3))
        self.worker(CAROL)
        self.run: Run = self.running(Task(0, 5), **{"hedge": True, **changes})
        self.first = self.grant(self.run.id, ALICE, Task(0, 3))
        self.second = self.hedge(self.first, 1, BOB)

    def hedge(self, lease: LeaseId, test: int, peer: PeerId) -> LeaseId:
        opened = self.accept(Hedge(lease, TestIndex(test), peer, self.state.workers[peer].incarnation)).lease
        assert opened is not None
        return opened

    def open(self, lease: LeaseId) -> list[int]:
        held = self.state.leases.get(lease)
        return (
            [] if held is None else [test for task in held.open for test in range(task.first, task.first + task.count)]
        )


@pytest.fixture
def hedged() -> Hedged:
    return Hedged()


def test_it_is_counted_once_and_survives_a_snapshot(hedged: Hedged) -> None:
    run = hedged.run
    assert (run.leased, run.pending_tests, run.hedges) == (3, 2, {1: hedged.second})
    assert (hedged.open(hedged.first), hedged.open(hedged.second)) == ([0, 1, 2], [1])
    assert decode_state(encode_state(hedged.state)) == hedged.state


def test_the_hedge_is_first(hedged: Hedged) -> None:
    done = hedged.accept(complete(hedged.second, 1))
    assert (done.tests, done.closed) == ((1,), (hedged.second,))
    assert (hedged.open(hedged.first), hedged.run.leased, hedged.run.hedges) == ([0, 2], 2, {})
    assert hedged.accept(complete(hedged.first, 0, 1)).tests == (0,), "the other one's verdict comes too late"
    assert (hedged.run.outcomes[1], hedged.run.chunks[0].worker, hedged.run.done) == (0, BOB, 2)


def test_the_holder_is_first(hedged: Hedged) -> None:
    done = hedged.accept(complete(hedged.first, 0, 1))
    assert (done.tests, done.closed) == ((0, 1), (hedged.second,))
    assert "not open" in hedged.reject(complete(hedged.second, 1))
    assert (hedged.run.leased, hedged.run.done) == (1, 2)


def test_who_had_nothing_else_loses_its_lease() -> None:
    hedged = Hedged()
    hedged.accept(complete(hedged.first, 0, 2))
    done = hedged.accept(complete(hedged.second, 1, outcome=BAD))
    assert done.closed == (hedged.first, hedged.second)
    assert "not open" in hedged.reject(complete(hedged.first, 1))
    assert hedged.run.outcomes[1] == BAD.code, "the first verdict counts, whatever it is"


def test_the_last_verdict_ends_the_run(hedged: Hedged) -> None:
    hedged.accept(complete(hedged.first, 0, 2))
    hedged.accept(complete(hedged.grant(hedged.run.id, CAROL, Task(3, 2)), 3, 4))
    hedged.accept(complete(hedged.second, 1))
    assert (hedged.run.phase, hedged.state.leases) == (RunPhase.REPORTING, {})


@pytest.mark.parametrize("how", ["return", "expire", "restart", "preempt"])
def test_a_hedge_that_ends_leaves_no_trace(hedged: Hedged, how: str) -> None:
    end(hedged, hedged.second, BOB, how)
    assert hedged.second not in hedged.state.leases
    assert (hedged.run.leased, hedged.run.pending, hedged.run.hedges) == (3, [Task(3, 2)], {})
    assert hedged.run.preempted == {}
    again = hedged.hedge(hedged.first, 1, CAROL)
    assert hedged.accept(complete(again, 1)).tests == (1,)


@pytest.mark.parametrize(("how", "losses"), [("return", 0), ("expire", 1), ("restart", 1), ("preempt", 0)])
def test_a_hedge_inherits_the_test(hedged: Hedged, how: str, losses: int) -> None:
    end(hedged, hedged.first, ALICE, how)
    assert hedged.state.leases[hedged.second].open == [Task(1, 1, 0, losses)]
    assert hedged.state.leases[hedged.second].hedges == NO_LEASE
    assert (hedged.run.leased, hedged.run.pending_tests, hedged.run.hedges) == (1, 4, {})
    assert sorted(hedged.run.preempted) == ([0, 2] if how == "preempt" else [])
    third = hedged.hedge(hedged.second, 1, CAROL)
    assert hedged.accept(complete(hedged.second, 1)).closed == (third, hedged.second)


def end(hedged: Hedged, lease: LeaseId, peer: PeerId, how: str) -> None:
    if how == "return":
        hedged.accept(Return(lease, tuple(TestIndex(test) for test in hedged.open(lease))))
    elif how == "expire":
        hedged.accept(Expire(lease, "silent"))
    elif how == "restart":
        hedged.accept(Register(peer, "host", 2, 2))
    else:
        hedged.accept(Preempt(lease, hedged.running(Task(0, 1), nonce=b"high", priority=90).id))


def test_both_are_lost(hedged: Hedged) -> None:
    hedged.accept(Expire(hedged.first, "silent"))
    hedged.accept(Expire(hedged.second, "silent"))
    (task,) = [task for task in hedged.run.pending if task.first == 1]
    assert task == Task(1, 1, 0, LOSSES_MAX - 1), "each loss counts"
    assert hedged.run.attempts[1] == 2


def test_a_bad_hedge_with_a_retry_left_is_no_verdict() -> None:
    hedged = Hedged(retries=1)
    done = hedged.accept(complete(hedged.second, 1, outcome=BAD))
    assert (done.retried, done.closed) == ((1,), (hedged.second,))
    assert (hedged.run.leased, hedged.run.pending, hedged.open(hedged.first)) == (3, [Task(3, 2)], [0, 1, 2])
    assert hedged.run.failed_on == {1: (BOB,)}
    hedged.accept(complete(hedged.first, 1))
    assert hedged.run.outcomes[1] == 0


def test_a_bad_holder_with_a_retry_left_leaves_it_to_the_hedge() -> None:
    hedged = Hedged(retries=1)
    done = hedged.accept(complete(hedged.first, 0, 1, outcome=BAD))
    assert (done.retried, done.closed) == ((0, 1), ())
    assert hedged.run.pending == [Task(0, 1), Task(3, 2)], "the hedge is its next try"
    assert (hedged.run.leased, hedged.state.leases[hedged.second].hedges) == (2, NO_LEASE)
    hedged.accept(complete(hedged.second, 1))
    assert (hedged.run.chunks[0].worker, hedged.run.leased) == (BOB, 1)


def test_ends_of_runs_close_both() -> None:
    hedged = Hedged()
    assert hedged.accept(Cancel(hedged.run.id, "enough")).closed == (hedged.first, hedged.second)
    limited = Hedged(maxfail=1)
    done = limited.accept(complete(limited.second, 1, outcome=BAD))
    assert (limited.run.phase, limited.state.leases) == (RunPhase.REPORTING, {})
    assert set(done.closed) == {limited.first, limited.second}


def test_what_is_refused(hedged: Hedged) -> None:
    def refusal(lease: LeaseId, test: int, peer: PeerId, incarnation: int = 1) -> str:
        return hedged.reject(Hedge(lease, TestIndex(test), peer, incarnation))

    assert "hedged by lease" in refusal(hedged.first, 1, CAROL)
    assert "not one that holds tests" in refusal(hedged.second, 1, CAROL)
    assert "not open" in refusal(LeaseId(999), 1, CAROL)
    assert "does not hold test 4" in refusal(hedged.first, 4, CAROL)
    assert "runs test 0 already" in refusal(hedged.first, 0, ALICE)
    assert "not registered as that process" in refusal(hedged.first, 0, CAROL, 2)
    plain = hedged.running(Task(0, 1), nonce=b"2")
    assert "one worker at a time" in refusal(hedged.grant(plain.id, ALICE, Task(0, 1)), 0, BOB)
    collects = hedged.grant(hedged.submit(b"3").id, ALICE)
    assert "not one that holds tests" in refusal(collects, 0, BOB)
    holds = hedged.running(Task(0, 1), nonce=b"4", hedge=True)
    holds.needs = (Needs(locks=("camera",)),)
    assert "is there once" in refusal(hedged.grant(holds.id, CAROL, Task(0, 1)), 0, BOB)

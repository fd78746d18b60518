"""Which submissions are taken on, and what a run of higher priority may take back."""

import pytest
from state_builder import ALICE, BOB, Builder, complete, spec

from mesh.state import admission
from mesh.state.model import PREEMPTIONS_MAX, Task
from mesh.state.results import Rejected
from mesh.state.snapshot import decode_state, encode_state
from protocols.commands import Cancel, Collected, Finish, Preempt, RaiseFormat, Submit
from protocols.ids import Cid, LeaseId, PeerId, RunId, TestIndex


@pytest.fixture
def builder() -> Builder:
    builder = Builder()
    builder.accept(RaiseFormat(admission.LOG_FORMAT_MIN))
    return builder


class TestAdmission:
    def test_open_runs_of_a_submitter(self, builder: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(admission, "RUNS_OPEN_PER_SUBMITTER_MAX", 2)
        first = builder.submit(b"1")
        builder.submit(b"2")
        result = builder.do(Submit(b"3", spec(), 0.0))
        assert result == Rejected("this submitter has 2 unfinished runs, and 2 is the limit for one", limit=True)
        builder.submit(b"4", submitter=PeerId("other"))
        builder.accept(Cancel(first.id, "no"))
        assert "the limit" in builder.reject(Submit(b"3", spec(), 0.0)), "its report is still to be built"
        builder.accept(Finish(first.id, None, 2, 1.0))
        builder.submit(b"3")

    def test_open_tests_of_a_submitter(self, builder: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(admission, "TESTS_OPEN_PER_SUBMITTER_MAX", 10)
        run = builder.running(Task(0, 10))
        lease = builder.grant(run.id, ALICE, Task(0, 5))
        assert builder.reject(Submit(b"3", spec(), 0.0)) == (
            "this submitter has 10 tests waiting, and 10 is the limit for one"
        )
        builder.accept(complete(lease, 0))
        builder.submit(b"3")

    def test_open_tests_of_all(self, builder: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(admission, "TESTS_OPEN_MAX", 10)
        builder.running(Task(0, 10))
        assert builder.reject(Submit(b"3", spec(submitter=PeerId("other")), 0.0)) == (
            "10 tests are waiting already, and 10 is the limit of a mesh"
        )

    def test_a_log_of_an_older_format_means_what_it_meant(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(admission, "RUNS_OPEN_PER_SUBMITTER_MAX", 1)
        builder = Builder()
        builder.submit(b"1")
        builder.submit(b"2")
        builder.accept(RaiseFormat(admission.LOG_FORMAT_MIN))
        assert "the limit" in builder.reject(Submit(b"3", spec(), 0.0))


class TestPreemption:
    def two(self, builder: Builder) -> tuple[RunId, RunId]:
        low = builder.running(Task(0, 6), Task(6, 3, 1), nonce=b"low", priority=10)
        high = builder.running(Task(0, 4), nonce=b"high", priority=90)
        return low.id, high.id

    def test_open_tests_go_back_without_a_loss(self, builder: Builder) -> None:
        low, high = self.two(builder)
        lease = builder.grant(low, ALICE, Task(2, 3), Task(6, 2, 1))
        builder.accept(complete(lease, 3))
        done = builder.accept(Preempt(lease, high))
        assert (done.run, done.tests, done.closed) == (low, (2, 4, 6, 7), (lease,))
        run = builder.state.runs[low]
        assert run.pending == [Task(0, 2), Task(2, 1), Task(4, 1), Task(5, 1), Task(6, 2, 1), Task(8, 1, 1)]
        assert (run.done, run.leased, run.leases) == (1, 0, [])
        assert builder.state.workers[ALICE].losses == 0
        assert set(run.attempts) == {0}
        assert run.preempted == {2: 1, 4: 1, 6: 1, 7: 1}
        assert decode_state(encode_state(builder.state)) == builder.state

    def test_what_the_worker_finishes_afterwards_is_refused(self, builder: Builder) -> None:
        low, high = self.two(builder)
        lease = builder.grant(low, ALICE, Task(0, 6))
        builder.accept(Preempt(lease, high))
        builder.reject(complete(lease, 0, 1, 2))
        builder.reject(Preempt(lease, high))
        again = builder.grant(low, BOB, Task(0, 6))
        builder.accept(complete(again, 0, 1, 2))
        assert builder.state.runs[low].done == 3

    def test_only_for_a_running_run_of_higher_priority(self, builder: Builder) -> None:
        low, high = self.two(builder)
        lease, other = builder.grant(low, ALICE, Task(0, 2)), builder.grant(high, ALICE, Task(0, 2))
        equal = builder.running(Task(0, 1), nonce=b"equal", priority=10)
        for taker in (low, equal.id, RunId(999), builder.submit(b"queued", priority=99).id):
            assert "does not run, or not before" in builder.reject(Preempt(lease, taker))
        builder.reject(Preempt(other, low))
        builder.accept(Cancel(high, "enough"))
        builder.reject(Preempt(lease, high))

    def test_not_a_collection(self, builder: Builder) -> None:
        _, high = self.two(builder)
        lease = builder.grant(builder.submit(b"c", priority=1).id, BOB)
        assert "not one to run tests" in builder.reject(Preempt(lease, high))
        builder.reject(Preempt(LeaseId(999), high))
        builder.accept(Collected(lease, Cid("m"), 1, (Task(0, 1),)))

    def test_no_test_is_taken_back_for_ever(self, builder: Builder) -> None:
        low, high = self.two(builder)
        for _ in range(PREEMPTIONS_MAX):
            builder.accept(Preempt(builder.grant(low, ALICE, Task(0, 1)), high))
        lease = builder.grant(low, ALICE, Task(0, 1), Task(1, 1))
        assert builder.reject(Preempt(lease, high)) == (
            f"a test of lease {lease} was preempted {PREEMPTIONS_MAX} times already"
        )
        builder.accept(complete(lease, *map(TestIndex, (0, 1))))

"""`apply`, command by command: what holds, what is rejected, and what each leaves behind."""

import pytest
from state_builder import ALICE, BOB, CHUNK, MANIFEST, Builder, complete, spec

from mesh.state.model import (
    COLLECT_LOSSES_MAX,
    LEASES_PER_WORKER_MAX,
    NO_WORKER,
    RUN_TESTS_MAX,
    WORKERS_MAX,
    RunPhase,
    Task,
)
from protocols.commands import (
    TESTS_PER_COMMAND_MAX,
    Abandon,
    Cancel,
    Collected,
    CollectFailed,
    Complete,
    Expire,
    Finish,
    Found,
    Grant,
    Register,
    Return,
    Submit,
    Yield,
)
from protocols.ids import LeaseId, PeerId, RunId, TestIndex
from protocols.manifests import Outcome


@pytest.fixture
def builder() -> Builder:
    return Builder()


def test_a_mesh_is_named_once(builder: Builder) -> None:
    assert builder.state.mesh == "lab"
    assert "has a name" in builder.reject(Found("other"))
    assert builder.state.mesh == "lab"


def test_a_mesh_without_runs_yields(builder: Builder) -> None:
    builder.worker(ALICE)
    assert "nothing to give way to" in builder.reject(Yield("lab"))
    builder.accept(Yield("elder"))
    assert builder.state.yielded == "elder"
    for command in (Submit(b"n", spec(), 0.0), Register(BOB, "bob", 1, 1), Grant(RunId(1), ALICE, 1, ()), Yield("x")):
        builder.reject(command)


def test_a_mesh_with_runs_does_not_yield(builder: Builder) -> None:
    run = builder.submit()
    assert "has runs" in builder.reject(Yield("elder"))
    builder.accept(Cancel(run.id, "no"))
    builder.accept(Finish(run.id, None, 2, 1.0))
    assert "has runs" in builder.reject(Yield("elder"))


def test_a_run_is_the_index_of_its_submission_and_a_retry_is_harmless(builder: Builder) -> None:
    run = builder.submit(b"once", priority=7)
    assert (run.id, run.spec.priority, run.submitted_at, run.state) == (builder.index, 7, 100.0, "queued")
    again = builder.accept(Submit(b"once", spec(priority=9), 200.0))
    assert again.run == run.id
    assert len(builder.state.runs) == 1
    assert run.spec.priority == 7


def test_unfinished_runs_are_bounded(builder: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mesh.state.admission.RUNS_OPEN_MAX", 2)
    first = builder.submit(b"1")
    builder.submit(b"2")
    assert builder.reject(Submit(b"3", spec(), 0.0)) == "2 runs are unfinished already, the most that a mesh takes on"
    builder.accept(Cancel(first.id, "no"))
    builder.accept(Finish(first.id, None, 2, 1.0))
    builder.submit(b"3")


class TestWorkers:
    def test_registration_can_be_repeated_and_changed(self, builder: Builder) -> None:
        builder.worker(ALICE, slots=2)
        builder.accept(Register(ALICE, "renamed", 1, 4))
        worker = builder.state.workers[ALICE]
        assert (worker.name, worker.slots, worker.incarnation) == ("renamed", 4, 1)

    def test_an_older_process_is_refused(self, builder: Builder) -> None:
        builder.worker(ALICE, incarnation=5)
        assert "newer process" in builder.reject(Register(ALICE, "alice", 4, 1))
        assert "slots" in builder.reject(Register(BOB, "bob", 1, -1))

    def test_a_new_incarnation_loses_the_leases_of_the_old(self, builder: Builder) -> None:
        run = builder.running(Task(0, 4), Task(4, 4))
        first = builder.grant(run.id, ALICE, Task(0, 4))
        second = builder.grant(run.id, ALICE, Task(4, 3))
        result = builder.accept(Register(ALICE, "alice", 2, 2))
        assert result.closed == (first, second)
        assert run.pending == [
            Task(0, 2, 0, 1), Task(2, 2, 0, 1), Task(4, 1, 0, 1), Task(5, 2, 0, 1), Task(7, 1, 0, 0)
        ]  # fmt: skip
        assert builder.state.workers[ALICE].losses == 2
        assert "not open" in builder.reject(complete(first, 0))

    def test_the_oldest_idle_registration_gives_way(self, builder: Builder) -> None:
        run = builder.running(Task(0, 4))
        builder.grant(run.id, ALICE, Task(0, 4))
        for i in range(WORKERS_MAX - 2):
            builder.state.workers[PeerId(f"w{i:04}")] = type(builder.state.workers[BOB])(
                PeerId(f"w{i:04}"), "w", 1, 1, registered=builder.index
            )
        builder.accept(Register(PeerId("newest"), "newest", 1, 1))
        assert BOB not in builder.state.workers
        assert ALICE in builder.state.workers, "it holds a lease"
        assert len(builder.state.workers) == WORKERS_MAX


class TestCollecting:
    def test_once_at_a_time(self, builder: Builder) -> None:
        builder.worker(ALICE)
        builder.worker(BOB)
        run = builder.submit()
        builder.grant(run.id, ALICE)
        assert run.state == "collecting"
        assert "is collecting" in builder.reject(Grant(run.id, BOB, 1, ()))
        assert "is collecting" in builder.reject(Grant(run.id, BOB, 1, (Task(0, 1),)))

    def test_collected(self, builder: Builder) -> None:
        run = builder.running(Task(0, 3), Task(3, 2, 1))
        assert (run.phase, run.tests, run.pending, run.manifest) == (
            RunPhase.RUNNING, 5, [Task(0, 3), Task(3, 2, 1)], MANIFEST
        )  # fmt: skip
        assert run.leases == []
        assert run.pending_tests == 5

    @pytest.mark.parametrize(
        ("tests", "tasks", "reason"),
        [
            (3, (Task(0, 2),), "not a partition"),
            (3, (Task(0, 2), Task(1, 2)), "not a partition"),
            (2, (Task(0, 2, 1),), "requirement"),
            (2, (Task(0, 2, 0, 1),), "losses"),
            (2**62, (Task(0, 2**62),), f"at most {RUN_TESTS_MAX}"),
            (-1, (), "at most"),
        ],
    )
    def test_a_wrong_collection_changes_nothing(
        self, builder: Builder, tests: int, tasks: tuple[Task, ...], reason: str
    ) -> None:
        builder.worker(ALICE)
        run = builder.submit()
        lease = builder.grant(run.id, ALICE)
        assert reason in builder.reject(Collected(lease, MANIFEST, tests, tasks))
        assert run.leases == [lease]

    def test_nothing_collected(self, builder: Builder) -> None:
        run = builder.running()
        assert run.phase is RunPhase.REPORTING
        assert run.failure is not None
        assert run.failure.exit_code == 5

    def test_failure(self, builder: Builder) -> None:
        builder.worker(ALICE)
        run = builder.submit()
        lease = builder.grant(run.id, ALICE)
        builder.accept(CollectFailed(lease, 2, "SyntaxError", CHUNK))
        assert run.state == "reporting"
        assert run.failure is not None
        assert (run.failure.exit_code, run.failure.reason, run.failure.record) == (2, "SyntaxError", CHUNK)
        assert "not open" in builder.reject(Collected(lease, MANIFEST, 0, ()))

    def test_given_back(self, builder: Builder) -> None:
        builder.worker(ALICE)
        run = builder.submit()
        lease = builder.grant(run.id, ALICE)
        assert builder.accept(Return(lease, ())).closed == (lease,)
        assert run.state == "queued"
        assert run.collect_losses == 0

    def test_a_collection_that_kills_workers_ends_the_run(self, builder: Builder) -> None:
        builder.worker(ALICE)
        run = builder.submit()
        for _ in range(COLLECT_LOSSES_MAX):
            assert run.state == "queued"
            builder.accept(Expire(builder.grant(run.id, ALICE), "gone"))
        assert run.state == "reporting"
        assert run.failure is not None
        assert run.failure.exit_code == 12

    def test_a_lease_to_collect_is_not_one_to_run(self, builder: Builder) -> None:
        builder.worker(ALICE)
        run = builder.submit()
        lease = builder.grant(run.id, ALICE)
        assert "not one to run" in builder.reject(complete(lease))
        assert (run.state, run.leases) == ("collecting", [lease])

    def test_a_lease_to_run_is_not_one_to_collect(self, builder: Builder) -> None:
        run = builder.running(Task(0, 3))
        lease = builder.grant(run.id, ALICE, Task(0, 3))
        builder.reject(CollectFailed(lease, 2, "no"))
        assert run.phase is RunPhase.RUNNING


class TestGrants:
    def test_a_part_of_a_task(self, builder: Builder) -> None:
        run = builder.running(Task(0, 10))
        lease = builder.grant(run.id, ALICE, Task(3, 4))
        assert run.pending == [Task(0, 3), Task(7, 3)]
        assert builder.state.leases[lease].open == [Task(3, 4)]
        assert (run.leased, run.pending_tests, run.workers) == (4, 6, [ALICE])
        assert builder.state.open_tests(ALICE) == 4
        assert builder.state.open_tests(PeerId("nobody")) == 0

    @pytest.mark.parametrize(
        ("tasks", "why"),
        [
            ((Task(8, 3),), "beyond the end"),
            ((Task(0, 2, 1),), "another requirement"),
            ((Task(0, 2, 0, 1),), "other losses"),
            ((Task(0, 2), Task(1, 2)), "one test twice"),
            ((Task(4, 2),), "across a boundary"),
            ((Task(0, 2), Task(20, 1)), "half right"),
        ],
    )
    def test_all_or_nothing(self, builder: Builder, tasks: tuple[Task, ...], why: str) -> None:
        run = builder.running(Task(0, 5), Task(5, 5))
        assert "pending" in builder.reject(Grant(run.id, ALICE, 1, tasks)), why
        assert run.pending == [Task(0, 5), Task(5, 5)]

    def test_the_first_grant_wins(self, builder: Builder) -> None:
        run = builder.running(Task(0, 5))
        builder.grant(run.id, ALICE, Task(0, 5))
        assert "pending" in builder.reject(Grant(run.id, BOB, 1, (Task(0, 5),)))

    def test_unknown_parties(self, builder: Builder) -> None:
        run = builder.running(Task(0, 5))
        assert "no run 99" in builder.reject(Grant(RunId(99), ALICE, 1, (Task(0, 5),)))
        assert "not registered" in builder.reject(Grant(run.id, PeerId("nobody"), 1, (Task(0, 5),)))
        assert "not registered" in builder.reject(Grant(run.id, ALICE, 2, (Task(0, 5),)))

    def test_bounds(self, builder: Builder) -> None:
        run = builder.running(Task(0, 10_000))
        too_many = Task(0, TESTS_PER_COMMAND_MAX + 1)
        assert str(TESTS_PER_COMMAND_MAX) in builder.reject(Grant(run.id, ALICE, 1, (too_many,)))
        for i in range(LEASES_PER_WORKER_MAX):
            builder.grant(run.id, ALICE, Task(i, 1))
        assert "64 leases" in builder.reject(Grant(run.id, ALICE, 1, (Task(100, 1),)))
        builder.grant(run.id, BOB, Task(100, 1))

    def test_a_test_is_alone_until_its_worker_gets_more(self, builder: Builder) -> None:
        run = builder.running(Task(0, 5))
        first = builder.grant(run.id, ALICE, Task(0, 1))
        assert builder.state.leases[first].alone
        second = builder.grant(run.id, ALICE, Task(1, 1))
        assert not builder.state.leases[first].alone
        assert not builder.state.leases[second].alone


class TestCompletions:
    def test_recorded_once(self, builder: Builder) -> None:
        run = builder.running(Task(0, 4))
        lease = builder.grant(run.id, ALICE, Task(0, 4))
        assert builder.accept(complete(lease, 2, 0, micros=7)).tests == (0, 2)
        again = builder.accept(complete(lease, 2, 0, 1, outcome=Outcome.FAILED))
        assert again.tests == (1,)
        assert bytes(run.outcomes) == bytes([0, 1, 0, 255])
        assert list(run.durations) == [7, 1000, 7, 0]
        assert (run.done, run.leased, run.counts) == (3, 1, [2, 1, 0, 0, 0, 0])
        assert [(list(c.tests), c.outcomes, list(c.attempts), c.worker, c.lease) for c in run.chunks] == [
            ([0, 2], b"\0\0", [1, 1], ALICE, lease),
            ([1], b"\1", [1], ALICE, lease),
        ]

    def test_only_what_the_lease_holds(self, builder: Builder) -> None:
        run = builder.running(Task(0, 8))
        mine = builder.grant(run.id, ALICE, Task(0, 4))
        builder.grant(run.id, BOB, Task(4, 4))
        result = builder.accept(complete(mine, 3, 4, 7, 99, -1))
        assert result.tests == (3,)
        assert run.done == 1

    def test_the_last_verdict_ends_the_run(self, builder: Builder) -> None:
        run = builder.running(Task(0, 2))
        lease = builder.grant(run.id, ALICE, Task(0, 2))
        assert builder.accept(complete(lease, 0)).closed == ()
        assert builder.accept(complete(lease, 1)).closed == (lease,)
        assert run.phase is RunPhase.REPORTING
        assert "not open" in builder.reject(complete(lease, 1))

    def test_one_completion_naming_a_test_twice_counts_the_first(self, builder: Builder) -> None:
        run = builder.running(Task(0, 2))
        lease = builder.grant(run.id, ALICE, Task(0, 2))
        builder.accept(Complete(lease, CHUNK, (TestIndex(0), TestIndex(0)), b"\0\1", (5, 6)))
        assert (run.counts[:2], run.durations[0]) == ([1, 0], 5)

    def test_a_duration_is_never_negative(self, builder: Builder) -> None:
        run = builder.running(Task(0, 2))
        builder.accept(complete(builder.grant(run.id, ALICE, Task(0, 2)), 0, micros=-5))
        assert run.microseconds == 0

    def test_late_after_an_expiry(self, builder: Builder) -> None:
        run = builder.running(Task(0, 2))
        lease = builder.grant(run.id, ALICE, Task(0, 2))
        builder.accept(Expire(lease, "silent"))
        assert "not open" in builder.reject(complete(lease, 0))
        later = builder.grant(run.id, BOB, Task(0, 1, 0, 1))
        builder.reject(complete(lease, 0))
        builder.accept(complete(later, 0))
        assert list(run.chunks[0].attempts) == [2]

    def test_retries(self, builder: Builder) -> None:
        run = builder.running(Task(0, 3), retries=2)
        lease = builder.grant(run.id, ALICE, Task(0, 3))
        result = builder.accept(complete(lease, 0, 1, outcome=Outcome.FAILED))
        assert (result.tests, result.retried) == ((0, 1), (0, 1))
        assert (run.done, run.pending) == (0, [Task(0, 1), Task(1, 1)])
        lease2 = builder.grant(run.id, BOB, Task(0, 1), Task(1, 1))
        builder.accept(complete(lease2, 0))
        result = builder.accept(complete(lease2, 1, outcome=Outcome.ERROR))
        assert result.retried == (1,)
        lease3 = builder.grant(run.id, BOB, Task(1, 1))
        result = builder.accept(complete(lease3, 1, outcome=Outcome.FAILED))
        assert (result.retried, result.tests) == ((), (1,))
        assert list(run.chunks[0].attempts) == [2]
        assert list(run.chunks[1].attempts) == [3]
        assert run.counts[:2] == [1, 1]
        builder.accept(complete(lease, 2))
        assert run.phase is RunPhase.REPORTING

    def test_skips_and_expected_failures_are_not_retried(self, builder: Builder) -> None:
        run = builder.running(Task(0, 3), retries=1)
        lease = builder.grant(run.id, ALICE, Task(0, 3))
        for test, outcome in enumerate((Outcome.SKIPPED, Outcome.XFAILED, Outcome.XPASSED)):
            assert builder.accept(complete(lease, test, outcome=outcome)).retried == ()
        assert run.done == 3


class TestLosses:
    def test_expired_tests_come_back_halved(self, builder: Builder) -> None:
        run = builder.running(Task(0, 9), Task(9, 3, 1))
        lease = builder.grant(run.id, ALICE, Task(0, 9), Task(9, 3, 1))
        builder.accept(complete(lease, 3))
        result = builder.accept(Expire(lease, "silent"))
        assert result.closed == (lease,)
        assert run.pending == [
            Task(0, 1, 0, 1), Task(1, 2, 0, 1), Task(4, 2, 0, 1), Task(6, 3, 0, 1), Task(9, 1, 1, 1), Task(10, 2, 1, 1)
        ]  # fmt: skip
        assert list(run.attempts) == [1, 1, 1, 0] + [1] * 8
        assert builder.state.workers[ALICE].losses == 1
        assert "not open" in builder.reject(Expire(lease, "again"))

    def test_returned_tests_come_back_whole(self, builder: Builder) -> None:
        run = builder.running(Task(0, 9))
        lease = builder.grant(run.id, ALICE, Task(0, 9))
        builder.accept(complete(lease, 0))
        result = builder.accept(Return(lease, tuple(TestIndex(t) for t in (8, 7, 3, 0, 99))))
        assert (result.tests, result.closed) == ((3, 7, 8), ())
        assert run.pending == [Task(3, 1), Task(7, 2)]
        assert not any(run.attempts)
        rest = builder.accept(Return(lease, tuple(TestIndex(t) for t in range(9))))
        assert rest.closed == (lease,)
        assert run.phase is RunPhase.RUNNING

    def test_only_a_test_alone_can_lose_for_the_last_time(self, builder: Builder) -> None:
        run = builder.running(Task(0, 2))
        for losses in (0, 1, 2, 2):
            one = builder.grant(run.id, ALICE, Task(0, 1, 0, losses))
            two = builder.grant(run.id, ALICE, Task(1, 1, 0, losses))
            builder.accept(Expire(one, "gone"))
            builder.accept(Expire(two, "gone"))
        assert run.pending == [Task(0, 1, 0, 2), Task(1, 1, 0, 2)]
        builder.accept(Expire(builder.grant(run.id, ALICE, Task(0, 1, 0, 2)), "gone"))
        assert run.pending[0] == Task(0, 1, 0, 3)

    def test_a_killer_is_found_by_halving(self, builder: Builder) -> None:
        run = builder.running(Task(0, 64))
        deaths = 0
        while not any(task.losses == 3 for task in run.pending):
            task = min((t for t in run.pending if t.first <= 37 < t.first + t.count), key=lambda t: t.first)
            builder.accept(Expire(builder.grant(run.id, ALICE, task), "killed"))
            deaths += 1
        assert [task for task in run.pending if task.losses == 3] == [Task(37, 1, 0, 3)]
        assert deaths == 7

    def test_abandon(self, builder: Builder) -> None:
        run = builder.running(Task(0, 3))
        lease = builder.grant(run.id, ALICE, Task(0, 1))
        assert "not pending" in builder.reject(Abandon(run.id, TestIndex(0), CHUNK))
        builder.accept(Expire(lease, "gone"))
        builder.accept(Abandon(run.id, TestIndex(0), CHUNK))
        builder.reject(Abandon(run.id, TestIndex(0), CHUNK))
        builder.reject(Abandon(RunId(99), TestIndex(0), CHUNK))
        builder.accept(Abandon(run.id, TestIndex(1), CHUNK))
        assert run.pending == [Task(2, 1)]
        builder.accept(Abandon(run.id, TestIndex(2), CHUNK))
        assert run.phase is RunPhase.REPORTING
        assert run.counts[Outcome.ERROR.code] == 3
        assert (run.chunks[0].worker, list(run.chunks[0].attempts)) == (NO_WORKER, [1])


class TestEnds:
    def test_cancel_closes_leases_and_keeps_verdicts(self, builder: Builder) -> None:
        run = builder.running(Task(0, 4))
        lease = builder.grant(run.id, ALICE, Task(0, 3))
        builder.accept(complete(lease, 1))
        assert builder.accept(Cancel(run.id, "enough")).closed == (lease,)
        assert (run.state, run.done, run.pending, run.cancelled) == ("reporting", 1, [], "enough")
        assert "not open" in builder.reject(complete(lease, 0))
        assert "is over" in builder.reject(Cancel(run.id, "again"))
        builder.accept(Finish(run.id, CHUNK, 2, 5.0, "enough"))
        assert run.state == "cancelled"
        assert (run.pending_tests, run.leased) == (0, 0)

    def test_cancel_while_collecting(self, builder: Builder) -> None:
        builder.worker(ALICE)
        run = builder.submit()
        lease = builder.grant(run.id, ALICE)
        builder.accept(Cancel(run.id, "enough"))
        builder.reject(Collected(lease, MANIFEST, 0, ()))
        assert run.phase is RunPhase.REPORTING

    def test_finish_only_once_and_only_when_over(self, builder: Builder) -> None:
        run = builder.running(Task(0, 1))
        assert "not waiting" in builder.reject(Finish(run.id, CHUNK, 0, 5.0))
        builder.accept(complete(builder.grant(run.id, ALICE, Task(0, 1)), 0))
        builder.accept(Finish(run.id, CHUNK, 0, 5.0))
        builder.reject(Finish(run.id, None, 1, 6.0))
        assert (run.state, run.exit_code, run.report, run.finished_at) == ("passed", 0, CHUNK, 5.0)
        assert "no run 99" in builder.reject(Cancel(RunId(99), "x"))
        assert "is over" in builder.reject(Cancel(run.id, "x"))

    @pytest.mark.parametrize(
        ("exit_code", "cancelled", "state"),
        [(0, False, "passed"), (1, False, "failed"), (2, True, "cancelled"), (2, False, "error"), (5, False, "error"),
         (10, True, "error"), (12, False, "error")],
    )  # fmt: skip
    def test_final_states(self, builder: Builder, exit_code: int, cancelled: bool, state: str) -> None:
        run = builder.running(Task(0, 1))
        if cancelled:
            builder.accept(Cancel(run.id, "enough"))
        else:
            builder.accept(complete(builder.grant(run.id, ALICE, Task(0, 1)), 0))
        builder.accept(Finish(run.id, None, exit_code, 5.0))
        assert run.state == state

    def test_stray_leases(self, builder: Builder) -> None:
        for command in (complete(LeaseId(9), 1), Return(LeaseId(9), ()), Expire(LeaseId(9), "x")):
            assert "lease 9 is not open" in builder.reject(command)

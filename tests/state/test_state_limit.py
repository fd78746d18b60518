"""-x and --maxfail: the log ends a run at its limit of bad verdicts, exactly."""

from mesh.state.model import RunPhase, Task
from mesh.state.report import exit_code
from protocols.commands import Abandon, Complete
from protocols.ids import LeaseId, TestIndex
from protocols.manifests import Outcome
from tests.state.state_builder import ALICE, BOB, CHUNK, Builder, complete


def ended(lease: LeaseId, *outcomes: tuple[int, Outcome]) -> Complete:
    """Tests in the order in which they ended."""
    tests = tuple(TestIndex(test) for test, _ in outcomes)
    return Complete(lease, CHUNK, tests, bytes(outcome.code for _, outcome in outcomes), (1_000,) * len(tests))


def test_the_limit_ends_the_run_and_closes_every_lease() -> None:
    builder = Builder()
    run = builder.running(Task(0, 10), maxfail=2)
    first, second = builder.grant(run.id, ALICE, Task(0, 4)), builder.grant(run.id, BOB, Task(4, 4))
    builder.accept(ended(first, (0, Outcome.PASSED), (1, Outcome.FAILED)))
    assert run.phase is RunPhase.RUNNING
    applied = builder.accept(ended(second, (5, Outcome.ERROR)))
    assert applied.closed == (first, second)
    assert (run.phase, run.cancelled, exit_code(run)) == (RunPhase.REPORTING, "stopping after 2 failures", 1)
    assert (run.done, run.pending, run.leased) == (3, [], 0)
    assert "not open" in builder.reject(complete(first, 2, outcome=Outcome.FAILED))


def test_what_ended_after_the_limit_does_not_count() -> None:
    builder = Builder()
    run = builder.running(Task(0, 6), maxfail=1)
    lease = builder.grant(run.id, ALICE, Task(0, 6))
    builder.accept(ended(lease, (4, Outcome.PASSED), (3, Outcome.FAILED), (0, Outcome.FAILED), (1, Outcome.PASSED)))
    (recorded,) = run.chunks
    assert list(recorded.tests) == [4, 3]
    assert run.counts[Outcome.FAILED.code] == 1


def test_a_limit_that_the_last_test_reaches_stops_nothing() -> None:
    builder = Builder()
    run = builder.running(Task(0, 2), maxfail=1)
    lease = builder.grant(run.id, ALICE, Task(0, 2))
    builder.accept(ended(lease, (0, Outcome.PASSED), (1, Outcome.FAILED)))
    assert (run.phase, run.cancelled, exit_code(run)) == (RunPhase.REPORTING, None, 1)


def test_only_the_last_try_counts() -> None:
    builder = Builder()
    run = builder.running(Task(0, 3), maxfail=1, retries=1)
    lease = builder.grant(run.id, ALICE, Task(0, 2))
    builder.accept(ended(lease, (0, Outcome.FAILED), (1, Outcome.PASSED)))
    assert (run.phase, run.done) == (RunPhase.RUNNING, 1)
    again = builder.grant(run.id, ALICE, Task(0, 1))
    builder.accept(ended(again, (0, Outcome.FAILED)))
    assert run.cancelled == "stopping after 1 failures"


def test_an_abandoned_test_counts() -> None:
    builder = Builder()
    run = builder.running(Task(0, 2), maxfail=1)
    applied = builder.accept(Abandon(run.id, TestIndex(1), CHUNK))
    assert applied.tests == (1,)
    assert run.cancelled == "stopping after 1 failures"

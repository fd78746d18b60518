"""Verdicts of an earlier run: recorded once, for tests that are pending and wait for nothing."""

import pytest
from state_builder import ALICE, CHUNK, Builder, complete

from mesh.state import report, retention
from mesh.state.dependencies import Barriers
from mesh.state.model import NO_WORKER, RunPhase, Task
from mesh.state.snapshot import decode_state, encode_state
from protocols.commands import Finish, RaiseFormat, Reuse
from protocols.ids import Cid, RunId, TestIndex
from protocols.manifests import Dependency


@pytest.fixture
def builder() -> Builder:
    made = Builder()
    made.accept(RaiseFormat(4))
    return made


def reuse(run: RunId, *tests: int) -> Reuse:
    return Reuse(run, tuple(map(TestIndex, tests)), CHUNK, tuple(1_000 * (test + 1) for test in tests))


def test_pending_tests_take_the_verdict_and_the_rest_runs(builder: Builder) -> None:
    run = builder.running(Task(0, 4), Task(4, 4, 1), Task(8, 1))
    lease = builder.grant(run.id, ALICE, Task(8, 1))
    assert builder.accept(reuse(run.id, 5, 1, 2, 0, 8, 99)).tests == (0, 1, 2, 5)
    assert run.pending == [Task(3, 1), Task(4, 1, 1), Task(6, 2, 1)]
    assert (run.done, run.reused, run.leased) == (4, 4, 1)
    assert list(run.durations[:6]) == [1000, 2000, 3000, 0, 0, 6000]
    assert {done.worker for done in run.chunks} == {NO_WORKER}
    builder.accept(complete(lease, 8))
    assert run.reused == 4, "what ran is not reused"
    assert run.phase is RunPhase.RUNNING


def test_a_verdict_is_recorded_once(builder: Builder) -> None:
    run = builder.running(Task(0, 2))
    lease = builder.grant(run.id, ALICE, Task(0, 1))
    builder.accept(complete(lease, 0))
    assert builder.accept(reuse(run.id, 0, 1)).tests == (1,)
    assert run.phase is RunPhase.REPORTING
    assert "pending" in builder.reject(reuse(run.id, 0, 1))


def test_a_log_of_an_older_format_takes_none() -> None:
    builder = Builder()
    run = builder.running(Task(0, 2))
    assert "can't reuse" in builder.reject(reuse(run.id, 0))
    assert run.done == 0


def test_who_waits_for_another_test_does_not_take_a_verdict_before_that_one_has_its_own(builder: Builder) -> None:
    run = builder.running(Task(0, 1), Task(1, 1))
    run.barriers = Barriers((Dependency(1, 1, 0, 1),))
    assert "pending" in builder.reject(reuse(run.id, 1))
    builder.accept(reuse(run.id, 0))
    assert builder.accept(reuse(run.id, 1)).tests == (1,)


def test_it_is_counted_in_the_last_event_in_snapshots_and_in_summaries(builder: Builder) -> None:
    run = builder.running(Task(0, 3))
    builder.accept(reuse(run.id, 0, 1))
    builder.accept(complete(builder.grant(run.id, ALICE, Task(2, 1)), 2))
    builder.accept(Finish(run.id, Cid("bafyreport"), 0, 200.0))
    assert report.finished_event(run)["reused"] == 2
    again = decode_state(encode_state(builder.state)).runs[run.id]
    assert (again.reused, again.counts) == (2, run.counts)
    assert report.finished_event(retention.summary(run))["reused"] == 2

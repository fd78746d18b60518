"""Verdicts of pending tests that no lease will end: abandoned, skipped for one that they depend on, or reused."""

from mesh.state import ranges, verdicts
from mesh.state.dependencies import Standing
from mesh.state.model import CoordinatorState, Run, Task
from mesh.state.results import Rejected
from protocols.commands import Abandon, Reuse, Skip
from protocols.ids import TestIndex
from protocols.manifests import Outcome

REUSE_FORMAT_MIN = 4
"""Of a log that can say that verdicts are reused."""


def abandon(run: Run | None, command: Abandon) -> tuple[TestIndex, ...] | Rejected:
    """Record `error` for a test that took its node with it too often; which that was."""
    if run is None or ranges.locate(run.pending, command.test) is None:
        return Rejected(f"test {command.test} of run {command.run} is not pending", command.run)
    if run.barriers and run.barriers.standing(run.outcomes, command.test)[0] is not Standing.MET:
        return Rejected(f"test {command.test} of run {run.id} waits for others", run.id)
    _take(run, command.test)
    verdicts.record_unrun(run, (command.test,), command.chunk, Outcome.ERROR)
    return (command.test,)


def skip(run: Run | None, command: Skip) -> tuple[TestIndex, ...] | Rejected:
    """Record `skipped` for those of the tests whose dependencies failed; which those were."""
    if run is None or run.barriers is None:
        return Rejected(f"no test of run {command.run} depends on another", command.run)
    skipped = [test for test in sorted(set(command.tests)) if _has_failed_dependency(run, test)]
    if not skipped:
        return Rejected(f"none of these tests of run {run.id} is to be skipped", run.id)
    for test in skipped:
        _take(run, test)
    verdicts.record_unrun(run, skipped, command.chunk, Outcome.SKIPPED)
    return tuple(skipped)


def reuse(state: CoordinatorState, command: Reuse) -> tuple[TestIndex, ...] | Rejected:
    """Record `passed` for those of the tests that are pending and wait for nothing; which those were."""
    run = state.runs.get(command.run)
    if run is None or state.format < REUSE_FORMAT_MIN:
        return Rejected(f"run {command.run} can't reuse verdicts", command.run)
    durations = dict(zip(command.tests, command.durations, strict=True))
    tests = [test for test in sorted(durations) if _is_free(run, test)]
    if not tests:
        return Rejected(f"none of these tests of run {run.id} is pending", run.id)
    for piece in ranges.subtract(run.pending, tests)[1]:
        ranges.cut_out(run.pending, piece)
    verdicts.record_unrun(run, tests, command.chunk, Outcome.PASSED, [durations[test] for test in tests])
    return tuple(tests)


def _is_free(run: Run, test: TestIndex) -> bool:
    if ranges.locate(run.pending, test) is None:
        return False
    return run.barriers is None or run.barriers.standing(run.outcomes, test)[0] is Standing.MET


def _has_failed_dependency(run: Run, test: TestIndex) -> bool:
    assert run.barriers is not None, "only a run with dependencies skips"
    pending = ranges.locate(run.pending, test) is not None
    return pending and run.barriers.standing(run.outcomes, test)[0] is Standing.FAILED


def _take(run: Run, test: TestIndex) -> None:
    position = ranges.locate(run.pending, test)
    assert position is not None, "only a pending test can be taken"
    task = run.pending[position]
    ranges.cut_out(run.pending, Task(test, 1, task.requirement, task.losses))

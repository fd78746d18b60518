"""The book of a run's verdicts: written once a test, in steps that followers can count.

Exactly-once recording lives here: `enter_completion` alone writes outcomes, and asserts that none stood there.
"""

from array import array
from collections.abc import Callable, Sequence

from mesh.state import ranges
from mesh.state.model import NO_LEASE, NO_VERDICT, NO_WORKER, Completion, Lease, Run, Task
from protocols.ids import Cid, LeaseId, PeerId, TestIndex
from protocols.manifests import Outcome

ATTEMPTS_MAX = 254
"""Attempts of one test that are counted: one byte each."""


def open_book(run: Run, tests: int) -> None:
    """Empty pages for `tests` tests."""
    run.tests = tests
    run.outcomes = bytearray([NO_VERDICT]) * tests
    run.durations = array("q", bytes(8 * tests))
    run.attempts = bytearray(tests)


def end_attempt(run: Run, test: int) -> None:
    """An attempt ended without a verdict."""
    run.attempts[test] = min(run.attempts[test] + 1, ATTEMPTS_MAX)


def split_retries(
    run: Run, lease: Lease, tests: Sequence[TestIndex], outcome: Callable[[TestIndex], int]
) -> tuple[list[TestIndex], list[Task]]:
    """Those of `tests`, open in `lease`, that get another attempt (it is counted), and the tasks that they become."""
    retried: list[TestIndex] = []
    again: list[Task] = []
    if run.spec.retries <= 0:
        return retried, again
    for test in tests:
        if not Outcome.of_code(outcome(test)).bad or run.retried.get(test, 0) >= run.spec.retries:
            continue
        run.retried[test] = run.retried.get(test, 0) + 1
        end_attempt(run, test)
        position = ranges.locate(lease.open, test)
        assert position is not None, "only an open test can be retried"
        task = lease.open[position]
        retried.append(test)
        again.append(Task(test, 1, task.requirement, task.losses))
    return retried, again


def record(run: Run, entries: Sequence[tuple[TestIndex, int, int]], chunk: Cid, worker: PeerId, lease: LeaseId) -> None:
    """Record (test, outcome code, microseconds) entries, as one step."""
    if not entries:
        return
    enter_completion(
        run,
        Completion(
            chunk=chunk,
            worker=worker,
            lease=lease,
            tests=array("I", (test for test, _, _ in entries)),
            outcomes=bytes(outcome for _, outcome, _ in entries),
            durations=array("q", (max(duration, 0) for _, _, duration in entries)),
            attempts=bytes(run.attempts[test] + 1 for test, _, _ in entries),
        ),
    )


def record_abandoned(run: Run, test: TestIndex, chunk: Cid) -> None:
    """The verdict `error` for a test of which every attempt was lost."""
    enter_completion(
        run,
        Completion(
            chunk=chunk,
            worker=NO_WORKER,
            lease=NO_LEASE,
            tests=array("I", [test]),
            outcomes=bytes([Outcome.ERROR.code]),
            durations=array("q", [0]),
            attempts=bytes([max(run.attempts[test], 1)]),
        ),
    )


def enter_completion(run: Run, done: Completion) -> None:
    """Write a step into the book; none of its tests has a verdict."""
    for test, outcome, duration in zip(done.tests, done.outcomes, done.durations, strict=True):
        assert run.outcomes[test] == NO_VERDICT, "a verdict is recorded once"
        run.outcomes[test] = outcome
        run.durations[test] = duration
        run.counts[outcome] += 1
        run.microseconds += duration
    run.done += len(done.tests)
    run.chunks.append(done)

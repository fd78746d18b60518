"""The book of a run's verdicts: written once a test, in steps that followers can count.

Exactly-once recording lives here: `enter_completion` alone writes outcomes, and asserts that none stood there.
"""

from array import array
from collections.abc import Callable, Sequence

from mesh.state import ranges
from mesh.state.model import NO_LEASE, NO_VERDICT, NO_WORKER, TRIES_MAX, Completion, Lease, Run, Task
from protocols.commands import Complete
from protocols.ids import Cid, LeaseId, PeerId, TestIndex
from protocols.manifests import Outcome

ATTEMPTS_MAX = 254
"""Attempts of one test that are counted: one byte each."""

LOG_FORMAT_MIN = 3
"""Of a log that keeps what came before a verdict."""

_ONE_MORE = bytes(min(count + 1, 255) for count in range(256))
"""For `translate`."""


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


def keep_tries(run: Run, lease: Lease, command: Complete, retried: Sequence[tuple[TestIndex, int]]) -> None:
    """Remember bad outcomes that are not the last word: of tests whose attempts were counted, and where in the command
    each stands."""
    kept = [one for one in retried if len(run.failed_on.get(one[0], ())) < TRIES_MAX]
    if kept:
        tried = Completion(
            chunk=command.chunk,
            worker=lease.worker,
            lease=lease.id,
            tests=array("I", [test for test, _ in kept]),
            outcomes=bytes(command.outcomes[place] for _, place in kept),
            durations=array("q", [max(command.durations[place], 0) for _, place in kept]),
            attempts=bytes(run.attempts[test] for test, _ in kept),
        )
        enter_tries(run, tried)


def enter_tries(run: Run, tried: Completion) -> None:
    run.tries.append(tried)
    for test in tried.tests:
        run.failed_on[test] = (*run.failed_on.get(test, ()), tried.worker)


def bad(run: Run) -> int:
    """Verdicts that count for the limit of -x and --maxfail."""
    return sum(run.counts[outcome.code] for outcome in Outcome if outcome.bad)


def up_to_limit(run: Run, tests: Sequence[TestIndex], outcome: Callable[[TestIndex], int]) -> list[TestIndex]:
    """Of `tests`, in the order in which they ended, those up to the bad one that reaches the run's limit."""
    room = run.spec.maxfail - bad(run)
    kept: list[TestIndex] = []
    for test in tests:
        kept.append(test)
        room -= Outcome.of_code(outcome(test)).bad
        if room <= 0:
            break
    return kept


def record(
    run: Run,
    tests: Sequence[int],
    outcomes: bytes,
    durations: Sequence[int],
    chunk: Cid,
    worker: PeerId,
    lease: LeaseId,
) -> None:
    """Record outcome codes and microseconds of `tests` (sorted), as one step."""
    if not tests:
        return
    indexes = array("I", tests)
    if _contiguous(indexes):
        attempts = run.attempts[tests[0] : tests[-1] + 1].translate(_ONE_MORE)
    else:
        attempts = bytearray(run.attempts[test] + 1 for test in tests)
    times = array("q", durations if min(durations) >= 0 else [max(duration, 0) for duration in durations])
    enter_completion(run, Completion(chunk, worker, lease, indexes, outcomes, times, bytes(attempts)))


def record_unrun(
    run: Run, tests: Sequence[TestIndex], chunk: Cid, outcome: Outcome, durations: Sequence[int] = ()
) -> None:
    """The same verdict for tests that no lease ended: abandoned, skipped for one that they depend on, or reused (these
    took their `durations`, microseconds, when they ran)."""
    enter_completion(
        run,
        Completion(
            chunk=chunk,
            worker=NO_WORKER,
            lease=NO_LEASE,
            tests=array("I", tests),
            outcomes=bytes([outcome.code]) * len(tests),
            durations=array("q", [max(each, 0) for each in durations] or bytes(8 * len(tests))),
            attempts=bytes(max(run.attempts[test], 1) for test in tests),
        ),
    )


def enter_completion(run: Run, done: Completion) -> None:
    """Write a step into the book; none of its tests has a verdict."""
    count = len(done.tests)
    if not count == len(done.outcomes) == len(done.durations):
        raise ValueError("tests, outcomes and durations differ in length")
    if count and max(done.tests) >= run.tests:
        raise IndexError(f"run {run.id} has no test {max(done.tests)}")
    if _contiguous(done.tests):
        _enter_range(run, done, done.tests[0], done.tests[0] + count)
    else:
        _enter_each(run, done)
    for code in sorted({*done.outcomes}):
        run.counts[code] += done.outcomes.count(code)
    run.microseconds += sum(done.durations)
    run.done += count
    run.chunks.append(done)


def _contiguous(tests: "array[int]") -> bool:
    """Most steps are: a worker runs its tasks in order."""
    return bool(tests) and tests == array("I", range(tests[0], tests[0] + len(tests)))


def _enter_range(run: Run, done: Completion, first: int, end: int) -> None:
    assert run.outcomes.count(NO_VERDICT, first, end) == end - first, "a verdict is recorded once"
    run.outcomes[first:end] = done.outcomes
    run.durations[first:end] = done.durations


def _enter_each(run: Run, done: Completion) -> None:
    for test, outcome, duration in zip(done.tests, done.outcomes, done.durations, strict=True):
        assert run.outcomes[test] == NO_VERDICT, "a verdict is recorded once"
        run.outcomes[test] = outcome
        run.durations[test] = duration

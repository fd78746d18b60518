"""When a run will have ended, about: what its tests are expected to take, at its pace, over the slots that it has.

For people: nothing is decided by it. Pure.
"""

from collections.abc import Collection

from mesh.scheduler.durations import Estimates, correction
from mesh.state import ranges
from mesh.state.model import CoordinatorState, Run, RunPhase
from protocols.ids import LeaseId, PeerId, TestIndex

OBSERVED_TESTS_MIN = 20
"""Verdicts after which the run's own pace counts; and, of a project without a history, the least to say anything by."""


def seconds_left(
    state: CoordinatorState,
    run: Run,
    estimates: Estimates | None,
    done: tuple[float, float],
    running: Collection[tuple[PeerId, LeaseId, TestIndex, float]],
    held: dict[PeerId, int],
) -> float | None:
    """None: it can't be said. `done`: expected seconds of the tests that have a verdict, on a common worker, and on
    those that ran them; `running`: of this run, where, and for how many seconds already. `held`: tests that workers
    hold, of all runs; filled in here, for those who ask of many runs at once."""
    if run.phase is not RunPhase.RUNNING or estimates is None or len(estimates) != run.tests:
        return 0.0 if run.phase is RunPhase.REPORTING else None
    if not estimates.known and run.done < OBSERVED_TESTS_MIN:
        return None
    slots = _slots(state, run, held)
    if not slots:
        return None
    rest = max(0.0, estimates.total(0, run.tests) - done[0])
    pace = correction(run.microseconds / 1e6, done[1]) if run.done >= OBSERVED_TESTS_MIN else 1.0
    begun = {test: estimates[test] * pace for _, _, test, _ in running}
    spent = sum(min(seconds, begun[test]) for _, _, test, seconds in running)
    longest = max((begun[test] - seconds for _, _, test, seconds in running), default=0.0)
    return round(max((rest * pace - spent) / slots, longest, 0.0), 3)


def _slots(state: CoordinatorState, run: Run, held: dict[PeerId, int]) -> float:
    """Those that work on the run: of a worker with tests of several runs, in parts."""
    mine: dict[PeerId, int] = {}
    for lease in (state.leases[number] for number in run.leases):
        mine[lease.worker] = mine.get(lease.worker, 0) + ranges.size(lease.open)
    slots = 0.0
    for peer, tests in mine.items():
        if peer not in held:
            held[peer] = state.open_tests(peer)
        slots += min(state.workers[peer].slots * tests / held[peer], tests) if held[peer] else 0.0
    return slots

"""Which of a run's pending tests could be run now, and which never will: these get their verdicts without a lease."""

from collections.abc import Iterator

from mesh.scheduler.waiting import Skipped
from mesh.state import dependencies, ranges
from mesh.state.dependencies import Standing
from mesh.state.model import LOSSES_MAX, Run, Task
from protocols.ids import RunId, TestIndex

ABANDONS_PER_PLAN_MAX = 256
SKIPS_PER_PLAN_MAX = 1_024
"""Tests."""


def ready_tasks(run: Run, skips: list[Skipped], abandons: list[tuple[RunId, TestIndex]]) -> Iterator[Task]:
    """What could be run now, in the manifest's order; adds what is to be skipped, or abandoned, up to those limits."""
    room = SKIPS_PER_PLAN_MAX - sum(len(skip.tests) for skip in skips)
    for task in run.pending:
        if run.barriers is not None:
            standing, why = run.barriers.standing(run.outcomes, task.first)
            if standing is Standing.FAILED and why is not None and room > 0:
                tests = tuple(TestIndex(test) for test in range(task.first, ranges.end(task))[:room])
                on = dependencies.bad(run.outcomes, why.on, why.on + why.on_count)
                skips.append(Skipped(run.id, tests, TestIndex(on) if on is not None else None))
                room -= len(tests)
            if standing is not Standing.MET:
                continue
        if task.count == 1 and task.losses >= LOSSES_MAX:
            if len(abandons) < ABANDONS_PER_PLAN_MAX:
                abandons.append((run.id, TestIndex(task.first)))
        else:
            yield task

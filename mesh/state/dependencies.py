"""Which tests of a run wait for which: its dependencies, and where each of them stands.

Ranges wait for ranges, so that a suite of a million tests that has one last test is one dependency. The boundaries of
those who wait cut the tests into stretches of the same dependencies; a task never crosses one. Where a dependency
stands follows from the recorded verdicts alone, and never changes once it is met or failed: so every voter refuses the
same grant and takes the same skip. Rejected: edges between single tests (a barrier between two halves of a suite would
be their product), deciding skips in `apply` itself (a verdict has a record, which is content).
"""

import bisect
import enum
import graphlib
from collections.abc import Sequence

from mesh.state import ranges
from protocols.commands import TaskRange
from protocols.manifests import Dependency, Outcome

DEPENDENCIES_MAX = 4_096
"""Of one run, which go into one entry of the log."""
LINKS_MAX = 262_144
"""Pairs of a stretch and a dependency that it waits for, or that waits for it."""

NO_VERDICT = 255
"""Where a run's outcomes have no verdict yet."""
GOOD = bytes((Outcome.PASSED.code, Outcome.XPASSED.code))
"""What those who depend on a test go on with."""


class Standing(enum.Enum):
    WAITING = "waiting"
    MET = "met"
    FAILED = "failed"


class Barriers:
    """The dependencies of one run, with which `problem` has found nothing wrong. Derived from the log, never saved."""

    def __init__(self, dependencies: Sequence[Dependency]) -> None:
        self.dependencies = tuple(dependencies)
        edges = {edge for one in self.dependencies for edge in (one.first, one.first + one.count)}
        self._starts = sorted(edges)
        self._stretches: list[tuple[int, ...]] = [()] * len(self._starts)
        for number, one in enumerate(self.dependencies):
            first = bisect.bisect_left(self._starts, one.first)
            last = bisect.bisect_left(self._starts, one.first + one.count)
            for place in range(first, last):
                self._stretches[place] += (number,)
        self._standings = [Standing.WAITING] * len(self.dependencies)
        self._seen = [one.on for one in self.dependencies]
        """Below this, all tests that the dependency waits for have a verdict."""

    @property
    def cuts(self) -> Sequence[int]:
        """Where tasks must be cut."""
        return self._starts

    def crosses(self, task: TaskRange) -> bool:
        """Whether a task has tests of unlike dependencies."""
        place = bisect.bisect_right(self._starts, task.first)
        return place < len(self._starts) and self._starts[place] < ranges.end(task)

    def waits_for(self, test: int) -> list[tuple[int, int]]:
        """The ranges (first, count) of tests that a test waits for."""
        place = bisect.bisect_right(self._starts, test) - 1
        numbers = self._stretches[place] if place >= 0 else ()
        return [(self.dependencies[number].on, self.dependencies[number].on_count) for number in numbers]

    def standing(self, outcomes: bytearray, test: int) -> tuple[Standing, Dependency | None]:
        """Where a test stands, and the first dependency that keeps it from running."""
        place = bisect.bisect_right(self._starts, test) - 1
        waiting: Dependency | None = None
        for number in self._stretches[place] if place >= 0 else ():
            found = self._standing(outcomes, number)
            if found is Standing.FAILED:
                return found, self.dependencies[number]
            if found is Standing.WAITING and waiting is None:
                waiting = self.dependencies[number]
        return (Standing.WAITING, waiting) if waiting else (Standing.MET, None)

    def _standing(self, outcomes: bytearray, number: int) -> Standing:
        if self._standings[number] is not Standing.WAITING:
            return self._standings[number]
        one = self.dependencies[number]
        last = one.on + one.on_count
        missing = outcomes.find(NO_VERDICT, self._seen[number], last)
        known = missing if missing >= 0 else last
        if not one.on_count or (one.passed and bad(outcomes, self._seen[number], known) is not None):
            self._standings[number] = Standing.FAILED
        elif missing >= 0:
            self._seen[number] = missing
        else:
            self._standings[number] = Standing.MET
        return self._standings[number]


def bad(outcomes: bytearray, first: int, last: int) -> int | None:
    """The first test of a stretch, all of which have verdicts, that has not passed."""
    rest = outcomes[first:last].lstrip(GOOD)
    return last - len(rest) if rest else None


def problem(dependencies: Sequence[Dependency], tests: int) -> str:
    """What is wrong with the dependencies of so many tests; empty if nothing is. Cycles are found by `cycle`."""
    if len(dependencies) > DEPENDENCIES_MAX:
        return (
            f"{len(dependencies)} dependencies between tests or stretches of tests, and {DEPENDENCIES_MAX} is the limit"
        )
    for one in dependencies:
        if max(one.first + one.count, one.on + one.on_count) > tests:
            return f"a dependency names test {max(one.first + one.count, one.on + one.on_count) - 1} of {tests}"
    if _links(dependencies) > LINKS_MAX:
        return f"the dependencies between tests are too entangled: over {LINKS_MAX} links"
    return ""


def refusal(dependencies: Sequence[Dependency], tests: int, tasks: Sequence[TaskRange]) -> str:
    """Why some of these tests would wait for ever, or nobody could tell for what; empty if all is well."""
    wrong = problem(dependencies, tests)
    if wrong or not dependencies:
        return wrong
    if cycle(dependencies):
        return "tests wait for each other in a circle"
    barriers = Barriers(dependencies)
    return "a task has tests that wait for unlike others" if any(map(barriers.crosses, tasks)) else ""


def _boundaries(dependencies: Sequence[Dependency]) -> list[int]:
    edges = {edge for one in dependencies for edge in (one.first, one.first + one.count)}
    return sorted(edges | {edge for one in dependencies for edge in (one.on, one.on + one.on_count)})


def _links(dependencies: Sequence[Dependency]) -> int:
    starts = _boundaries(dependencies)
    return sum(
        bisect.bisect_left(starts, first + count) - bisect.bisect_left(starts, first)
        for one in dependencies
        for first, count in ((one.first, one.count), (one.on, one.on_count))
    )


def cycle(dependencies: Sequence[Dependency]) -> list[int]:
    """Tests that wait for each other in a circle, each for the next one, the last for the first; empty if none do."""
    starts = _boundaries(dependencies)
    waits: dict[int, list[int]] = {}
    for number, one in enumerate(dependencies):
        # a dependency is a node of its own, -1 - number, so that ranges cost their sum and not their product
        for place in range(bisect.bisect_left(starts, one.first), bisect.bisect_left(starts, one.first + one.count)):
            waits.setdefault(place, []).append(-1 - number)
        first, last = bisect.bisect_left(starts, one.on), bisect.bisect_left(starts, one.on + one.on_count)
        waits[-1 - number] = list(range(first, last))
    try:
        graphlib.TopologicalSorter(waits).prepare()
    except graphlib.CycleError as error:
        nodes: list[int] = list(reversed(error.args[1]))
        return [starts[place] for place in nodes[:-1] if place >= 0]
    return []

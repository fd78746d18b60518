"""Which tests slow each other down: from how long they took beside others on their worker, run after run.

A long test contends if in several of its last runs it took twice its quickest time while other long tests ran beside
it for half of that or more, and in some it did not. How slow the others of the same run were on that worker is taken
out first, so that a busy hour or a slow host makes no test contend. Only what it did in its last few runs is
remembered: one that was kept apart, and was not slow again, is tried beside others after a while.

Plans keep contending tests apart where they have something else to give (`Supply.choose`): being wrong costs little.
Soft state of a coordinator, from the records that it reads anyway; a new one learns anew. Rejected: pairs of tests (a
square of them, seldom together twice), starting times in the log (of every test, where only the long ones tell).
"""

import math
import statistics
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

from protocols.ids import PeerId, RunId

LONG_SECONDS = 0.5
"""Shorter tests are neither judged nor held against others."""
SLOW_FACTOR = 2.0
"""Times its quickest, at which a test was slow,"""
QUICK_FACTOR = 1.5
"""and under which it was quick."""
BESIDE_PART = 0.5
"""Of its time with others beside it, at which it ran beside others."""
SLOW_RUNS = 3
QUICK_RUNS = 2
"""That it takes at least, of those remembered."""
RUNS_REMEMBERED = 8
"""Of a test."""
NOTED_MAX = 10_000
"""Long tests of one run that are looked at."""
OPEN_RUNS_MAX = 64
"""That are noted at a time; beyond them the oldest is let go."""
TESTS_MAX = 4_096
"""Of a project that are remembered; beyond them the one that ran longest ago is forgotten."""
PROJECTS_MAX = 16


@dataclass(frozen=True, slots=True)
class Stretch:
    """A test that ran; seconds, `started` by its worker's clock."""

    test: str
    started: float
    seconds: float

    @property
    def ended(self) -> float:
        return self.started + self.seconds


@dataclass(slots=True)
class _Known:
    """What is remembered of a test."""

    quickest: float
    runs: list[str] = field(default_factory=list)
    """The newest last: "slow" (beside others), "quick", or "" (neither, or slow by itself)."""

    @property
    def contends(self) -> bool:
        return self.runs.count("slow") >= SLOW_RUNS and self.runs.count("quick") >= QUICK_RUNS


class Contention:
    """`note` while a run goes on, `end` when it is over."""

    def __init__(self) -> None:
        self._noted: OrderedDict[RunId, list[tuple[PeerId, Stretch]]] = OrderedDict()
        self._projects: OrderedDict[str, OrderedDict[str, _Known]] = OrderedDict()

    def note(self, run: RunId, worker: PeerId, stretch: Stretch) -> None:
        if not (LONG_SECONDS <= stretch.seconds < math.inf and math.isfinite(stretch.started)):
            return  # workers say what they like
        noted = self._noted.setdefault(run, [])
        if len(noted) < NOTED_MAX:
            noted.append((worker, stretch))
        while len(self._noted) > OPEN_RUNS_MAX:
            self._noted.popitem(last=False)

    def end(self, run: RunId, project: str) -> None:
        known = self._projects.setdefault(project, OrderedDict())
        self._projects.move_to_end(project)
        by_worker: dict[PeerId, list[Stretch]] = {}
        for worker, stretch in self._noted.pop(run, ()):
            by_worker.setdefault(worker, []).append(stretch)
        for stretches in by_worker.values():
            _judge(list(dict.fromkeys(stretches)), known)  # some were told twice
        while len(known) > TESTS_MAX:
            known.popitem(last=False)
        while len(self._projects) > PROJECTS_MAX:
            self._projects.popitem(last=False)

    def contending(self, project: str) -> frozenset[str]:
        """Tests of the project that had better not run beside each other."""
        return frozenset(test for test, known in self._projects.get(project, {}).items() if known.contends)


def _judge(stretches: Sequence[Stretch], known: "OrderedDict[str, _Known]") -> None:
    """Add what the tests of one run on one worker did to what is known of them."""
    factors = [one.seconds / known[one.test].quickest for one in stretches if one.test in known]
    usual = max(1.0, statistics.median(factors)) if factors else 1.0
    for one, crowded in zip(stretches, beside(stretches), strict=True):
        before = known.setdefault(one.test, _Known(one.seconds))
        known.move_to_end(one.test)
        factor = one.seconds / before.quickest / usual
        is_beside = crowded >= BESIDE_PART * one.seconds
        said = "quick" if factor < QUICK_FACTOR else "slow" if is_beside and factor >= SLOW_FACTOR else ""
        before.runs = [*before.runs, said][-RUNS_REMEMBERED:]
        before.quickest = min(before.quickest, one.seconds)


def beside(stretches: Sequence[Stretch]) -> list[float]:
    """Of each, for how many seconds others of them ran beside it."""
    edges = sorted({edge for one in stretches for edge in (one.started, one.ended)})
    place = {edge: number for number, edge in enumerate(edges)}
    changes = [0] * len(edges)
    for one in stretches:
        changes[place[one.started]] += 1
        changes[place[one.ended]] -= 1
    running, shared = 0, [0.0]
    for number, change in enumerate(changes[:-1]):
        running += change
        shared.append(shared[-1] + (edges[number + 1] - edges[number] if running > 1 else 0.0))
    return [shared[place[one.ended]] - shared[place[one.started]] for one in stretches]

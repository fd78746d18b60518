"""A test that takes much longer than it used to.

Durations are compared as logarithms: a test's median over its past runs, the pace of its host in each run (the median
deviation of all that ran there: a loaded host slows everything) and the pace of its neighbours (a host that was loaded
for a moment slows those that ran then, which are neighbours in the manifest, the short ones as much as the long). What
is left is the test's own; it is slow when that is far beyond its usual scatter (a median absolute deviation, drawn
towards that of all tests, since five runs tell little), beyond what any of so many tests might do by chance
(Bonferroni), beyond all that the test ever did, and beyond what odd tests of this project do now and then.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mesh.anomalies.rules import Rules
from mesh.anomalies.story import Row, Story
from protocols.ids import PeerId

RUNS_MIN = 5
"""In which a test passed, before it can be slow."""

PACE_TESTS_MIN = 5
"""That a host ran, to tell its pace in a run."""
PACE_SECONDS_MIN = 0.02
"""Shorter tests tell the machine's noise, and only count where there are no others."""

NEIGHBOURS = 3
"""On each side of a test, on its host, that tell what went on when it ran: before, or after."""
NEIGHBOUR_SLOW, NEIGHBOURS_SLOW = math.log(2.0), math.log(1.5)
"""From which on the next one, or the median of them, tells that it was the host; unless the test was slow in its last
two runs, too, as a whole file may become."""
NEIGHBOURS_SCATTERS = 3.0
"""Times its own usual scatter that a neighbour must be off, to tell anything: what takes milliseconds scatters much."""
NEIGHBOURS_HELD = math.log(3.0)
"""Beyond the test itself: such a neighbour was held up for a moment, and the test was not."""

SCATTER_MIN = 0.1
"""Of a logarithm: no test is more exact than a tenth."""
SCATTER_WEIGHT = 5
"""Runs of its own with which a test's scatter counts as much as that of all."""
SAMPLE = 1_000
"""Tests that tell the scatter of all."""

MAD_TO_DEVIATION = 1.4826
CHANCE = 0.01
"""Of one false alarm in a run, were scatter normal."""
FEW_RUNS = 1.5
"""Over the number of runs that a median comes from: how much further a test must be off, since the median may be."""
ALONE = math.log(1.25)
"""How much further off a test must be at least that ran first or last on its host: a load that began with it, or ended,
met nobody else."""
BEYOND_OWN = math.log(1.25)
"""Over the worst but one that the test did before."""
ODD_SHARE_MAX = 0.2
"""Part of the past runs that may have had another test as odd as this one."""

RECOVERED = math.log(2.0)
"""Under which a slow test is slow no longer."""


@dataclass(frozen=True, slots=True)
class Slow:
    """A test, what it took, what it was expected to take there and then, and how often it has run before."""

    test: str
    seconds: float
    expected: float
    runs: int

    @property
    def ratio(self) -> float:
        return self.seconds / self.expected


@dataclass(slots=True)
class _Past:
    """A test's medians and deviations, as logarithms."""

    median: float
    deviations: list[float]


class Pace:
    """How each host of a run fared, over what its tests usually take (logarithms)."""

    def __init__(self, story: Story, medians: Mapping[str, float]) -> None:
        by_host: dict[PeerId, list[float]] = {}
        short: dict[PeerId, list[float]] = {}
        floor = math.log(PACE_SECONDS_MIN)
        for test, row in story.rows.items():
            median = medians.get(test)
            if median is not None and row.seconds > 0:
                bucket = by_host if median >= floor else short
                bucket.setdefault(row.worker, []).append(math.log(row.seconds) - median)
        for peer, deviations in short.items():
            if len(by_host.get(peer, ())) < PACE_TESTS_MIN:
                by_host.setdefault(peer, []).extend(deviations)
        every = [one for deviations in by_host.values() for one in deviations]
        self._all = statistics.median(every) if len(every) >= PACE_TESTS_MIN else 0.0
        self._of = {
            peer: statistics.median(deviations)
            for peer, deviations in by_host.items()
            if len(deviations) >= PACE_TESTS_MIN
        }

    def __call__(self, peer: PeerId) -> float:
        return self._of.get(peer, self._all)


class Durations:
    """What a project's past runs (the newest first) say of what its tests take. Medians and paces are polished (Tukey,
    1977): a test that ran on slow hosts would seem slow, and so its hosts fast."""

    def __init__(self, past: Sequence[Story]) -> None:
        logs: dict[str, list[tuple[float, int, PeerId]]] = {}
        for place, story in enumerate(past):
            for test, row in story.rows.items():
                if row.seconds > 0:
                    logs.setdefault(test, []).append((math.log(row.seconds), place, row.worker))
        known = {test: each for test, each in logs.items() if len(each) >= RUNS_MIN}
        self.medians = {test: statistics.median(log for log, _, _ in each) for test, each in known.items()}
        self._past = past
        paces = [Pace(story, self.medians) for story in past]
        self.medians = {
            test: statistics.median(log - paces[place](worker) for log, place, worker in each)
            for test, each in known.items()
        }
        self._paces = [Pace(story, self.medians) for story in past]
        self._scatter = self._scatter_of_all()

    def of(self, test: str) -> _Past:
        """A test that has a median."""
        median = self.medians[test]
        deviations = [
            math.log(row.seconds) - median - pace(row.worker)
            for story, pace in zip(self._past, self._paces, strict=True)
            if (row := story.rows.get(test)) is not None and row.seconds > 0
        ]
        return _Past(median, deviations)

    def _scatter_of_all(self) -> float:
        tests = sorted(self.medians)
        step = max(1, len(tests) // SAMPLE)
        scatters = [_scatter(self.of(test).deviations) for test in tests[::step]]
        return max(SCATTER_MIN, statistics.median(scatters)) if scatters else SCATTER_MIN

    def scatter(self, past: _Past) -> float:
        own, weight = _scatter(past.deviations), len(past.deviations)
        drawn = (weight * own**2 + SCATTER_WEIGHT * self._scatter**2) / (weight + SCATTER_WEIGHT)
        return max(SCATTER_MIN, math.sqrt(drawn))

    def odd_before(self, rules: Rules, deviation: float, but: str) -> int:
        """Runs in which another test deviated as much, and by as many seconds as would be told."""
        found = 0
        for story, pace in zip(self._past, self._paces, strict=True):
            for test, row in story.rows.items():
                median = self.medians.get(test)
                if median is None or row.seconds < rules.slow_seconds or test == but:
                    continue
                own = math.log(row.seconds) - median - pace(row.worker)
                if own >= deviation and row.seconds * (1 - math.exp(-own)) >= rules.slow_seconds:
                    found += 1
                    break
        return found


def _scatter(deviations: Sequence[float]) -> float:
    middle = statistics.median(deviations)
    return MAD_TO_DEVIATION * statistics.median(abs(each - middle) for each in deviations)


def slow_tests(rules: Rules, story: Story, past: Sequence[Story]) -> tuple[list[Slow], list[str]]:
    """The tests of a run that are slow, the worst first; and those that take about what they used to."""
    durations = Durations(past)
    pace = Pace(story, durations.medians)
    least = math.log(rules.slow_factor)
    known = [test for test, row in story.rows.items() if row.seconds > 0 and test in durations.medians]
    beyond_chance = statistics.NormalDist().inv_cdf(1 - CHANCE / max(len(known), 2))
    found: list[Slow] = []
    fine: list[str] = []
    order: list[tuple[str, Row]] | None = None
    for test in known:
        row = story.rows[test]
        deviation = math.log(row.seconds) - durations.medians[test] - pace(row.worker)
        if deviation < RECOVERED:
            fine.append(test)
        expected = math.exp(durations.medians[test] + pace(row.worker))
        if deviation < least or row.seconds - expected < rules.slow_seconds:
            continue
        if order is None:
            order = sorted(story.rows.items(), key=lambda one: one[1].place)
        own = durations.of(test)
        sides = _nearby(order, test, row, deviation, durations, pace)
        if min(own.deviations[:2]) < least:
            deviation -= max(_slowed(side) for side in sides)
        least_here = least + max(FEW_RUNS / len(own.deviations), 0.0 if all(sides) else ALONE)
        if deviation < max(least_here, beyond_chance * durations.scatter(own), sorted(own.deviations)[-2] + BEYOND_OWN):
            continue
        if durations.odd_before(rules, deviation, test) > ODD_SHARE_MAX * len(past):
            continue
        found.append(Slow(test, row.seconds, row.seconds / math.exp(deviation), len(own.deviations)))
    found.sort(key=lambda one: (-one.ratio, one.test))
    return found, fine


def _nearby(
    order: Sequence[tuple[str, Row]], test: str, row: Row, deviation: float, durations: Durations, pace: Pace
) -> tuple[list[float], list[float]]:
    """How far a test's neighbours on its host deviate, those before it and those after, the next one first; 0 for one
    that tells nothing."""
    place = next(index for index, (name, _) in enumerate(order) if name == test)

    def some(indexes: Sequence[int]) -> list[float]:
        found: list[float] = []
        for index in indexes:
            name, other = order[index]
            if other.worker == row.worker and other.seconds > 0 and name in durations.medians:
                off = math.log(other.seconds) - durations.medians[name] - pace(other.worker)
                surely = off >= NEIGHBOURS_SCATTERS * durations.scatter(durations.of(name))
                found.append(off if surely and off <= deviation + NEIGHBOURS_HELD else 0.0)
                if len(found) == NEIGHBOURS:
                    break
        return found

    return some(range(place - 1, -1, -1)), some(range(place + 1, len(order)))


def _slowed(side: Sequence[float]) -> float:
    """By how much the host was slow when a test ran, as its neighbours on one side tell."""
    if not side:
        return 0.0
    middle = statistics.median(side)
    return max(side[0] if side[0] >= NEIGHBOUR_SLOW else 0.0, middle if middle >= NEIGHBOURS_SLOW else 0.0)

"""When and where a run's tests ran, slot by slot: what a Gantt chart shows, its gaps, and the chain of tests that set
the end. Pure.

Times are those of the workers' own clocks, as their records have them; nothing here depends on their being exact.
"""

import bisect
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from protocols.ids import PeerId

SPANS_MAX = 20_000
"""Of one run."""
IDLE_SHARE = 0.01
"""Of the time from the first start to the last end: a gap that is shown."""
IDLE_SHOWN_MAX = 1_000
TOLERANCE_SECONDS = 0.0005
"""By which a span may begin before the one that it comes after has ended."""


class Span(NamedTuple):
    """One attempt at a test. Seconds; `start` since the epoch."""

    test: int
    start: float
    seconds: float
    outcome: int
    """Its code."""
    attempt: int

    @property
    def end(self) -> float:
        return self.start + self.seconds


class Spans:
    """All of a run's that are known, in flat arrays: some 30 bytes each. Full at `SPANS_MAX`."""

    def __init__(self) -> None:
        self.slots: list[tuple[PeerId, int]] = []
        self._slot_of: dict[tuple[PeerId, int], int] = {}
        self._tests = array("I")
        self._places = array("I")
        self._starts = array("d")
        self._seconds = array("d")
        self._outcomes = bytearray()
        self._attempts = bytearray()

    def __len__(self) -> int:
        return len(self._tests)

    @property
    def full(self) -> bool:
        return len(self._tests) >= SPANS_MAX

    def add(self, worker: PeerId, slot: int, span: Span) -> None:
        place = self._slot_of.setdefault((worker, slot), len(self.slots))
        if place == len(self.slots):
            self.slots.append((worker, slot))
        self._tests.append(span.test)
        self._places.append(place)
        self._starts.append(span.start)
        self._seconds.append(max(span.seconds, 0.0))
        self._outcomes.append(span.outcome)
        self._attempts.append(min(span.attempt, 255))

    def by_slot(self) -> dict[tuple[PeerId, int], list[Span]]:
        """Each slot's in the order in which they began."""
        found: dict[tuple[PeerId, int], list[Span]] = {slot: [] for slot in self.slots}
        in_place = [found[slot] for slot in self.slots]
        columns = (self._tests, self._starts, self._seconds, self._outcomes, self._attempts)
        for place, span in zip(self._places, map(Span, *columns), strict=True):
            in_place[place].append(span)
        for spans in found.values():
            spans.sort(key=lambda span: (span[1], span[1] + span[2], span[0]))
        return found


Depends = Callable[[int], Sequence[tuple[int, int]]]
"""Of a test: the ranges (first, count) of tests that it waited for."""


def gaps(spans: Sequence[Span], first: float, last: float, least: float) -> Iterator[tuple[float, float]]:
    """(start, seconds) of each time from `first` to `last` without a span, if it is no shorter than `least`."""
    free = first
    for span in spans:
        if span.start - free >= least and span.start > free:
            yield free, span.start - free
        free = max(free, span.end)
    if last - free >= least and last > free:
        yield free, last - free


def critical(by_slot: Mapping[tuple[PeerId, int], Sequence[Span]], depends: Depends) -> list[Span]:
    """The chain that set the end, from its first test: back from the last span to end, each time to the latest to end
    before it of those on its slot and of the tests that it depends on."""
    slots = list(by_slot.values())
    lasts = (
        (max(spans, key=lambda span: span.start + span.seconds), place) for place, spans in enumerate(slots) if spans
    )
    end = max(lasts, key=lambda one: (one[0].end, -one[1]), default=None)
    if end is None:
        return []
    span, place = end
    chain = [span]
    latest = _Latest(slots)
    before: dict[int, _Before] = {}
    while True:
        if place not in before:
            before[place] = _Before(slots[place])
        found: tuple[float, int, Span] | None = None
        previous = before[place].ended(span)
        if previous is not None:
            found = (previous.end, place, previous)
        for first, count in depends(span.test):
            one = latest.of(first, count)
            if one is not None and one[2].start < span.start and one[0] <= span.start + TOLERANCE_SECONDS:
                found = one if found is None or one[0] > found[0] else found
        if found is None:
            return chain[::-1]
        _, place, span = found
        chain.append(span)


class _Before:
    """The spans of one slot by their ends."""

    def __init__(self, spans: Sequence[Span]) -> None:
        self._spans = sorted(spans, key=lambda span: (span.end, span.start))
        self._ends = [span.end for span in self._spans]

    def ended(self, span: Span) -> Span | None:
        """The last to end before this one began."""
        place = bisect.bisect_right(self._ends, span.start + TOLERANCE_SECONDS) - 1
        while place >= 0 and self._spans[place].start >= span.start:  # a moment long, or itself
            place -= 1
        return self._spans[place] if place >= 0 else None


class _Latest:
    """The last of a range of tests to end: when, on which slot, and its span. Nothing is made before it is asked."""

    def __init__(self, slots: Sequence[Sequence[Span]]) -> None:
        self._slots = slots
        self._known: dict[tuple[int, int], tuple[float, int, Span] | None] = {}

    @cached_property
    def _ends(self) -> dict[int, tuple[float, int, Span]]:
        """By test."""
        ends: dict[int, tuple[float, int, Span]] = {}
        for place, spans in enumerate(self._slots):
            for span in spans:
                if span.test not in ends or span.end > ends[span.test][0]:
                    ends[span.test] = (span.end, place, span)
        return ends

    @cached_property
    def _tests(self) -> list[int]:
        return sorted(self._ends)

    def of(self, first: int, count: int) -> tuple[float, int, Span] | None:
        key = (first, count)
        if key not in self._known:
            low = bisect.bisect_left(self._tests, first)
            high = bisect.bisect_left(self._tests, first + count)
            inside = (self._ends[test] for test in self._tests[low:high])
            self._known[key] = max(inside, key=lambda one: (one[0], -one[1]), default=None)
        return self._known[key]


def document(
    run: str,
    submitted: float,
    ended: float | None,
    tests: int,
    spans: Spans,
    names: Mapping[PeerId, str],
    depends: Depends,
) -> dict[str, Any]:
    """The timeline for people and pages. `start`, `end`: seconds since the epoch; all else is in seconds after `start`.
    `submitted`, `ended`: by the coordinator's clock."""
    by_slot = spans.by_slot()
    order = sorted(by_slot, key=lambda slot: (names.get(slot[0], slot[0]), slot[0], slot[1]))
    filled = [found for found in by_slot.values() if found]
    first = min((found[0].start for found in filled), default=submitted)
    last = max((max(span[1] + span[2] for span in found) for found in filled), default=submitted)
    start = min(submitted, first)
    idle: list[dict[str, Any]] = [
        {"worker": slot[0], "slot": slot[1], "start": round(at - start, 3), "seconds": round(seconds, 3)}
        for slot in order
        for at, seconds in gaps(by_slot[slot], first, last, IDLE_SHARE * (last - first))
    ]
    idle.sort(key=lambda gap: -gap["seconds"])
    return {
        "run": run,
        "start": round(start, 3),
        "end": None if ended is None else round(max(ended, last), 3),
        "first": round(first - start, 3),
        "last": round(last - start, 3),
        "tests": tests,
        "slots": [
            {
                "worker": slot[0],
                "name": names.get(slot[0], ""),
                "slot": slot[1],
                "spans": [
                    [test, round(began - start, 3), round(seconds, 4), outcome, attempt]
                    for test, began, seconds, outcome, attempt in by_slot[slot]
                ],
            }
            for slot in order
        ],
        "idle": idle[:IDLE_SHOWN_MAX],
        "critical": [span.test for span in critical(by_slot, depends)],
    }

"""What services count for the metrics: plain numbers, kept where things happen and read when somebody asks.

An observation costs a search in a short tuple and two additions, so that it may stand in a hot path. Nothing here knows
of Prometheus (`mesh/monitoring/` does). A thread may observe, too: what it races with is a reader.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

SHORT_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Upper bounds for what should take milliseconds: a sync, a commit, an answer."""

LONG_SECONDS = (0.05, 0.25, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0)
"""And for what may take minutes: a place in the queue."""

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"})
OTHER = "other"


class Histogram:
    """How often values were at most so large."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float] = SHORT_SECONDS) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        """Of each bound, those under it and over the one before; last, those over all bounds."""
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def cumulative(self) -> list[tuple[float, int]]:
        """(bound, how many values were at most that), infinity last."""
        told, number = [], 0
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            number += count
            told.append((bound, number))
        return told


@dataclass(slots=True)
class LogMeasures:
    """Of this node's member of the Raft group, over all groups that it was in."""

    commits: Histogram = field(default_factory=Histogram)
    """Seconds from a proposal at this node, as the leader, until its commands were applied here."""
    leader_changes: int = 0
    """Times that another member, or none before, was seen to lead."""


@dataclass(slots=True)
class CoordinationMeasures:
    """Of this node while it coordinated."""

    dispatches: Histogram = field(default_factory=Histogram)
    """Seconds from the plan that granted a lease until its worker had it."""
    waits: Histogram = field(default_factory=lambda: Histogram(LONG_SECONDS))
    """Seconds from the submission of a run until its first lease."""
    plans: Histogram = field(default_factory=Histogram)
    """Seconds that a plan took."""


@dataclass(slots=True)
class Traffic:
    """Of this node's content."""

    here: int = 0
    """Blocks and trees that were asked for and here already."""
    fetched: int = 0
    """Those that came from other nodes."""
    missing: int = 0
    """Those that nobody had, or not in time."""
    received_blocks: int = 0
    received_bytes: int = 0
    sent_blocks: int = 0
    sent_bytes: int = 0


@dataclass(slots=True)
class ApiMeasures:
    """Of the HTTP API."""

    requests: Counter[tuple[str, int]] = field(default_factory=Counter)
    """By method (`METHODS`, or `OTHER`) and status."""
    seconds: Histogram = field(default_factory=Histogram)
    """Until the answer began."""

    def answered(self, method: str, status: int, seconds: float) -> None:
        self.requests[method if method in METHODS else OTHER, status] += 1
        self.seconds.observe(seconds)


@dataclass(slots=True)
class Measures:
    """All that one node counts. Each service holds its part."""

    log: LogMeasures = field(default_factory=LogMeasures)
    coordination: CoordinationMeasures = field(default_factory=CoordinationMeasures)
    traffic: Traffic = field(default_factory=Traffic)
    api: ApiMeasures = field(default_factory=ApiMeasures)

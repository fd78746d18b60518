"""What the tests of a manifest are expected to take, as plans ask for it; `prediction.py` makes it out of history.

Estimates steer, they decide nothing that could be wrong: with the worst of them a run is slow, never incorrect.
"""

import bisect
import itertools
import math
from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import overload

from protocols.ids import PeerId

DURATION_DEFAULT = 0.1
"""Seconds, for a test of a project without history."""
DURATION_MIN = 0.0001
"""Seconds: no estimate is less, so that a thousand tests are never free."""

SCALE_MAX = 1_000.0
"""Bound of a run's correction, and one over it, too."""
SCALE_STEPS = 64
"""Of that correction, to a factor of two: it does not change with each verdict, nor what lies on each desk."""


@dataclass(frozen=True, slots=True)
class ByLength:
    """A number for durations of each length (`length_of`); beyond the ends, that of the nearest end."""

    first: int = 0
    """The least length."""
    values: tuple[float, ...] = (1.0,)

    def __call__(self, seconds: float) -> float:
        return self.values[min(max(length_of(seconds) - self.first, 0), len(self.values) - 1)]


_NOTHING_OF_WORKERS: Mapping[PeerId, float] = MappingProxyType({})
_EXACT = ByLength()


class Estimates(Sequence[float]):
    """Expected seconds of each test of a manifest; immutable. Sums over ranges cost the same for any length.

    `known`: whether history stands behind most of them; a plan hands out less of what is merely guessed.
    """

    __slots__ = ("_bulk", "_factors", "_spreads", "_sums", "contending", "known")

    def __init__(
        self,
        values: Iterable[float],
        known: bool = True,
        factors: Mapping[PeerId, float] = _NOTHING_OF_WORKERS,
        spreads: ByLength = _EXACT,
        bulk: ByLength = _EXACT,
        contending: frozenset[int] = frozenset(),
    ) -> None:
        """`factors`, `spreads`, `bulk`: see `factor`, `high`, `in_bulk`."""
        floored = (max(value, DURATION_MIN) for value in values)
        self._sums = array("d", itertools.accumulate(floored, initial=0.0))
        self.known = known
        self._factors = factors
        self._spreads = spreads
        self._bulk = bulk
        self.contending = contending
        """Tests that had better not run beside each other (`contention.py`)."""

    @classmethod
    def of(cls, values: Sequence[float]) -> "Estimates":
        """`values` themselves if they are estimates; else a copy of them, in time linear in their number."""
        return values if isinstance(values, cls) else cls(values)

    @classmethod
    def unknown(cls, tests: int) -> "Estimates":
        """The guess for tests of which nothing is known."""
        return cls(itertools.repeat(DURATION_DEFAULT, tests), known=False)

    @classmethod
    def checked(cls, values: Sequence[float] | None, tests: int) -> "Estimates":
        """`values` if there is one for each test; else the guess."""
        return cls.of(values) if values is not None and len(values) == tests else cls.unknown(tests)

    def factor(self, peer: PeerId) -> float:
        """How many times as long as on a common worker a test takes on this one; 1 where that is not known."""
        return self._factors.get(peer, 1.0)

    def high(self, index: int) -> float:
        """Seconds that nine of ten tests of which as much is expected stay under; what is expected, where not known."""
        return self[index] * self._spreads(self[index])

    def in_bulk(self) -> "Estimates":
        """The same for sums: what such tests take on average, where the estimates are medians. The average is more, as
        durations stray upwards further than down."""
        averages = (value * self._bulk(value) for value in self)
        return Estimates(averages, self.known, self._factors, contending=self.contending)

    def __len__(self) -> int:
        return len(self._sums) - 1

    @overload
    def __getitem__(self, index: int) -> float: ...
    @overload
    def __getitem__(self, index: slice) -> list[float]: ...
    def __getitem__(self, index: int | slice) -> float | list[float]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        place = range(len(self))[index]
        return self._sums[place + 1] - self._sums[place]

    def total(self, first: int, count: int) -> float:
        """Seconds that `count` tests from `first` take one after another."""
        return self._sums[first + count] - self._sums[first]

    def fitting(self, first: int, count: int, seconds: float) -> int:
        """How many of `count` tests from `first` take at most `seconds` together."""
        limit = self._sums[first] + seconds + DURATION_MIN / 2  # sums of floats are off by a little
        return bisect.bisect_right(self._sums, limit, first, first + count + 1) - 1 - first


def correction(observed: float, expected: float) -> float:
    """What a run's tests took over what they were expected to take."""
    if expected <= 0:
        return 1.0
    exact = min(max(observed / expected, 1 / SCALE_MAX), SCALE_MAX)
    return math.exp2(round(math.log2(exact) * SCALE_STEPS) / SCALE_STEPS)


def length_of(seconds: float) -> int:
    """Durations within a factor of two are of one length."""
    return math.frexp(seconds)[1]


def function_of(test: str) -> str:
    """A node ID without its parameters."""
    return test.partition("[")[0]


def module_of(test: str) -> str:
    """A node ID's file."""
    return test.partition("::")[0]

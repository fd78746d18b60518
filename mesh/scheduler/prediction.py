"""What tests will take, by what they took in the last runs of their project: a small model, robust, of quantiles.

The logarithm of what a test took is its own level, and how slow its worker was in that run, and noise. The second is
the same for all tests of a session (a run on a worker): the median of how far they are from their own means, so that a
busy hour or a slow host does not pass for slow tests (after Tukey's median polish, 1977). A test's level is the mean of
what is left of its last few observations, where newer ones weigh more, those of other bundles less, and none counts for
further from their median than tests of that length stray (Huber's estimator, 1964, one step of it). What was never seen
takes what its likes take: the same function with other parameters, its module, all.

How far tests of a length stray from what the others of their observations say gives the upper estimate, and what makes
an average of a median, for sums (Duan's smearing, 1983). A worker is slower or faster by what most of its sessions have
in common beside others of the same runs, once there are enough.
Rejected: means of seconds (one cold cache is remembered for ever), medians of so few (they take over the noise of one),
a regression on features of tests (their names tell little that their likes do not). `make bench-prediction` compares.
"""

import math
import statistics
from array import array
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

from mesh.scheduler.durations import DURATION_MIN, ByLength, Estimates, function_of, length_of, module_of
from protocols.ids import Cid, PeerId

OBSERVATIONS_MAX = 5
"""Of a test, the newest ones; the model goes by no others."""
AGE_WEIGHT = 0.9
"""An observation weighs so much less for each newer run with its test,"""
BUNDLE_WEIGHT = 0.9
"""and for each other bundle since."""
EVIDENCE_TESTS = 20
"""So many tests of a session bring what they say half to bear; one of fewer tells nothing of its worker."""
EVIDENCE_RUNS = 3
"""Less tell nothing of a worker."""
POLISHES = 6
"""Means of tests and medians of sessions in turn; the medians alone would stop where two halves disagree."""
FACTOR_MAX = 8.0
"""Of a worker, and one over it."""
HIGH = 0.9
"""The part of tests that take at most their upper estimate."""
STRAY_MAX = 1.5
"""Deviations from the median for which an observation counts at most."""
LENGTH_OBSERVATIONS_MIN = 64
"""That tell the noise of a length; fewer are joined by those of the lengths next to it."""
SAMPLE_TESTS_MAX = 16_384
"""That offsets and noise are taken from, spread evenly over all."""
STEP_TESTS = 512
"""After so many the caller has its turn."""

LOG_STRAY_MAX = math.log(16.0)
"""In an average an observation counts for so many times what was expected of it, at most."""
CHI_SQUARE_MEDIAN = 0.455
"""Of one degree of freedom: the median of squares over this is a variance that outliers don't move."""


@dataclass(frozen=True, slots=True)
class Record:
    """What the tests of one run took."""

    bundle: Cid
    tests: Sequence[str]
    seconds: Sequence[float]
    """Of each of them; 0: not known."""
    workers: Sequence[int]
    """The place in `peers` of who ran it."""
    peers: Sequence[PeerId]


class Model:
    """What was learnt. Immutable: a number for each test, and a place in a dictionary."""

    __slots__ = ("_bulk", "_factors", "_levels", "_likes", "_overall", "_rows", "_spreads")

    def __init__(
        self,
        rows: Mapping[str, int],
        levels: "array[float]",
        likes: Mapping[str, float],
        spreads: ByLength,
        bulk: ByLength,
        factors: Mapping[PeerId, float],
    ) -> None:
        """`levels`: logarithms of what is expected, by row; `likes`: the same of functions and modules; `spreads`: of
        upper estimates over what is expected, `bulk`: of averages; `factors`: of workers that are known to differ."""
        self._rows = rows
        self._levels = levels
        self._likes = likes
        self._spreads = spreads
        self._bulk = bulk
        self._factors = factors
        self._overall = _median(list(levels)) if levels else 0.0

    def __len__(self) -> int:
        return len(self._rows)

    def estimates(self, tests: Sequence[str], contending: Set[str] = frozenset()) -> Estimates:
        """`contending`: those of the tests of which that is known."""
        if not self._rows:
            return Estimates.unknown(len(tests))
        known = 0
        values = array("f")
        for test in tests:
            level = self._near(test)
            known += level is not None
            values.append(math.exp(self._far(test) if level is None else level))
        apart = (
            frozenset(place for place, test in enumerate(tests) if test in contending) if contending else frozenset()
        )
        return Estimates(values, 2 * known >= len(tests), self._factors, self._spreads, self._bulk, apart)

    def _near(self, test: str) -> float | None:
        row = self._rows.get(test)
        return self._likes.get(function_of(test)) if row is None else self._levels[row]

    def _far(self, test: str) -> float:
        return self._likes.get(module_of(test), self._overall)


class Learning:
    """Learns from `records` of one project's runs, the newest first, in the steps that it is iterated over; then there
    is the `model`."""

    model: Model

    def __init__(self, records: Sequence[Record]) -> None:
        self._records = records

    def __iter__(self) -> Iterator[None]:
        table = _Table()
        for record in self._records:
            yield from table.add(record)
        yield from table.polish()
        self.model = yield from table.model()


def learnt(records: Sequence[Record]) -> Model:
    """The same at once."""
    learning = Learning(records)
    for _ in learning:
        pass
    return learning.model


@dataclass(slots=True)
class _Session:
    """The tests of one run on one worker."""

    run: int
    peer: PeerId
    weight: float
    tests: int = 0
    offset: float = 0.0


class _Table:
    """The observations, a row of `OBSERVATIONS_MAX` for each test, the newest first, while a model is made of them."""

    def __init__(self) -> None:
        self._rows: dict[str, int] = {}
        self._counts = array("B")
        self._values = array("f")
        self._sessions_of = array("I")
        self._sessions: list[_Session] = []
        self._bundles: list[Cid] = []
        self._runs = 0
        self._deviations = ByLength(values=(math.inf,))
        """Of one observation."""

    def add(self, record: Record) -> Iterator[None]:
        if record.bundle not in self._bundles:
            self._bundles.append(record.bundle)
        weight = AGE_WEIGHT**self._runs * BUNDLE_WEIGHT ** self._bundles.index(record.bundle)
        first = len(self._sessions)
        self._sessions += [_Session(self._runs, peer, weight) for peer in record.peers]
        rows, counts, values, sessions_of = self._rows, self._counts, self._values, self._sessions_of
        for number, (test, seconds, worker) in enumerate(
            zip(record.tests, record.seconds, record.workers, strict=True)
        ):
            if not number % STEP_TESTS:
                yield
            if seconds <= 0:
                continue
            row = rows.get(test)
            if row is None:
                row = rows[test] = len(rows)
                counts.append(0)
                values.extend(_EMPTY)
                sessions_of.extend(_NONE)
            count = counts[row]
            if count == OBSERVATIONS_MAX:
                continue
            place = row * OBSERVATIONS_MAX + count
            counts[row] = count + 1
            values[place] = math.log(max(seconds, DURATION_MIN))
            sessions_of[place] = first + worker
            self._sessions[first + worker].tests += 1
        self._runs += 1

    def polish(self) -> Iterator[None]:
        """Find the sessions' offsets."""
        for _ in range(POLISHES):
            residuals: list[list[float]] = [[] for _ in self._sessions]
            for number, row in enumerate(self._sample()):
                if not number % STEP_TESTS:
                    yield
                found = self._row(row)
                if len(found) > 1:
                    middle = math.fsum(value for value, _ in found) / len(found)
                    for value, session in found:
                        residuals[session].append(value + self._sessions[session].offset - middle)
            for one, strays in zip(self._sessions, residuals, strict=True):
                if strays:
                    one.offset = statistics.median(strays) * len(strays) / (len(strays) + EVIDENCE_TESTS)

    def model(self) -> Generator[None, None, Model]:
        factors = self._factors()
        usual = self._usual(factors)
        yield from self._deviate()
        levels = array("f")
        for row in range(len(self._rows)):
            if not row % STEP_TESTS:
                yield
            levels.append(self._level(self._row(row)) + usual)
        slower = [one.offset - usual - math.log(factors.get(one.peer, 1.0)) for one in self._sessions]
        strays = yield from self._strays(usual, slower)
        spreads = by_length(strays, lambda found: math.exp(max(0.0, _quantile(found, HIGH))))
        bulk = by_length(strays, lambda found: statistics.fmean(math.exp(min(stray, LOG_STRAY_MAX)) for stray in found))
        likes = yield from self._likes(levels)
        return Model(self._rows, levels, likes, spreads, bulk, factors)

    def _sample(self) -> range:
        rows = len(self._rows)
        return range(0, rows, max(1, rows // SAMPLE_TESTS_MAX))

    def _row(self, row: int) -> list[tuple[float, int]]:
        """(logarithm without its session's offset, session) of each observation."""
        first = row * OBSERVATIONS_MAX
        last = first + self._counts[row]
        observed = zip(self._values[first:last], self._sessions_of[first:last], strict=True)
        return [(value - self._sessions[session].offset, session) for value, session in observed]

    def _level(self, found: Sequence[tuple[float, int]]) -> float:
        if len(found) == 1:
            return found[0][0]
        middle = _median([value for value, _ in found])
        limit = STRAY_MAX * self._deviations(math.exp(middle))
        weights = strays = 0.0
        for value, session in found:
            weight = self._sessions[session].weight
            stray = value - middle
            weights += weight
            strays += weight * (limit if stray > limit else -limit if stray < -limit else stray)
        return middle + strays / weights

    def _deviate(self) -> Iterator[None]:
        """From the two newest observations of each test."""
        squares: dict[int, list[float]] = {}
        for number, row in enumerate(self._sample()):
            if not number % STEP_TESTS:
                yield
            found = self._row(row)
            if len(found) > 1:
                (one, _), (other, _) = found[:2]
                squares.setdefault(length_of(math.exp((one + other) / 2)), []).append((one - other) ** 2 / 2)
        if squares:
            self._deviations = by_length(squares, lambda found: math.sqrt(statistics.median(found) / CHI_SQUARE_MEDIAN))

    def _by_run(self) -> list[list[_Session]]:
        """Sessions with tests enough to tell of their worker."""
        runs: dict[int, list[_Session]] = {}
        for one in self._sessions:
            if one.tests >= EVIDENCE_TESTS:
                runs.setdefault(one.run, []).append(one)
        return list(runs.values())

    def _factors(self) -> dict[PeerId, float]:
        """Of each worker that stood out in enough runs, by how much its offsets differ from those of others."""
        strays: dict[PeerId, list[float]] = {}
        for run in self._by_run():
            if len(run) > 1:
                middle = statistics.median(one.offset for one in run)
                for one in run:
                    strays.setdefault(one.peer, []).append(one.offset - middle)
        limit = math.log(FACTOR_MAX)
        sure = {peer: _nearest_quartile(found) for peer, found in strays.items() if len(found) >= EVIDENCE_RUNS}
        return {peer: math.exp(min(max(offset, -limit), limit)) for peer, offset in sure.items() if offset}

    def _usual(self, factors: Mapping[PeerId, float]) -> float:
        """The offset to expect of the next run, on a common worker."""
        middles = [
            (statistics.median(one.offset - math.log(factors.get(one.peer, 1.0)) for one in run), run[0].weight)
            for run in self._by_run()
        ]
        return weighted_median(middles) if middles else 0.0

    def _likes(self, levels: "array[float]") -> Generator[None, None, dict[str, float]]:
        """The medians of each function's parametrizations, and of each module."""
        found: dict[str, list[float]] = {}
        for test, row in self._rows.items():
            if not row % STEP_TESTS:
                yield
            if "[" in test:
                found.setdefault(function_of(test), []).append(levels[row])
            found.setdefault(module_of(test), []).append(levels[row])
        return {name: _median(values) for name, values in found.items()}

    def _strays(self, usual: float, slower: Sequence[float]) -> Generator[None, None, dict[int, list[float]]]:
        """By length: the logarithms of the observations over what the others of their tests would have them.
        `slower`: how much more of each session's offset there was than is foretold."""
        strays: dict[int, list[float]] = {}
        for number, row in enumerate(self._sample()):
            if not number % STEP_TESTS:
                yield
            found = self._row(row)
            if len(found) > 1:
                for place, (value, session) in enumerate(found):
                    rest = self._level([*found[:place], *found[place + 1 :]])
                    strays.setdefault(length_of(math.exp(rest + usual)), []).append(value - rest + slower[session])
        return strays


_EMPTY = array("f", bytes(4 * OBSERVATIONS_MAX))
_NONE = array("I", bytes(4 * OBSERVATIONS_MAX))


def by_length(found: Mapping[int, Sequence[float]], number: Callable[[list[float]], float]) -> ByLength:
    """The number of what was found for each length, and for as many next to it as it takes to have enough."""
    if not found:
        return ByLength()
    first, last = min(found), max(found)
    numbers = []
    for length in range(first, last + 1):
        joined = list(found.get(length, ()))
        distance = 0
        while len(joined) < LENGTH_OBSERVATIONS_MIN and distance < last - first:
            distance += 1
            joined += [*found.get(length - distance, ()), *found.get(length + distance, ())]
        numbers.append(number(joined))
    return ByLength(first, tuple(numbers))


def weighted_median(pairs: Sequence[tuple[float, float]]) -> float:
    """The value that half of the weight (not none) is at or under; between two, where that is exactly half."""
    ordered = sorted(pairs)
    half = sum(weight for _, weight in ordered) / 2
    below = 0.0
    for place, (value, weight) in enumerate(ordered):
        below += weight
        if below > half:
            return value
        if below == half:
            return (value + ordered[min(place + 1, len(ordered) - 1)][0]) / 2
    return ordered[-1][0]


def _quantile(values: list[float], part: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, math.ceil(part * len(ordered)) - 1)]


def _median(values: list[float]) -> float:
    """As in statistics, which takes thrice as long with so few."""
    values.sort()
    half = len(values) // 2
    return values[half] if len(values) % 2 else (values[half - 1] + values[half]) / 2


def _nearest_quartile(values: Sequence[float]) -> float:
    """What three of four are beyond, on the same side of 0; 0 if they are on both."""
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return low if low > 0 else min(high, 0.0)

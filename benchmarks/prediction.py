"""How well durations are predicted, on recorded histories (benchmarks/histories/): each run by the others.

    python -m benchmarks.prediction [FILE...]        make bench-prediction

Every run is left out in turn and predicted from the others, the nearest in time first, by four predictors: the last
value, a running mean, and the model (mesh/scheduler/prediction.py) without and with what it knows of the worker. Upper
estimates are the value itself, the mean and 1.28 deviations, and the model's. All of them fall back on the likes of a
test that they don't know. Errors are of tests; pinball losses are of seconds, over the seconds that the tests took; the
error in all is that of the tests of a run together: its mean over the runs, and that of its size.
"""

import argparse
import math
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.histories import FOLDER, Recorded, load
from mesh.scheduler.durations import function_of, module_of
from mesh.scheduler.prediction import HIGH, Record, learnt

DEVIATIONS = 1.2816
"""Above the mean of a normal distribution, which nine tenths of it stay under."""


@dataclass(slots=True)
class Score:
    """What one predictor came to, over all runs of a history."""

    errors: list[float] = field(default_factory=list)
    middle: float = 0.0
    high: float = 0.0
    under: int = 0
    seconds: float = 0.0
    totals: list[float] = field(default_factory=list)
    """Of each run's tests together: expected over actual, less 1."""

    def add(self, expected: float, high: float, took: float) -> None:
        self.errors.append(abs(expected - took) / took)
        self.middle += pinball(expected, took, 0.5)
        self.high += pinball(high, took, HIGH)
        self.under += took <= high
        self.seconds += took

    def cells(self) -> list[str]:
        tests = len(self.errors)
        return [
            f"{statistics.median(self.errors):.1%}",
            f"{self.middle / self.seconds:.2%}",
            f"{self.high / self.seconds:.2%}",
            f"{self.under / tests:.0%}",
            f"{statistics.fmean(self.totals):+.0%}, {statistics.fmean(map(abs, self.totals)):.0%}",
        ]


def pinball(expected: float, took: float, quantile: float) -> float:
    """Koenker and Bassett, 1978: its mean is least for the quantile itself."""
    return (took - expected) * quantile if took >= expected else (expected - took) * (1 - quantile)


def nearest(records: Sequence[Record], left_out: int) -> list[Record]:
    """All but one, the nearest to it in time first, of two the earlier one."""
    others = [place for place in range(len(records)) if place != left_out]
    return [records[place] for place in sorted(others, key=lambda place: (abs(place - left_out), place))]


def scores(recorded: Recorded) -> dict[str, Score]:
    found = {name: Score() for name in ("last value", "running mean", "model", "model, worker known")}
    for place, actual in enumerate(recorded.records):
        others = nearest(recorded.records, place)
        last = estimate(actual.tests, _seconds(others[0]))
        mean, high = _means(actual.tests, others)
        model = learnt(others).estimates(actual.tests)
        for test, (took, worker) in enumerate(zip(actual.seconds, actual.workers, strict=True)):
            factor = model.factor(actual.peers[worker])
            found["last value"].add(last[test], last[test], took)
            found["running mean"].add(mean[test], high[test], took)
            found["model"].add(model[test], model.high(test), took)
            found["model, worker known"].add(model[test] * factor, model.high(test) * factor, took)
        bulk = model.in_bulk()
        known = [bulk[test] * bulk.factor(actual.peers[worker]) for test, worker in enumerate(actual.workers)]
        for score, expected in zip(found.values(), (last, mean, bulk, known), strict=True):
            score.totals.append(math.fsum(expected) / math.fsum(actual.seconds) - 1)
    return found


def estimate(tests: Sequence[str], history: Mapping[str, float]) -> list[float]:
    """What the history (seconds by test) says of each test, or of the median of its likes."""
    likes: dict[str, list[float]] = {"": list(history.values())}
    for test, seconds in history.items():
        for name in {function_of(test), module_of(test)}:
            likes.setdefault(name, []).append(seconds)
    medians = {name: statistics.median(values) for name, values in likes.items()}
    found = []
    for test in tests:
        names = [name for name in (function_of(test), module_of(test), "") if name in medians]
        found.append(history.get(test, medians[names[0]]))
    return found


def _seconds(record: Record) -> dict[str, float]:
    return dict(zip(record.tests, record.seconds, strict=True))


def _means(tests: Sequence[str], records: Sequence[Record]) -> tuple[Sequence[float], Sequence[float]]:
    """Of each test, and with deviations on top."""
    values: dict[str, list[float]] = {}
    for record in records:
        for test, seconds in zip(record.tests, record.seconds, strict=True):
            values.setdefault(test, []).append(seconds)
    means = {test: statistics.fmean(found) for test, found in values.items()}
    highs = {test: means[test] + DEVIATIONS * statistics.pstdev(found) for test, found in values.items()}
    return estimate(tests, means), estimate(tests, highs)


def main() -> int:
    parser = argparse.ArgumentParser(description="How well durations are predicted, on recorded histories.")
    parser.add_argument("files", nargs="*", type=Path, help="default: all in benchmarks/histories")
    files = parser.parse_args().files or sorted(FOLDER.glob("*.json.gz"))
    print("| history | predictor | median error | pinball 0.5 | pinball 0.9 | under the upper | in all: mean, size |")
    print("|---|---|---|---|---|---|---|")
    for path in files:
        recorded = load(path)
        tests = max(len(record.tests) for record in recorded.records)
        what = f"{recorded.name}: {len(recorded.records)} runs, {tests:,} tests"
        for name, score in scores(recorded).items():
            print(f"| {what} | {name} | {' | '.join(score.cells())} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

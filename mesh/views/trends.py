"""Past runs, as pages and scripts see them: a project's trends, a test over time, what a host ran. Pure, on what a
voter's history has.

Medians and medians of absolute deviations throughout: one run on a loaded host moves no line. The standard library's
`statistics` computes them: a thousand tests in twenty runs take a few milliseconds, and numpy would cost a node that
draws nothing 25 MB.
"""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from mesh.state.parts import Part
from mesh.state.past import BAD, GOOD, KINDS, NEITHER, NOBODY, TIMED, Seen, Whole, flips_of
from protocols.history import PastRun
from protocols.ids import PeerId
from protocols.manifests import Outcome

TESTS_LISTED = 20
"""In each of the lists of tests that a project's trends have."""

RUNS_COMPARED = 20
"""The newest runs that these lists are made of."""

RECENT_RUNS = 3
"""Of them, those whose median is what a test takes now."""
BEFORE_RUNS_MIN = 3
"""And the least before them, to be compared with."""

SLOWER_RATIO = 1.5
SLOWER_SECONDS = 0.05
"""A test is listed as slower when it takes so many times as long, and so much longer."""

SEEN_MAX = 1_000
PARTS_MAX = 200
RUNS_MAX = 500


def projects_document(projects: Sequence[tuple[str, int, PastRun]]) -> list[dict[str, Any]]:
    return [
        {"project": project, "runs": count, "last_run": str(newest.run), "last_at": newest.at}
        for project, count, newest in projects
    ]


def run_entry(run: PastRun) -> dict[str, Any]:
    """One point of a project's trends."""
    good, bad = _sums(run)
    return {
        "run": str(run.run),
        "at": run.at,
        "state": run.state,
        "name": run.name,
        "tests": run.tests,
        "counts": counts_of(run),
        "pass_rate": round(good / (good + bad), 6) if good + bad else None,
        "wall_seconds": round(run.wall_seconds, 3),
        "test_seconds": round(run.test_seconds, 3),
        "queue_seconds": None if run.queue_seconds is None else round(run.queue_seconds, 3),
        "utilisation": None if run.utilisation is None else round(run.utilisation, 4),
        "reused": run.reused,
        "cached_share": round(run.reused / run.tests, 6) if run.tests else 0.0,
        "coverage": run.coverage,
        "report": run.report,
    }


def counts_of(run: PastRun) -> dict[str, int]:
    counted = {Outcome.of_code(code): count for code, count in enumerate(run.counts[: len(Outcome)])}
    return {outcome.value: counted.get(outcome, 0) for outcome in Outcome}


def _sums(run: PastRun) -> tuple[int, int]:
    """(good, bad) verdicts; skipped ones say nothing."""
    sums = [0, 0, 0]
    for code, count in enumerate(run.counts):
        sums[KINDS[code]] += count
    return sums[GOOD], sums[BAD]


def trends_document(
    project: str, runs: Sequence[PastRun], wholes: Sequence[Whole], names: Mapping[bytes, Sequence[str]]
) -> dict[str, Any]:
    """`runs` and `wholes`: the newest first; `names`: the tests of each digest."""
    past = Pasts(wholes, names)
    return {
        "project": project,
        "runs": [run_entry(run) for run in reversed(runs)],
        "compared": len(wholes),
        "slowest": past.slowest(),
        "flakiest": past.flakiest(),
        "slower": past.slower(),
    }


class Pasts:
    """Tests of several runs, each with its results in the order of time."""

    def __init__(self, wholes: Sequence[Whole], names: Mapping[bytes, Sequence[str]]) -> None:
        self.seconds: dict[str, list[float]] = {}
        """Of those that passed, the oldest first."""
        self.kinds: dict[str, list[int]] = {}
        """Good or bad, the oldest first."""
        self.retried: dict[str, int] = {}
        """Runs in which a test passed when it was tried again."""
        for whole in reversed(wholes):
            self._add(whole, names[whole.digest])

    def _add(self, whole: Whole, names: Sequence[str]) -> None:
        kinds = whole.results.outcomes.translate(KINDS)
        columns = (names, whole.results.outcomes, kinds, whole.results.durations, whole.results.workers)
        for name, outcome, kind, micros, worker in zip(*columns, strict=True):
            if kind != NEITHER:
                self.kinds.setdefault(name, []).append(kind)
            if outcome in TIMED and worker != NOBODY and micros:
                self.seconds.setdefault(name, []).append(micros / 1e6)
        for index in whole.run.flaky:
            if index < len(names):
                self.retried[names[index]] = self.retried.get(names[index], 0) + 1

    def slowest(self) -> list[dict[str, Any]]:
        medians = [(statistics.median(took), test, len(took)) for test, took in self.seconds.items()]
        medians.sort(key=lambda one: (-one[0], one[1]))
        return [
            {"test": test, "median": round(median, 6), "runs": runs} for median, test, runs in medians[:TESTS_LISTED]
        ]

    def flakiest(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for test, kinds in self.kinds.items():
            flips = flips_of(kinds) + self.retried.get(test, 0)
            if flips > 1:  # one is a test that was broken, or mended
                found.append({"test": test, "rate": round(flips / len(kinds), 4), "flips": flips, "runs": len(kinds)})
        found.sort(key=lambda one: (-one["rate"], one["test"]))
        return found[:TESTS_LISTED]

    def slower(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for test, took in self.seconds.items():
            if len(took) < RECENT_RUNS + BEFORE_RUNS_MIN:
                continue
            before, now = statistics.median(took[:-RECENT_RUNS]), statistics.median(took[-RECENT_RUNS:])
            if now >= SLOWER_RATIO * before and now - before >= SLOWER_SECONDS:
                ratio = now / before
                found.append({"test": test, "before": round(before, 6), "now": round(now, 6), "ratio": round(ratio, 3)})
        found.sort(key=lambda one: (-one["ratio"], one["test"]))
        return found[:TESTS_LISTED]


def seen_document(project: str, test: str, seen: Sequence[Seen]) -> dict[str, Any]:
    """A test over time; `seen`: the newest first."""
    kinds = [kind for one in reversed(seen) if (kind := KINDS[one.outcome]) != NEITHER]
    retried = sum(one.index in one.run.flaky for one in seen)
    flips = flips_of(kinds) + retried
    return {
        "project": project,
        "test": test,
        "results": [_result(one) for one in seen],
        "flaky": {"rate": round(flips / len(kinds), 4) if kinds else 0.0, "flips": flips},
        "bad": sum(kind == BAD for kind in kinds),
        "duration": duration_document([one.duration / 1e6 for one in seen if _timed(one)]),
        "hosts": _hosts(seen),
    }


def _timed(one: Seen) -> bool:
    return one.outcome in TIMED and bool(one.host[0]) and one.duration > 0


def _result(one: Seen) -> dict[str, Any]:
    worker, name = one.host
    return {
        "run": str(one.run.run),
        "index": one.index,
        "at": one.run.at,
        "outcome": Outcome.of_code(one.outcome).value,
        "duration": one.duration / 1e6,
        "worker": worker or None,
        "name": name,
        "attempts": one.attempt,
        "flaky": one.index in one.run.flaky,
        "record": None,
    }


def host_document(host: PeerId, parts: Sequence[Part]) -> dict[str, Any]:
    """What a host did of finished runs; `parts`: the newest first."""
    return {"host": host, "runs": [_part(part) for part in parts]}


def _part(part: Part) -> dict[str, Any]:
    run = part.run
    return {
        "run": str(run.run),
        "at": run.at,
        "project": run.project,
        "name": run.name,
        "state": run.state,
        "tests": part.tests,
        "bad": part.bad,
        "retried": part.retried,
        "seconds": None if part.microseconds is None else part.microseconds / 1e6,
    }


def duration_document(seconds: Sequence[float]) -> dict[str, Any]:
    """Median, median absolute deviation and 95th percentile; null where nothing passed."""
    if not seconds:
        return {"median": None, "mad": None, "p95": None}
    median = statistics.median(seconds)
    mad = statistics.median(abs(each - median) for each in seconds)
    p95 = statistics.quantiles(seconds, n=20, method="inclusive")[-1] if len(seconds) > 1 else seconds[0]
    return {"median": round(median, 6), "mad": round(mad, 6), "p95": round(p95, 6)}


def _hosts(seen: Sequence[Seen]) -> list[dict[str, Any]]:
    """Where it ran: the hosts where it was bad most often first."""
    by_host: dict[PeerId, list[Seen]] = {}
    names: dict[PeerId, str] = {}
    for one in seen:
        worker, name = one.host
        if worker:
            by_host.setdefault(worker, []).append(one)
            names.setdefault(worker, name)
    documents = [
        {
            "peer": worker,
            "name": names[worker],
            "runs": len(ran),
            "bad": sum(KINDS[one.outcome] == BAD for one in ran),
            "median": duration_document([one.duration / 1e6 for one in ran if _timed(one)])["median"],
        }
        for worker, ran in by_host.items()
    ]
    return sorted(documents, key=lambda one: (-one["bad"] / one["runs"], one["name"], one["peer"]))

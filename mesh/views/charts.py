"""The numbers behind the overview sheet: pure data from the overview document, ready to be drawn or asserted.

Order is part of the data (newest run first, busiest worker first, ties by ID), and every list has a bound: what is left
out is counted in `hidden`, so that a picture can say so. Durations are of tests that ran: a skip takes no time.
"""

import bisect
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from mesh.views import human
from protocols.manifests import Outcome

RUNS_MAX = 8
WORKERS_MAX, WORKERS_POSTER_MAX = 16, 48

OUTCOMES: tuple[str, ...] = tuple(outcome.value for outcome in Outcome)
PARTS = (*OUTCOMES, "leased", "pending")
"""What the tests of a run can be, in the order of a bar."""

DURATION_MIN, DURATION_MAX = 1e-4, 1e6
"""Seconds; what is beyond is counted in the outermost bins."""
BINS_MIN = 4

_BAD = (Outcome.FAILED.value, Outcome.ERROR.value)


@dataclass(frozen=True, slots=True)
class RunBar:
    """The tests of one run: `parts` are those of `PARTS` that occur, and add up to `total`."""

    run: str
    name: str
    state: str
    total: int
    done: int
    parts: tuple[tuple[str, int], ...]
    wall_seconds: float


@dataclass(frozen=True, slots=True)
class TaskStatus:
    runs: tuple[RunBar, ...]
    hidden: int


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """One worker: what it is doing, and what it did. `state` is "gone" for one that left its verdicts behind."""

    peer: str
    name: str
    state: str
    slots: int
    busy: int
    tests: int
    failures: int
    busy_seconds: float
    median: float | None


@dataclass(frozen=True, slots=True)
class Workers:
    rows: tuple[WorkerRow, ...]
    hidden: int


@dataclass(frozen=True, slots=True)
class Histogram:
    """`counts[i]` tests took from `edges[i]` to under `edges[i + 1]` seconds, `failures[i]` of them failed or erred."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    failures: tuple[int, ...]
    median: float
    p95: float


@dataclass(frozen=True, slots=True)
class Overall:
    """`passed_share` of the tests that ran; durations in seconds; None without any."""

    nodes: int
    alive: int
    slots: int
    busy: int
    runs: int
    active: int
    tests: int
    done: int
    passed: int
    bad: int
    passed_share: float | None
    median: float | None
    p95: float | None
    test_seconds: float


def task_status(document: Mapping[str, Any]) -> TaskStatus:
    """The newest runs, newest first."""
    runs = sorted((_run(raw) for raw in document.get("runs", ())), key=_age, reverse=True)
    return TaskStatus(tuple(runs[:RUNS_MAX]), max(0, len(runs) - RUNS_MAX))


def _run(raw: Mapping[str, Any]) -> RunBar:
    counts = {**(raw.get("counts") or {}), "leased": raw.get("leased"), "pending": raw.get("pending")}
    parts = tuple((part, int(counts[part])) for part in PARTS if counts.get(part))
    return RunBar(
        run=str(raw.get("run", "")),
        name=human.clean(str(raw.get("name") or "")),
        state=str(raw.get("state") or ""),
        total=sum(count for _, count in parts),
        done=sum(count for part, count in parts if part in OUTCOMES),
        parts=parts,
        wall_seconds=float(raw.get("wall_seconds") or 0.0),
    )


def _age(run: RunBar) -> tuple[int, str]:
    """A run's ID is a log index, so that the greater is the newer."""
    return (int(run.run) if run.run.isdecimal() else -1, run.run)


def workers(document: Mapping[str, Any], most: int = WORKERS_MAX) -> Workers:
    """Nodes that work or worked: those with the most tests first, then those with the most busy slots."""
    verdicts: dict[str, list[Mapping[str, Any]]] = {}
    for verdict in document.get("verdicts", ()):
        verdicts.setdefault(str(verdict.get("worker") or ""), []).append(verdict)
    verdicts.pop("", None)
    nodes = {str(raw["peer"]): raw for raw in document.get("nodes", ())}
    rows = [
        _worker(peer, nodes.get(peer), verdicts.get(peer, []))
        for peer in sorted({*nodes, *verdicts})
        if peer in verdicts or nodes[peer].get("slots")
    ]
    rows.sort(key=lambda row: (-row.tests, -row.busy, row.name, row.peer))
    return Workers(tuple(rows[:most]), max(0, len(rows) - most))


def _worker(peer: str, node: Mapping[str, Any] | None, verdicts: Sequence[Mapping[str, Any]]) -> WorkerRow:
    durations = _durations(verdicts)
    return WorkerRow(
        peer=peer,
        name=human.clean(str((node or {}).get("name") or human.peer(peer))),
        state=str(node.get("state") or "alive") if node else "gone",
        slots=int((node or {}).get("slots") or 0),
        busy=int((node or {}).get("busy") or 0),
        tests=len(verdicts),
        failures=sum(verdict.get("outcome") in _BAD for verdict in verdicts),
        busy_seconds=math.fsum(durations),
        median=median(durations) if durations else None,
    )


def _durations(verdicts: Sequence[Mapping[str, Any]]) -> list[float]:
    return [
        max(0.0, float(verdict.get("duration") or 0.0))
        for verdict in verdicts
        if verdict.get("outcome") != Outcome.SKIPPED.value
    ]


def histogram(document: Mapping[str, Any]) -> Histogram | None:
    """Durations in bins of 1, 2, 5, 10, …: logarithmic, because tests differ by orders of magnitude, at round bounds,
    because people read them. At least `BINS_MIN` of them; None without durations."""
    verdicts = [verdict for verdict in document.get("verdicts", ()) if verdict.get("outcome") != Outcome.SKIPPED.value]
    durations = _durations(verdicts)
    if not durations:
        return None
    steps = _steps()
    low, high = _bin(steps, min(durations)), _bin(steps, max(durations)) + 1
    while high - low < BINS_MIN:  # one more on either side by turns, so that what there is stands in the middle
        if (high - low) % 2 == 0 and low > 0:
            low -= 1
        elif high < len(steps) - 1:
            high += 1
        else:
            low -= 1
    edges = steps[low : high + 1]
    counts, failures = [0] * (high - low), [0] * (high - low)
    for verdict, duration in zip(verdicts, durations, strict=True):
        place = _bin(steps, duration) - low
        counts[place] += 1
        failures[place] += verdict.get("outcome") in _BAD
    return Histogram(tuple(edges), tuple(counts), tuple(failures), median(durations), quantile(durations, 0.95))


def _steps() -> list[float]:
    low, high = round(math.log10(DURATION_MIN)), round(math.log10(DURATION_MAX))
    return [float(f"{digit}e{power}") for power in range(low, high) for digit in (1, 2, 5)] + [DURATION_MAX]


def _bin(steps: Sequence[float], duration: float) -> int:
    return min(max(bisect.bisect_right(steps, duration) - 1, 0), len(steps) - 2)


def quantile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of all do not exceed."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def overall(document: Mapping[str, Any]) -> Overall:
    nodes = document.get("nodes", ())
    here = [node for node in nodes if node.get("state", "alive") != "dead"]
    runs = [_run(raw) for raw in document.get("runs", ())]
    counts = {part: sum(dict(run.parts).get(part, 0) for run in runs) for part in PARTS}
    bad = sum(counts[outcome] for outcome in _BAD)
    ran = sum(counts[outcome] for outcome in OUTCOMES) - counts[Outcome.SKIPPED.value]
    durations = _durations(document.get("verdicts", ()))
    return Overall(
        nodes=len(nodes),
        alive=sum(node.get("state", "alive") == "alive" for node in nodes),
        slots=sum(int(node.get("slots") or 0) for node in here),
        busy=sum(int(node.get("busy") or 0) for node in here),
        runs=len(runs),
        active=sum(any(part in ("leased", "pending") for part, _ in run.parts) for run in runs),
        tests=sum(run.total for run in runs),
        done=sum(run.done for run in runs),
        passed=counts[Outcome.PASSED.value],
        bad=bad,
        passed_share=(ran - bad) / ran if ran else None,
        median=median(durations) if durations else None,
        p95=quantile(durations, 0.95) if durations else None,
        test_seconds=math.fsum(durations),
    )

"""The numbers behind the Gantt of a run and the heat map over hosts: pure data, ready to be drawn or asserted.

Every list has a bound, and says what is left out. Durations are of tests that ran: a skip takes no time.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from mesh.views import human
from protocols.manifests import Outcome

LANES_MAX = 256
"""Slots in one Gantt; those that did most are shown."""
CRITICAL_NAMED_MAX = 8
HEAT_ROWS_MAX, HEAT_ROWS_POSTER_MAX = 32, 96
HEAT_HOSTS_MAX = 40
FINENESS = 3_000
"""Spans that are shorter than the run over this are drawn as one with their neighbours of the same outcome."""

_BAD = ("failed", "error")


@dataclass(frozen=True, slots=True)
class Bar:
    """Seconds after the run's beginning; `outcome`: the value of an `Outcome`."""

    start: float
    seconds: float
    outcome: str
    critical: bool = False


@dataclass(frozen=True, slots=True)
class Lane:
    """One slot. `name`: of its worker, at the first of its slots alone."""

    name: str
    worker: str
    bars: tuple[Bar, ...]
    gaps: tuple[tuple[float, float], ...]
    """(start, seconds) of what stood idle for long."""


@dataclass(frozen=True, slots=True)
class Step:
    """One test of the critical path."""

    index: int
    worker: str
    """By name."""
    start: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Gantt:
    run: str
    lanes: tuple[Lane, ...]
    hidden: int
    """Slots that are left out."""
    first: float
    seconds: float
    """When the first test began, and the last one ended, after the run's beginning."""
    tests: int
    busy: float
    """Share of the slots' time, from the first start to the last end, in which tests ran."""
    critical: tuple[Step, ...]
    outcomes: tuple[str, ...]
    """Those that occur."""
    cut: bool


def gantt(document: Mapping[str, Any]) -> Gantt:
    """From the document of a run's timeline."""
    slots = list(document.get("slots") or ())
    hidden = max(0, len(slots) - LANES_MAX)
    if hidden:
        kept = {
            id(slot) for slot in sorted(slots, key=lambda slot: -sum(span[2] for span in slot["spans"]))[:LANES_MAX]
        }
        slots = [slot for slot in slots if id(slot) in kept]
    critical = list(document.get("critical") or ())
    ends = [span[1] + span[2] for slot in slots for span in slot["spans"]]
    starts = [span[1] for slot in slots for span in slot["spans"]]
    first, last = min(starts, default=0.0), max(ends, default=0.0)
    gaps: defaultdict[tuple[str, int], list[tuple[float, float]]] = defaultdict(list)
    for gap in document.get("idle") or ():
        gaps[gap["worker"], gap["slot"]].append((float(gap["start"]), float(gap["seconds"])))
    lanes, shown = [], ""
    wanted = set(critical)
    for slot in slots:
        name = _name(slot)
        bars = _bars(slot["spans"], wanted, (last - first) / FINENESS)
        label = "" if slot["worker"] == shown else name
        lanes.append(Lane(label, name, tuple(bars), tuple(gaps[slot["worker"], slot["slot"]])))
        shown = slot["worker"]
    busy = sum(span[2] for slot in slots for span in slot["spans"])
    whole = (last - first) * len(slots)
    found = {span[3] for slot in slots for span in slot["spans"]}
    return Gantt(
        str(document.get("run") or ""),
        tuple(lanes),
        hidden,
        first,
        last,
        int(document.get("tests") or 0),
        busy / whole if whole else 0.0,
        tuple(_steps(slots, critical)),
        tuple(one.value for one in Outcome if one.code in found),
        bool(document.get("cut")),
    )


def _bars(spans: Sequence[Sequence[Any]], critical: set[int], least: float) -> Iterable[Bar]:
    """The spans of a slot, those too short to be seen apart drawn together."""
    joined: Bar | None = None
    for index, start, seconds, code, *_ in spans:
        bar = Bar(float(start), float(seconds), Outcome.of_code(code).value, index in critical)
        if joined is not None:
            alike = (joined.outcome, joined.critical) == (bar.outcome, bar.critical)
            if alike and bar.seconds < least and bar.start - joined.start - joined.seconds < least:
                joined = Bar(joined.start, bar.start + bar.seconds - joined.start, bar.outcome, bar.critical)
                continue
            yield joined
        joined = bar
    if joined is not None:
        yield joined


def _name(slot: Mapping[str, Any]) -> str:
    """Of its worker."""
    return human.clean(str(slot.get("name") or human.peer(str(slot["worker"]))))


def _steps(slots: Sequence[Mapping[str, Any]], critical: Sequence[int]) -> Iterable[Step]:
    where: dict[int, Step] = {}
    wanted = set(critical)
    for slot in slots:
        name = _name(slot)
        for index, start, seconds, *_ in slot["spans"]:
            if index in wanted:
                where[index] = Step(int(index), name, float(start), float(seconds))
    return (where[index] for index in critical if index in where)


@dataclass(frozen=True, slots=True)
class Cell:
    """What the tests of a row took on a host: their median, in seconds; how many ran there, how many went wrong."""

    median: float
    tests: int
    bad: int


@dataclass(frozen=True, slots=True)
class Heat:
    """`rows`: names, those that took most time first; `cells[row][host]`, None where nothing ran."""

    what: str
    """What a row is: "module" or "test"."""
    rows: tuple[str, ...]
    hosts: tuple[str, ...]
    cells: tuple[tuple[Cell | None, ...], ...]
    hidden_rows: int
    hidden_hosts: int
    tests: int
    """Verdicts that it was made of."""

    @property
    def extent(self) -> tuple[float, float]:
        """The least and the greatest median."""
        values = [cell.median for row in self.cells for cell in row if cell is not None]
        return min(values), max(values)


def heat(verdicts: Iterable[Mapping[str, Any]], names: Mapping[str, str], rows_max: int = HEAT_ROWS_MAX) -> Heat | None:
    """From verdicts ("test", "outcome", "duration", "worker"); None if none of them ran on a host. By module where
    there are several, else by test."""
    ran = [
        (str(one["test"]), str(one["worker"]), float(one["duration"]), one["outcome"] in _BAD)
        for one in verdicts
        if one.get("worker") and one.get("duration") is not None and one.get("outcome") != "skipped"
    ]
    if not ran:
        return None
    modules = {test.partition("::")[0] for test, _, _, _ in ran}
    by_module = len(modules) > 1
    found: defaultdict[tuple[str, str], list[tuple[float, bool]]] = defaultdict(list)
    row_seconds: defaultdict[str, float] = defaultdict(float)
    host_tests: defaultdict[str, int] = defaultdict(int)
    for test, worker, seconds, bad in ran:
        row = test.partition("::")[0] if by_module else test.partition("::")[2] or test
        found[row, worker].append((seconds, bad))
        row_seconds[row] += seconds
        host_tests[worker] += 1
    rows = sorted(row_seconds, key=lambda row: (-row_seconds[row], row))
    hosts = sorted(host_tests, key=lambda host: (-host_tests[host], host))
    shown_rows = rows[:rows_max]
    shown_hosts = sorted(hosts[:HEAT_HOSTS_MAX], key=lambda host: (names.get(host, host), host))
    cells = tuple(tuple(_cell(found.get((row, host))) for host in shown_hosts) for row in shown_rows)
    return Heat(
        "module" if by_module else "test",
        tuple(human.clean(row) for row in shown_rows),
        tuple(human.clean(names.get(host) or human.peer(host)) for host in shown_hosts),
        cells,
        len(rows) - len(shown_rows),
        len(hosts) - len(shown_hosts),
        len(ran),
    )


def _cell(found: Sequence[tuple[float, bool]] | None) -> Cell | None:
    if not found:
        return None
    return Cell(median(seconds for seconds, _ in found), len(found), sum(bad for _, bad in found))

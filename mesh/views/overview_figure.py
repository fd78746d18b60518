"""The overview sheet: overall numbers, the tests of each run, how long tests take, and what each worker does and did.

One sheet, as high as its rows need; lengths in inches. A panel without data says so in its place, so that a young
mesh's sheet looks like itself and not like a failure. The workers' four columns share their rows: a row is one worker.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mesh.views import human
from mesh.views.charts import (
    PARTS,
    WORKERS_MAX,
    Histogram,
    Overall,
    RunBar,
    TaskStatus,
    WorkerRow,
    Workers,
    histogram,
    overall,
    task_status,
    workers,
)
from mesh.views.drawing import FAINT, INK, RULE, SOFT, shown, text_width

WIDTH, MARGIN = 13.0, 0.5
INNER = WIDTH - 2 * MARGIN
HEAD, TILES, CHARTS, FOOT = 0.95, 0.95, 3.15, 0.6
TITLE = 0.5
"""Height of a panel's title, above its axes."""
ROW = 0.27
ROWS_MIN = 3
NAMES = 1.65
"""Room for the names of runs and workers."""
LEFT = 6.1
"""Width of the runs' panel."""
STATUS = 4.2
"""Width of the worker status."""
COMPARISON = INNER - STATUS - 0.55
OUTCOME_ROW_MIN = 0.19

BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#C9CDD2"

PART_COLOURS: Mapping[str, str] = {
    "passed": "#009E73",
    "failed": "#D55E00",
    "error": "#882255",
    "skipped": "#E0C040",
    "xfailed": "#56B4E9",
    "xpassed": "#0072B2",
    "leased": "#A5AFBA",
    "pending": "#E4E7EB",
}
STATE_COLOURS: Mapping[str, str] = {"alive": BLUE, "draining": "#E69F00", "suspect": "#CC79A7"}


def draw(document: Mapping[str, Any], workers_max: int = WORKERS_MAX) -> Figure:
    """The figure; to be made and saved within `render.drawing()`."""
    crew = workers(document, workers_max)
    rows = max(ROWS_MIN, len(crew.rows))
    height = HEAD + TILES + CHARTS + TITLE + ROW * rows + FOOT
    sheet = Sheet(Figure(figsize=(WIDTH, height), facecolor="white"), height)
    _head(sheet, document)
    _tiles(sheet, overall(document))
    top = HEAD + TILES
    _tasks(sheet, task_status(document), top)
    _durations(sheet, histogram(document), top)
    _workers(sheet, crew, top + CHARTS, rows)
    return sheet.figure


class Sheet:
    """A figure measured in inches from its top left corner."""

    def __init__(self, figure: Figure, height: float) -> None:
        self.figure = figure
        self.height = height

    def text(self, x: float, y: float, text: str, **style: Any) -> None:
        self.figure.text(x / WIDTH, 1 - y / self.height, shown(text), **{"color": INK, "va": "baseline", **style})

    def axes(self, x: float, y: float, width: float, height: float) -> Axes:
        axes = self.figure.add_axes(
            (x / WIDTH, 1 - (y + height) / self.height, width / WIDTH, height / self.height), frameon=False
        )
        axes.tick_params(length=0, labelsize=8, labelcolor=SOFT, pad=4)
        axes.set_axisbelow(True)
        return axes

    def rule(self, y: float) -> None:
        self.figure.add_artist(
            Rectangle((MARGIN / WIDTH, 1 - y / self.height), INNER / WIDTH, 0.008 / self.height, color=RULE, lw=0)
        )

    def title(self, x: float, y: float, text: str, note: str = "", width: float = 0.0) -> None:
        self.text(x, y, text, fontsize=10.5, weight="bold")
        if note:
            self.text(x + width, y, note, fontsize=8, color=SOFT, ha="right")


def _head(sheet: Sheet, document: Mapping[str, Any]) -> None:
    mesh = human.clean(str(document.get("mesh") or ""))
    sheet.text(MARGIN, 0.55, f"Mesh {human.mesh(mesh)}" if mesh else "Mesh", fontsize=16, weight="bold")
    names = {str(node["peer"]): str(node.get("name") or "") for node in document.get("nodes", ())}
    coordinator = str(document.get("coordinator") or "")
    parts = []
    if coordinator:
        name = names.get(coordinator) or human.peer(coordinator)
        parts.append(f"coordinator {human.short(name, 32)}, term {document.get('term', 0)}")
    else:
        parts.append("no coordinator")
    if document.get("generated"):
        parts.append(human.moment(float(document["generated"])))
    sheet.text(WIDTH - MARGIN, 0.55, " · ".join(parts), fontsize=9, color=SOFT, ha="right")
    sheet.rule(0.75)


def _tiles(sheet: Sheet, numbers: Overall) -> None:
    tiles = (
        ("tests done", f"{human.number(numbers.done)} / {human.number(numbers.tests)}", INK),
        ("success rate of tests run", _percent(numbers.passed_share), PART_COLOURS["passed"]),
        ("failed or error", human.number(numbers.bad), PART_COLOURS["failed"] if numbers.bad else INK),
        ("runs active", f"{numbers.active} / {numbers.runs}", INK),
        ("nodes alive", f"{numbers.alive} / {numbers.nodes}", INK),
        ("slots busy", f"{human.number(numbers.busy)} / {human.number(numbers.slots)}", INK),
        ("time in tests", human.duration(numbers.test_seconds) if numbers.median is not None else "–", INK),
    )
    shares = (1.4, 1.15, 1.0, 0.9, 0.9, 1.05, 1.1)
    rooms = [INNER * share / sum(shares) for share in shares]
    size = min(
        17.0,
        *(17.0 * (room - 0.25) / text_width(tile[1], 17.0, "bold") for tile, room in zip(tiles, rooms, strict=True)),
    )
    x = MARGIN
    for (caption, value, colour), room in zip(tiles, rooms, strict=True):
        sheet.text(x, HEAD + 0.3, value, fontsize=size, weight="bold", color=INK if value == "–" else colour)
        sheet.text(x, HEAD + 0.52, caption, fontsize=8, color=SOFT)
        x += room


def _percent(share: float | None) -> str:
    """Never "100 %" unless it is all, nor "0 %" unless it is none."""
    if share is None:
        return "–"
    if share in (0.0, 1.0):
        return f"{share:.0%}".replace("%", " %")
    return f"{min(max(share * 100, 0.1), 99.9):.1f} %"


def _empty(axes: Axes, text: str) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.add_patch(Rectangle((0, 0), 1, 1, transform=axes.transAxes, facecolor="#F7F8FA", edgecolor="none"))
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", fontsize=9, color=FAINT)


def _tasks(sheet: Sheet, status: TaskStatus, top: float) -> None:
    note = f"and {human.plural(status.hidden, 'older run')}" if status.hidden else ""
    sheet.title(MARGIN, top + 0.2, "Tests by run", note, LEFT)
    body = CHARTS - TITLE - 0.4
    if not status.runs:
        _empty(sheet.axes(MARGIN, top + TITLE - 0.15, LEFT, CHARTS - TITLE - 0.3), "no runs yet")
        return
    room = 1.75
    row_height = min(0.4, body / len(status.runs))
    height = row_height * len(status.runs)
    axes = _column(sheet, MARGIN + NAMES, top + TITLE - 0.12, LEFT - NAMES - room, height, len(status.runs))
    _names(axes, [f"{bar.name} #{bar.run}" if bar.name else f"#{bar.run}" for bar in status.runs])
    for place, bar in enumerate(status.runs):
        _run(axes, place, bar, room)
    newest = status.runs[0]
    rest = body - height - 0.3
    if newest.parts and rest / len(newest.parts) >= OUTCOME_ROW_MIN:
        _outcomes(sheet, newest, top + TITLE + height + 0.18, rest)
    found = {part for bar in status.runs for part, _ in bar.parts}
    key(sheet, MARGIN, top + CHARTS - 0.26, [(part, PART_COLOURS[part]) for part in PARTS if part in found])


def _run(axes: Axes, place: int, bar: RunBar, room: float) -> None:
    done = 0
    for part, count in bar.parts:
        axes.barh(place, count / bar.total, left=done / bar.total, height=0.62, color=PART_COLOURS[part], linewidth=0)
        done += count
    if not bar.parts:
        axes.barh(place, 1, height=0.62, color=PART_COLOURS["pending"], linewidth=0)
    tests = f"{human.number(bar.done)} / {human.number(bar.total)}" if bar.total else "no tests yet"
    words = [tests, human.short(bar.state, 12), human.duration(bar.wall_seconds) if bar.wall_seconds else ""]
    text = shown(" · ".join(word for word in words if word))
    size = min(8.0, 8.0 * (room - 0.1) / text_width(text, 8.0))
    axes.text(1.02, place, text, va="center", fontsize=size, color=SOFT)


def _outcomes(sheet: Sheet, bar: RunBar, y: float, height: float) -> None:
    """The newest run in numbers, where there are so few runs that the panel has room for it."""
    rows = len(bar.parts)
    height = min(height, 0.3 * rows)
    axes = _column(sheet, MARGIN + NAMES, y, LEFT - NAMES - 1.75, height, rows)
    _names(axes, [part for part, _ in bar.parts])
    largest = max(count for _, count in bar.parts)
    for place, (part, count) in enumerate(bar.parts):
        axes.barh(place, count / largest, height=0.62, color=PART_COLOURS[part], linewidth=0)
        axes.text(count / largest + 0.02, place, human.number(count), va="center", fontsize=8, color=SOFT)


def _column(sheet: Sheet, x: float, y: float, width: float, height: float, rows: int, caption: str = "") -> Axes:
    """Axes for `rows` horizontal bars of lengths up to 1, the first on top."""
    axes = sheet.axes(x, y, width, height)
    axes.set_xlim(0, 1)
    axes.set_ylim(rows - 0.5, -0.5)
    axes.set_xticks([])
    axes.set_yticks([])
    if caption:
        sheet.text(x, y - 0.1, caption, fontsize=8, color=SOFT)
    return axes


def _names(axes: Axes, names: Sequence[str]) -> None:
    """Left-aligned, `NAMES` inches left of the bars."""
    for place, name in enumerate(names):
        axes.annotate(
            fitted(shown(name)),
            xy=(0, place),
            xytext=(-NAMES * 72, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            color=INK,
            annotation_clip=False,
        )


def fitted(text: str, room: float = NAMES - 0.12, size: float = 8.0) -> str:
    """`text`, its middle left out where it is wider than `room`."""
    length = min(len(text), int(room / text_width("i", size)) + 4)  # hardly anything is narrower
    while text_width(human.short(text, length), size) > room and length > 4:
        length -= 1
    return human.short(text, length)


def key(sheet: Sheet, x: float, y: float, entries: Sequence[tuple[str, str]]) -> None:
    """Labels with their colours, from left to right."""
    for label, colour in entries:
        sheet.figure.add_artist(
            Rectangle((x / WIDTH, 1 - y / sheet.height), 0.11 / WIDTH, 0.11 / sheet.height, color=colour, lw=0)
        )
        sheet.text(x + 0.17, y, label, fontsize=8, color=SOFT)
        x += 0.17 + text_width(label, 8.0) + 0.2


def _durations(sheet: Sheet, data: Histogram | None, top: float) -> None:
    x, width = MARGIN + 7.1, INNER - 7.1
    if data is None:
        sheet.title(x - 0.4, top + 0.2, "How long tests take")
        _empty(sheet.axes(x - 0.4, top + TITLE - 0.15, width + 0.4, CHARTS - TITLE - 0.3), "no durations yet")
        return
    note = f"{human.plural(sum(data.counts), 'test')} · median {human.duration(data.median)}"
    note += f" · 95 % within {human.duration(data.p95)}"
    sheet.title(x - 0.4, top + 0.2, "How long tests take", note, width + 0.4)
    axes = sheet.axes(x, top + TITLE, width, CHARTS - TITLE - 0.65)
    bins = len(data.counts)
    good = [count - bad for count, bad in zip(data.counts, data.failures, strict=True)]
    middles = [place + 0.5 for place in range(bins)]
    axes.bar(middles, good, width=0.9, color=BLUE, linewidth=0)
    axes.bar(middles, data.failures, bottom=good, width=0.9, color=ORANGE, linewidth=0)
    axes.set_xlim(0, bins)
    highest = max(data.counts)
    axes.set_ylim(0, highest * 1.18)
    _count_ticks(axes.yaxis, highest)
    axes.grid(axis="y", color=RULE, linewidth=0.6)
    every = 1 if bins <= 10 else 3
    shift = next((place for place, edge in enumerate(data.edges) if f"{edge:e}".startswith("1.")), 0) % every
    marks = range(shift, bins + 1, every)
    axes.set_xticks(list(marks))
    axes.tick_params(axis="x", pad=7)
    axes.set_xticklabels([_edge(data.edges[mark]) for mark in marks])
    places = [_position(data.edges, value) for value in (data.median, data.p95)]
    apart = places[1] - places[0] > 0.14 * bins
    for place, name, side in zip(places, ("median ", " 95 %"), ("right", "left"), strict=True):
        axes.plot([place, place], [0, highest * 1.06], color=INK, linewidth=0.9, linestyle=(0, (3, 2)))
        axes.text(place, highest * 1.08, name, fontsize=7.5, color=INK, ha="center" if apart else side, va="bottom")
    entries = [("passed, xfailed or xpassed", BLUE)] + ([("failed or error", ORANGE)] if any(data.failures) else [])
    key(sheet, x, top + CHARTS - 0.26, entries)


def _edge(seconds: float) -> str:
    return f"{seconds:g} s" if seconds >= 1 else human.milliseconds(seconds)


def _count_ticks(axis: Axis, highest: int) -> None:
    """Three to six round counts, whole ones."""
    power = 10 ** max(0, int(math.log10(max(1, highest))) - 1)
    step = next(step * power for step in (1, 2, 5, 10, 20, 50) if highest <= 5 * step * power)
    ticks = range(0, highest + 1, step)
    axis.set_ticks(list(ticks), labels=[human.number(tick) for tick in ticks])


def _position(edges: Sequence[float], value: float) -> float:
    """Where `value` stands on the axis of the bins, which is logarithmic within each."""
    value = min(max(value, edges[0]), edges[-1])
    place = max(index for index in range(len(edges) - 1) if edges[index] <= value)
    return place + math.log(value / edges[place]) / math.log(edges[place + 1] / edges[place])


def _workers(sheet: Sheet, crew: Workers, top: float, rows: int) -> None:
    sheet.rule(top - 0.08)
    note = f"and {human.plural(crew.hidden, 'more worker')}" if crew.hidden else ""
    sheet.title(MARGIN, top + 0.25, "Worker status", note, STATUS)
    sheet.title(WIDTH - MARGIN - COMPARISON, top + 0.25, "Worker comparison")
    body = top + TITLE + 0.2
    if not crew.rows:
        _empty(sheet.axes(MARGIN, body - 0.25, STATUS, ROW * rows + 0.25), "no workers yet")
        _empty(sheet.axes(WIDTH - MARGIN - COMPARISON, body - 0.25, COMPARISON, ROW * rows + 0.25), "no verdicts yet")
        return
    height, count = ROW * len(crew.rows), len(crew.rows)
    axes = _column(sheet, MARGIN + NAMES, body, 1.35, height, count, "slots busy")
    _names(axes, human.distinct([row.name for row in crew.rows], 40))
    _slots(axes, crew.rows)
    if not any(row.tests for row in crew.rows):
        _empty(sheet.axes(WIDTH - MARGIN - COMPARISON, body - 0.25, COMPARISON, ROW * rows + 0.25), "no verdicts yet")
        return
    room = (COMPARISON) / 3
    columns: tuple[tuple[str, float, Callable[[WorkerRow], float], Callable[[WorkerRow], str]], ...] = (
        ("tests done", 1.2, lambda row: row.tests, _tests_words),
        ("busy time", 0.9, lambda row: row.busy_seconds, lambda row: human.duration(row.busy_seconds)),
        ("median duration", 0.9, lambda row: row.median or 0.0, _median_words),
    )
    for place, (caption, gap, measure, words) in enumerate(columns):
        x = WIDTH - MARGIN - COMPARISON + place * room
        axes = _column(sheet, x, body, room - gap, height, count, caption)
        _bars(axes, crew.rows, measure, words, failures=place == 0)


def _median_words(row: WorkerRow) -> str:
    return "all skipped" if row.median is None else human.duration(row.median)


def _tests_words(row: WorkerRow) -> str:
    return human.number(row.tests) + (f" ({human.number(row.failures)} bad)" if row.failures else "")


def _slots(axes: Axes, rows: Sequence[WorkerRow]) -> None:
    """Length is slots, against the largest worker's; a worker that is not alive says what it is."""
    largest = max(1, *(row.slots for row in rows))
    for place, row in enumerate(rows):
        lost = row.state in ("dead", "gone")
        axes.barh(place, row.slots / largest, height=0.62, color=RULE, linewidth=0)
        if not lost:
            busy = min(row.busy, row.slots) / largest
            axes.barh(place, busy, height=0.62, color=STATE_COLOURS.get(row.state, BLUE), linewidth=0)
        words = row.state if lost else f"{row.busy} / {row.slots}"
        if not lost and row.state != "alive":
            words += f" {row.state}"
        colour = FAINT if lost else SOFT
        axes.text(row.slots / largest + 0.05, place, shown(words), va="center", fontsize=8, color=colour)


def _bars(
    axes: Axes,
    rows: Sequence[WorkerRow],
    measure: Callable[[WorkerRow], float],
    words: Callable[[WorkerRow], str],
    failures: bool,
) -> None:
    largest = max(measure(row) for row in rows) or 1.0
    for place, row in enumerate(rows):
        if not row.tests:
            axes.text(0.0, place, "–", va="center", fontsize=8, color=FAINT)
            continue
        length = measure(row) / largest
        axes.barh(place, length, height=0.62, color=BLUE, linewidth=0)
        if failures:
            axes.barh(place, row.failures / largest, height=0.62, color=ORANGE, linewidth=0)
        axes.text(length + 0.03, place, words(row), va="center", fontsize=8, color=SOFT)

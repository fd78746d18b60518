"""The Gantt of a run: a row a slot, a bar a test, what stood idle, and the chain of tests that set the end.

As high as its slots need; lengths in inches. Colour is the outcome; the critical path has a dark edge, and is told in
words below, so that nothing hangs on colour alone.
"""

import math
from collections.abc import Mapping

from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mesh.views import human
from mesh.views.drawing import BOLD, FAINT, INK, RULE, SOFT, shown, text_width
from mesh.views.overview_figure import INNER, MARGIN, PART_COLOURS, WIDTH, Sheet, fitted, key
from mesh.views.pictures import CRITICAL_NAMED_MAX, Gantt, Step

HEAD, AXIS, KEY, LINE = 1.05, 0.35, 0.35, 0.24
LANES_HEIGHT_MAX = 22.0
AXIS_TWICE = 8.0
"""Height from which on the time stands above the slots, too."""
WAIT_SHARE_MAX = 0.3
LANE_MAX, LANE_MIN = 0.3, 0.07
NAMES_MAX = 2.2
IDLE = "#EEF0F3"

STEPS = (
    *(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30),
    *(60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 43_200),
)
"""Seconds between two marks of the axis."""


def draw(run: Gantt, title: str, tests: Mapping[int, str]) -> Figure:
    """The figure; to be made and saved within `render.drawing()`. `tests`: names of tests of the critical path."""
    lanes = max(1, len(run.lanes))
    lane = max(LANE_MIN, min(LANE_MAX, LANES_HEIGHT_MAX / lanes))
    steps = _longest(run)
    body = max(1.2, lane * lanes)
    below = LINE * (len(steps) + 1) + 0.35 if steps else 0.2
    height = HEAD + body + AXIS + KEY + below
    sheet = Sheet(Figure(figsize=(WIDTH, height), facecolor="white"), height)
    _head(sheet, run, title)
    size = 8.0 if lane >= 0.15 else 6.0
    names = min(NAMES_MAX, max((text_width(shown(one.name), size) for one in run.lanes), default=0.0) + 0.25)
    axes = sheet.axes(MARGIN + names, HEAD, INNER - names, body)
    if not run.lanes:
        axes.set_xticks([])
        axes.set_yticks([])
        axes.text(0.5, 0.5, "no test has run", transform=axes.transAxes, ha="center", va="center", color=FAINT)
        return sheet.figure
    _lanes(axes, run, lane)
    for place, one in enumerate(run.lanes):
        if one.name:
            _name(axes, one.name, place, names, size)
    _time(axes, run, body > AXIS_TWICE)
    entries = [(outcome, PART_COLOURS[outcome]) for outcome in run.outcomes]
    if any(one.gaps for one in run.lanes):
        entries.append(("idle", IDLE))
    key(sheet, MARGIN + names, HEAD + body + AXIS + 0.2, entries)
    if steps:
        _told(sheet, run, steps, tests, HEAD + body + AXIS + KEY + 0.25)
    return sheet.figure


def _head(sheet: Sheet, run: Gantt, title: str) -> None:
    room = INNER - 0.2
    sheet.text(MARGIN, 0.5, fitted(shown(title), BOLD * room, 16.0), fontsize=16, weight="bold")
    if not run.lanes:
        return
    workers = len({lane.worker for lane in run.lanes})
    parts = [
        human.plural(run.tests, "test"),
        f"{human.plural(len(run.lanes) + run.hidden, 'slot')} of {human.plural(workers, 'worker')}",
        f"{human.duration(max(0.0, run.seconds - run.first))} from the first start to the last end, slots busy "
        f"{100 * run.busy:.0f} % of it",
    ]
    if _start(run):
        parts.append(f"the first start {human.duration(run.first)} after the run's beginning")
    if run.hidden:
        parts.append(f"{human.plural(run.hidden, 'slot')} that did least not shown")
    if run.cut:
        parts.append("not all tests shown")
    sheet.text(MARGIN, 0.76, fitted(" · ".join(parts), room, 9.0), fontsize=9, color=SOFT)


def _lanes(axes: Axes, run: Gantt, lane: float) -> None:
    axes.set_ylim(len(run.lanes) - 0.5, -0.5)
    axes.set_yticks([])
    boxes: dict[str, list[Rectangle]] = {}
    critical: list[Rectangle] = []
    for place, one in enumerate(run.lanes):
        boxes.setdefault("idle", []).extend(
            Rectangle((start, place - 0.4), seconds, 0.8) for start, seconds in one.gaps
        )
        for bar in one.bars:
            box = Rectangle((bar.start, place - 0.4), bar.seconds, 0.8)
            boxes.setdefault(bar.outcome, []).append(box)
            if bar.critical:
                critical.append(Rectangle((bar.start, place - 0.4), bar.seconds, 0.8))
        if one.name and place:
            axes.axhline(place - 0.5, color=RULE, linewidth=0.8)
    for outcome, found in boxes.items():
        colour = IDLE if outcome == "idle" else PART_COLOURS[outcome]
        edge = "none" if outcome == "idle" or lane < 0.12 else "white"
        axes.add_collection(PatchCollection(found, facecolor=colour, edgecolor=edge, linewidth=0.25))
    if critical:
        axes.add_collection(
            PatchCollection(critical, facecolor="none", edgecolor=INK, linewidth=1.1 if lane > 0.12 else 0.7)
        )


def _name(axes: Axes, name: str, place: int, room: float, size: float) -> None:
    axes.annotate(
        fitted(shown(name), room - 0.15, size),
        xy=(0, place),
        xycoords=("axes fraction", "data"),
        xytext=(-room * 72, 0),
        textcoords="offset points",
        va="center",
        fontsize=size,
        color=INK,
        annotation_clip=False,
    )


def _time(axes: Axes, run: Gantt, twice: bool) -> None:
    last = run.seconds or 1.0
    start = _start(run)
    axes.set_xlim(start, last + (last - start) / 500)
    step = _step(last - start)
    ticks = [step * number for number in range(math.ceil(start / step), int(last / step) + 1)]
    axes.set_xticks(ticks, labels=[_clock(tick, step) for tick in ticks])
    axes.tick_params(axis="x", labeltop=twice)
    axes.grid(axis="x", color=RULE, linewidth=0.6)
    if not start and run.first > last / 200:
        axes.axvline(run.first, color=FAINT, linewidth=0.9, linestyle=(0, (3, 2)))


def _start(run: Gantt) -> float:
    """Where the axis begins: with the run, unless it waited for most of what would be shown."""
    return run.first - 0.02 * (run.seconds - run.first) if run.first > WAIT_SHARE_MAX * run.seconds else 0.0


def _step(last: float) -> float:
    """Between five and ten round steps."""
    return next((step for step in STEPS if last / step <= 10), 86_400.0)


def _clock(seconds: float, step: float) -> str:
    if step < 60:
        return f"{seconds:g} s"
    return f"{seconds / 60:g} min" if step < 3600 else f"{seconds / 3600:g} h"


def _longest(run: Gantt) -> list[Step]:
    """The steps of the critical path that took most of it, in their order."""
    most = sorted(run.critical, key=lambda step: -step.seconds)[:CRITICAL_NAMED_MAX]
    return sorted(most, key=lambda step: step.start)


def _told(sheet: Sheet, run: Gantt, steps: list[Step], tests: Mapping[int, str], top: float) -> None:
    whole = sum(step.seconds for step in run.critical)
    more = f", the longest {len(steps)} of them:" if len(run.critical) > len(steps) else ":"
    tests_told = human.plural(len(run.critical), "test")
    text = f"What set the end (dark edges): {tests_told} one after another, {human.duration(whole)} in all{more}"
    sheet.text(MARGIN, top, text, fontsize=9, weight="bold")
    seconds = [human.duration(step.seconds) for step in steps]
    room = max(text_width(one, 8.5) for one in seconds)
    for place, (step, took) in enumerate(zip(steps, seconds, strict=True), start=1):
        y = top + LINE * place
        sheet.text(MARGIN + room, y, took, fontsize=8.5, color=INK, ha="right")
        test = tests.get(step.index) or f"test {step.index + 1}"
        where = f"on {step.worker} at {human.duration(step.start)}"
        left = INNER - room - 0.3 - text_width(where, 8.5)
        name = fitted(shown(test), left, 8.5)
        sheet.text(MARGIN + room + 0.15, y, name, fontsize=8.5, color=INK)
        sheet.text(MARGIN + room + 0.25 + text_width(name, 8.5), y, shown(where), fontsize=8.5, color=SOFT)

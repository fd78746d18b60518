"""The heat map of durations: a row for each module (or test), a column for each host, a cell for what its tests took.

The colours are matplotlib's cividis, made to look alike to those who see colours differently, on a logarithmic scale;
each cell says its number, too, and how many tests went wrong there. Where there are so many hosts that this would be
too small to read (on a poster it is larger), a cross says that some did.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from mesh.views import human
from mesh.views.drawing import BOLD, FAINT, INK, SOFT, shown, text_width
from mesh.views.overview_figure import INNER, MARGIN, WIDTH, Sheet, fitted
from mesh.views.pictures import Cell, Heat

HEAD, FOOT = 1.05, 0.75
ROW = 0.26
COLUMN_MAX = 2.2
NAMES_MAX = 4.6
MAP = "cividis"
LEAST_SECONDS = 1e-4
WORDS = 7.5
LEGIBLE = 4.0
"""Points of the words in a cell, and the least that can be read."""
HOSTS_MAX = 1.8
"""Height of the hosts' names, where they stand upright."""
INK_LIGHT = 0.069
"""Relative luminance of `INK`, and 0.05."""


def draw(data: Heat | None, title: str, scale: float = 1.0) -> Figure:
    """The figure; to be made and saved within `render.drawing()`. `scale`: how much larger it will be shown."""
    if data is None:
        return _nothing(title)
    names = min(NAMES_MAX, max(text_width(shown(row), 8.0) for row in data.rows) + 0.2)
    column = min(COLUMN_MAX, (INNER - names) / len(data.hosts))
    hosts = [shown(host) for host in human.distinct(data.hosts, 40)]
    widest = max(text_width(host, 8.0) for host in hosts)
    upright = widest > column - 0.06
    top = HEAD + (min(HOSTS_MAX, widest) + 0.2 if upright else 0.35)
    bottom = top + ROW * len(data.rows)
    sheet = _sheet(title, bottom + FOOT)
    words = _told(data, column)
    crossed = words.size * scale < LEGIBLE
    note = _note(data, crossed)
    sheet.text(MARGIN, 0.76, fitted(note, INNER - 0.2, 9.0), fontsize=9, color=SOFT)
    axes = sheet.axes(MARGIN + names, top, column * len(data.hosts), ROW * len(data.rows))
    norm = _norm(data)
    _cells(axes, data, norm, _CROSSES if crossed else words)
    for place, row in enumerate(data.rows):
        y = top + ROW * (place + 0.5) + 0.04
        sheet.text(MARGIN, y, fitted(shown(row), names - 0.15, 8.0), fontsize=8)
    for place, host in enumerate(hosts):
        x = MARGIN + names + column * (place + 0.5)
        if upright:
            told = fitted(host, HOSTS_MAX, 8.0)
            sheet.text(x, top - 0.08, told, fontsize=min(8.0, 60 * column), ha="center", va="bottom", rotation=90)
        else:
            sheet.text(x, top - 0.1, host, fontsize=8, ha="center")
    _scale(sheet, norm, bottom + 0.3)
    return sheet.figure


def _sheet(title: str, height: float) -> Sheet:
    sheet = Sheet(Figure(figsize=(WIDTH, height), facecolor="white"), height)
    sheet.text(MARGIN, 0.5, fitted(shown(title), BOLD * INNER, 16.0), fontsize=16, weight="bold")
    return sheet


def _nothing(title: str) -> Figure:
    sheet = _sheet(title, HEAD + FOOT + 1.0)
    axes = sheet.axes(MARGIN, HEAD, INNER, 1.0)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.text(0.5, 0.5, "no test has run", transform=axes.transAxes, ha="center", va="center", color=FAINT)
    return sheet.figure


def _note(data: Heat, crossed: bool) -> str:
    parts = [
        "median duration of the tests of each module on each host" if data.what == "module" else
        "median duration of each test on each host",
        f"{human.plural(data.tests, 'verdict')}",
    ]  # fmt: skip
    if crossed and any(cell is not None and cell.bad for row in data.cells for cell in row):
        parts.append("×: some went wrong there")
    if data.hidden_rows:
        parts.append(f"{human.plural(data.hidden_rows, f'{data.what}')} that took less time not shown")
    if data.hidden_hosts:
        parts.append(f"{human.plural(data.hidden_hosts, 'host')} not shown")
    return " · ".join(parts)


def _norm(data: Heat) -> LogNorm:
    least, most = (max(LEAST_SECONDS, value) for value in data.extent)
    return LogNorm(least, most if most > 1.2 * least else 1.2 * least)


@dataclass(frozen=True, slots=True)
class _Words:
    """What stands in a cell: its size in points, and the texts."""

    size: float
    of: Callable[[Cell], str]


def _told(data: Heat, column: float) -> _Words:
    """On one line, or on two where that is larger."""
    cells = [cell for row in data.cells for cell in row if cell is not None]
    found = []
    for separator in ("  ", "\n"):
        lines = [line for cell in cells for line in _words(cell, separator).split("\n")]
        widest = max(text_width(line, WORDS, "bold") for line in lines)
        high = 1 + any("\n" in _words(cell, separator) for cell in cells)
        found.append(min(WORDS, WORDS * (column - 0.08) / widest, 60 * ROW / high))
    one, two = found
    return _Words(two, partial(_words, separator="\n")) if two > one else _Words(one, partial(_words, separator="  "))


_CROSSES = _Words(WORDS, lambda cell: "×" if cell.bad else "")


def _cells(axes: Axes, data: Heat, norm: LogNorm, words: _Words) -> None:
    axes.set_xlim(-0.5, len(data.hosts) - 0.5)
    axes.set_ylim(len(data.rows) - 0.5, -0.5)
    axes.set_xticks([])
    axes.set_yticks([])
    colours = colormaps[MAP]
    for place, row in enumerate(data.cells):
        for host, cell in enumerate(row):
            if cell is None:
                axes.add_artist(_box(host, place, "#F7F8FA"))
                continue
            shade: Any = colours(norm(max(LEAST_SECONDS, cell.median)))
            axes.add_artist(_box(host, place, shade))
            if not (told := words.of(cell)):
                continue
            ink, weight = _legible(shade), "bold" if cell.bad else "normal"
            style: dict[str, Any] = {"fontsize": words.size, "color": ink, "weight": weight, "linespacing": 1.05}
            axes.text(host, place, told, ha="center", va="center", **style)


def _box(host: int, place: int, shade: Any) -> Rectangle:
    return Rectangle((host - 0.48, place - 0.46), 0.96, 0.92, facecolor=shade, edgecolor="none")


def _legible(shade: Sequence[float]) -> str:
    """Dark or white, whichever has the greater contrast by WCAG's measure."""
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in shade[:3])
    light = 0.2126 * red + 0.7152 * green + 0.0722 * blue + 0.05
    return INK if light / INK_LIGHT > 1.05 / light else "white"


def _words(cell: Cell, separator: str) -> str:
    return human.duration(cell.median) + (f"{separator}{cell.bad} bad" if cell.bad else "")


def _scale(sheet: Sheet, norm: LogNorm, top: float) -> None:
    """From fast to slow, with round numbers."""
    width, height, steps = 3.0, 0.12, 60
    axes = sheet.axes(MARGIN, top, width, height)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.set_yticks([])
    colours = colormaps[MAP]
    for step in range(steps):  # each to the end, under the next ones: side by side they would show seams
        axes.add_patch(
            Rectangle((step / steps, 0), 1 - step / steps, 1, facecolor=colours((step + 0.5) / steps), edgecolor="none")
        )
    least, most = float(norm.vmin or LEAST_SECONDS), float(norm.vmax or 1.0)
    marks = [least, math.sqrt(least * most), most]
    axes.set_xticks([0, 0.5, 1], labels=[human.duration(mark) for mark in marks])
    first, _, last = axes.get_xticklabels()
    first.set_horizontalalignment("left")
    last.set_horizontalalignment("right")

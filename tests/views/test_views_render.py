"""The pictures as they are drawn: what they hold, that nothing overlaps, and how they reach their files."""

import math
import re
import threading
import warnings
from itertools import islice
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from mesh_documents import overview_document, topology_document

from mesh.views import overview_figure, topology_figure
from mesh.views.drawing import text_width
from mesh.views.render import draw_overview, draw_topology, drawing
from mesh.views.topology import topology
from protocols.errors import UsageError

PNG = b"\x89PNG\r\n\x1a\n"
LONG = "a-very-long-host-name-of-machine-{}.department.university.example.org"
ODD = "$\\alpha${}<&>\"'\n\x07 日本 %s {{}} ä"

NOTHING: dict[str, Any] = {"nodes": [], "links": [], "runs": [], "verdicts": []}


def texts(figure: Figure) -> list[tuple[Text, Bbox]]:
    """Every text that shows, with its box on the canvas, in pixels: all is laid out, and no pixel is painted."""
    canvas: Any = FigureCanvasAgg(figure)
    figure.draw_without_rendering()
    renderer = canvas.get_renderer()
    shown = [text for text in figure.findobj(Text) if text.get_text().strip() and text.get_visible()]
    return [(text, Text.get_window_extent(text, renderer)) for text in shown]


def misplaced(figure: Figure) -> list[tuple[str, ...]]:
    """Texts that reach out of the figure, and pairs of texts that share more than a hair's breadth."""
    width, height = figure.get_size_inches() * figure.dpi
    found = sorted((*map(float, box.extents), text.get_text()) for text, box in texts(figure))
    wrong: list[tuple[str, ...]] = [
        (text,) for x0, y0, x1, y1, text in found if x0 < 0 or y0 < 0 or x1 > width or y1 > height
    ]
    for place, (_, bottom, right, top, text) in enumerate(found):
        for x0, y0, x1, y1, other in islice(found, place + 1, None):
            if right - x0 <= 1:
                break  # as all that follow begin further right
            if min(right, x1) - x0 > 1 and min(top, y1) - max(bottom, y0) > 1:
                wrong.append((text, other))
    return wrong


@pytest.mark.parametrize(
    ("count", "name"),
    [
        *((count, "lab-{}") for count in (0, 1, 2, 3, 10, 15, 50)),
        (3, LONG),
        (14, LONG),
        (50, LONG),
        (3, ODD),
        (15, ODD),
    ],
)
def test_labels_of_the_topology_do_not_overlap(count: int, name: str) -> None:
    with drawing(), warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = topology_figure.draw(topology(topology_document(count, name, dense=count < 20)))
        assert misplaced(figure) == []


@pytest.mark.parametrize(
    ("count", "verdicts", "runs", "name"),
    [
        (0, 0, 1, "lab-{}"),
        (1, 0, 1, "lab-{}"),
        (1, 1, 1, "lab-{}"),
        (3, 20, 1, ODD),
        (12, 1_000, 3, "lab-{}"),
        (50, 2_000, 12, LONG),
    ],
)
def test_labels_of_the_overview_do_not_overlap(count: int, verdicts: int, runs: int, name: str) -> None:
    with drawing(), warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = overview_figure.draw(overview_document(count, verdicts, runs, name) if count else NOTHING)
        assert misplaced(figure) == []


def test_the_topology_tells_who_is_who(tmp_path: Path) -> None:
    document = topology_document(8)
    draw_topology(document, tmp_path / "mesh.svg")
    svg = (tmp_path / "mesh.svg").read_text()
    for text in ("Mesh k51qzi5uqu5d", "coordinator now", "voter", "learner", "worker", "dead", "suspect", "draining"):
        assert text in svg
    for node in document["nodes"]:
        assert f">{node['name']}<" in svg
        if node["slots"] and node["state"] != "dead":
            assert f">{node['busy']}/{node['slots']}<" in svg
    assert len(re.findall(r">[\d.]+ ms<", svg)) == len(document["links"]) == 21


def test_the_overview_tells_the_numbers(tmp_path: Path) -> None:
    document = overview_document(3, 200, 2)
    draw_overview(document, tmp_path / "sheet.svg")
    svg = (tmp_path / "sheet.svg").read_text()
    for text in ("200 / 235", "Tests by run", "How long tests take", "Worker status", "Worker comparison", "lab-1 #1"):
        assert text in svg
    assert "2026-05-17 06:40:00 UTC" in svg


@pytest.mark.parametrize("suffix", ["png", "svg", "dot", "graphml"])
def test_the_same_mesh_is_the_same_file(tmp_path: Path, suffix: str) -> None:
    document = topology_document(4)
    for name in "ab":
        draw_topology(document, tmp_path / f"{name}.{suffix}")
    first, second = ((tmp_path / f"{name}.{suffix}").read_bytes() for name in "ab")
    assert first == second
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"a.{suffix}", f"b.{suffix}"]


@pytest.mark.parametrize("suffix", ["png", "SVG"])
def test_the_same_overview_is_the_same_file(tmp_path: Path, suffix: str) -> None:
    for name in "ab":
        draw_overview(overview_document(1, 20), tmp_path / f"{name}.{suffix}")
    first, second = ((tmp_path / f"{name}.{suffix}").read_bytes() for name in "ab")
    assert first == second
    assert first.startswith(PNG if suffix == "png" else b"<?xml")


@pytest.mark.parametrize("draw", [draw_topology, draw_overview])
def test_bad_paths_are_named(tmp_path: Path, draw: Any) -> None:
    (tmp_path / "folder.png").mkdir()
    for path, sentence in (
        ("mesh.jpg", r"mesh\.jpg: a picture's name must end with \.png"),
        ("mesh", r"mesh: a picture's name must end with"),
        ("absent/mesh.png", r"there is no directory .*absent"),
        ("folder.png", r"folder\.png is a directory"),
    ):
        with pytest.raises(UsageError, match=sentence):
            draw(NOTHING, tmp_path / path)
    assert [path.name for path in tmp_path.iterdir()] == ["folder.png"]


def test_threads_draw_at_once_and_leave_matplotlib_as_it_was(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams)
    document = topology_document(3)
    threads = [threading.Thread(target=draw_topology, args=(document, tmp_path / f"{n}.png")) for n in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len({(tmp_path / f"{number}.png").read_bytes() for number in range(2)}) == 1
    assert dict(matplotlib.rcParams) == before


def test_text_is_measured_as_it_is_drawn() -> None:
    with drawing():
        figure = Figure(dpi=720)
        for size, weight, text in (
            (7.5, "normal", "12.5 ms"),
            (9.0, "bold", "lab-machine-12"),
            (17.0, "bold", "10 / 99"),
        ):
            drawn = figure.text(0, 0.5, text, fontsize=size, weight=weight)
            _, box = next(pair for pair in texts(figure) if pair[0] is drawn)
            assert math.isclose(box.width / 720, text_width(text, size, weight), rel_tol=0.08)

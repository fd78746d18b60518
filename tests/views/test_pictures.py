"""The Gantt and the heat map: their numbers, and that nothing in the pictures lies on or beside anything else."""

import re
from pathlib import Path
from typing import Any

import pytest
from matplotlib.text import Text
from test_views_render import misplaced

from mesh.views import gantt_figure, heat_figure
from mesh.views.pictures import HEAT_HOSTS_MAX, HEAT_ROWS_MAX, LANES_MAX, Bar, gantt, heat
from mesh.views.render import draw_gantt, draw_heat, drawing

PASSED, FAILED = 0, 1


def timeline(workers: int, slots: int, tests: int) -> dict[str, Any]:
    """Tests of one second in turn; the first slot has one more, which sets the end."""
    places = [(worker, slot) for worker in range(workers) for slot in range(slots)]
    spans: dict[tuple[int, int], list[list[Any]]] = {place: [] for place in places}
    for test in range(tests):
        place = places[test % len(places)]
        spans[place].append([test, 2.0 + len(spans[place]), 1.0, FAILED if test % 7 == 6 else PASSED, 1])
    return {
        "run": "12",
        "tests": tests,
        "slots": [
            {"worker": f"p{worker}", "name": f"a-host-with-a-name-{worker}", "slot": slot, "spans": spans[worker, slot]}
            for worker, slot in places
        ],
        "idle": [{"worker": "p0", "slot": 1, "start": 4.0, "seconds": 1.0}] if slots > 1 else [],
        "critical": [span[0] for span in spans[0, 0]],
        "cut": False,
    }


def test_the_numbers_of_a_gantt() -> None:
    run = gantt(timeline(2, 2, 9))
    assert [lane.name for lane in run.lanes] == ["a-host-with-a-name-0", "", "a-host-with-a-name-1", ""]
    assert run.lanes[0].bars == tuple(Bar(2.0 + n, 1.0, "passed", True) for n in range(3))
    assert run.lanes[1].gaps == ((4.0, 1.0),)
    assert [bar.outcome for bar in run.lanes[2].bars] == ["passed", "failed"]
    assert (run.first, run.seconds, run.outcomes) == (2.0, 5.0, ("passed", "failed"))
    assert run.busy == pytest.approx(9 / 12)
    assert [(step.index, step.worker) for step in run.critical] == [
        (0, run.lanes[0].name),
        (4, "a-host-with-a-name-0"),
        (8, "a-host-with-a-name-0"),
    ]


def test_what_cannot_be_seen_apart_is_one_bar() -> None:
    document = timeline(1, 1, 1)
    document["slots"][0]["spans"] += [[n, 3.0 + n / 1000, 0.001, PASSED, 1] for n in range(1, 101)]
    document["slots"][0]["spans"].append([101, 60.0, 1.0, FAILED, 1])
    bars = gantt(document).lanes[0].bars
    assert [(bar.start, bar.outcome) for bar in bars] == [(2.0, "passed"), (3.001, "passed"), (60.0, "failed")]
    assert bars[1].seconds == pytest.approx(0.1)


@pytest.mark.parametrize(("workers", "slots", "tests"), [(1, 1, 1), (3, 2, 60), (40, 8, 500), (0, 0, 0)])
def test_a_gantt_is_in_order(workers: int, slots: int, tests: int) -> None:
    run = gantt(timeline(workers, slots, tests) if workers else {"run": "12", "slots": [], "tests": 0})
    assert len(run.lanes) + run.hidden == workers * slots
    assert len(run.lanes) <= LANES_MAX
    names = {index: f"tests/optics/test_camera.py::TestBand::test_band[{'x' * 5 * index}]" for index in range(tests)}
    with drawing():
        assert misplaced(gantt_figure.draw(run, "Run 12 " + "optics " * 30, names)) == []


def verdicts(hosts: int, modules: int, each: int = 2) -> list[dict[str, Any]]:
    return [
        {"test": f"tests/test_{m:03}.py::test_{n}", "outcome": "failed" if (h, m) == (1, 0) else "passed",
         "duration": 0.001 * (m + 1) * (h + 1), "worker": f"p{h}"}
        for h in range(hosts) for m in range(modules) for n in range(each)
    ]  # fmt: skip


def test_the_numbers_of_a_heat_map() -> None:
    skipped = {"test": "x::y", "outcome": "skipped", "duration": 9.0, "worker": "p0"}
    made = heat([*verdicts(2, 3), skipped], {"p0": "one", "p1": "two"})
    assert made is not None
    assert (made.what, made.hosts, made.tests) == ("module", ("one", "two"), 12)
    assert made.rows == ("tests/test_002.py", "tests/test_001.py", "tests/test_000.py")
    cell = made.cells[2][1]
    assert cell is not None
    assert (cell.median, cell.tests, cell.bad) == (0.002, 2, 2)
    assert made.extent == (0.001, 0.006)
    assert heat([skipped], {}) is None


def test_a_suite_of_one_module_is_told_by_test() -> None:
    made = heat(verdicts(1, 1, each=3), {})
    assert made is not None
    assert (made.what, made.rows) == ("test", ("test_0", "test_1", "test_2"))


@pytest.mark.parametrize(
    ("hosts", "modules", "scale"), [(1, 1, 1), (3, 5, 1), (8, 16, 1), (60, 40, 1), (60, 16, 1), (60, 16, 3), (0, 0, 1)]
)
def test_a_heat_map_is_in_order(hosts: int, modules: int, scale: int) -> None:
    made = heat(verdicts(hosts, modules), {f"p{h}": f"rack-{h}.lab.example" for h in range(hosts)})
    if made is not None:
        assert (len(made.rows), len(made.hosts)) == (
            min(modules, HEAT_ROWS_MAX) or 2,
            min(hosts, HEAT_HOSTS_MAX),
        ) or modules == 1
    with drawing():
        figure = heat_figure.draw(made, "How long tests take on each host", scale)
        assert misplaced(figure) == []
        told = "\n".join(text.get_text() for text in figure.findobj(Text))
    bad = made is not None and any(cell is not None and cell.bad for row in made.cells for cell in row)
    legible = hosts < 60 or scale > 1
    assert ("2 bad" in told, "×" in told) == (bad and legible, bad and not legible)


def test_a_poster_is_the_same_and_larger(tmp_path: Path) -> None:
    width: dict[str, tuple[int, float]] = {}
    for size in ("laptop", "poster"):
        draw_heat(verdicts(2, 2), {}, "Run 12", tmp_path / f"{size}.png", size)
        draw_gantt(timeline(2, 1, 4), "Run 12", {}, tmp_path / f"{size}.svg", size)
        svg = (tmp_path / f"{size}.svg").read_text()
        found = re.search(r'\bwidth="([0-9.]+)pt"', svg)
        assert found is not None
        width[size] = int.from_bytes((tmp_path / f"{size}.png").read_bytes()[16:20]), float(found[1])
        assert 'viewBox="0 0 936 ' in svg
    assert width == {"laptop": (2080, 936.0), "poster": (6760, 3042.0)}

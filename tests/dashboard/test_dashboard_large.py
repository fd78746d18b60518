"""The dashboard of a mesh that no test can start: 200 nodes, a run of 10,000 tests, GPUs; and of one without a quorum.

What is on the page is what costs: it stays small however much there is. How long things take is not asked here.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mesh.views.tests_table import Wanted
from protocols.ids import RunId
from tests.api.fake_backend import FakeBackend, gpu_node, node
from tests.api.fake_views import PEER, FakeDetails
from tests.cli.served_node import Node
from tests.dashboard.page import AXE, DESKTOP, MISSING, PHONE, Page

NODES, TESTS, SLOTS = 200, 10_000, 400
ELEMENTS_MAX = 6_000

COUNTS = {"passed": 9_700, "failed": 200, "error": 0, "skipped": 100, "xfailed": 0, "xpassed": 0}
RUN = {
    "run": "17", "state": "failed", "name": "suite", "project": "suite", "submitter": PEER, "priority": 50,
    "pending": 0, "leased": 0, "done": TESTS, "tests": TESTS, "counts": COUNTS, "submitted_at": 1.8e9,
    "wall_seconds": 60.0, "exit_code": 1, "report": None, "manifest": None, "reason": "", "queue": None,
    "bundle": None, "eta_seconds": None,
}  # fmt: skip


def peers() -> list[str]:
    return [str(PEER), *(f"12D3KooWNode{number:04}" for number in range(1, NODES))]


class LargeDetails(FakeDetails):
    async def tests(self, run: RunId, wanted: Wanted) -> dict[str, Any]:
        asked = range(wanted.offset, min(wanted.offset + wanted.limit, TESTS))
        rows = [
            {
                "index": index, "test": f"tests/test_m.py::test_{index}", "state": "done", "outcome": "failed",
                "duration": 0.01, "worker": PEER, "name": "n0", "attempt": 1, "expected": None, "chunk": None,
            }
            for index in asked
        ]  # fmt: skip
        return self._told((run, wanted), run=str(run), total=TESTS, matching=TESTS, counts=COUNTS, tests=rows)

    async def timeline(self, run: RunId) -> dict[str, Any]:
        every = TESTS // SLOTS
        slots = [
            {
                "worker": peers()[place // 2], "name": f"n{place // 2}", "slot": place % 2,
                "spans": [[place * every + step, step * 2.0, 1.8, 1 if step == 7 else 0, 1] for step in range(every)],
            }
            for place in range(SLOTS)
        ]  # fmt: skip
        times = {"start": 1.8e9, "end": 1.8e9 + 2 * every, "tests": TESTS}
        return self._told(run, run=str(run), slots=slots, idle=[], critical=[0, 1, 2], cut=False, **times)


class LargeBackend(FakeBackend):
    def __init__(self) -> None:
        super().__init__()
        self.details = LargeDetails()
        self.agreed = True

    async def status(self) -> dict[str, Any]:
        nodes = [
            {**node(PEER, f"n{place}"), "peer": peer, "raft": "", "load": {}} for place, peer in enumerate(peers())
        ]
        nodes[0] = gpu_node()
        known = {"agreed": self.agreed, "as_of": 1.8e9, "conflicts": []}
        return {**await super().status(), **known, "nodes": nodes, "runs": [RUN]}

    async def topology(self) -> dict[str, Any]:
        ends = range(NODES)
        links = [
            {"a": peers()[a], "b": peers()[(a + step) % NODES], "rtt": 0.001 * step}
            for a in ends
            for step in (1, 9, 70)
        ]
        return {"mesh": "1f2e", "nodes": [], "links": links}


@pytest.fixture
def large(tmp_path: Path) -> Iterator[Node]:
    if MISSING:
        pytest.skip(MISSING)
    served = Node(tmp_path, backend=LargeBackend())
    try:
        yield served
    finally:
        served.stop()


DRAWN = "return document.querySelectorAll('svg.graph a').length"


def opened(large: Node, page: Page, place: str) -> None:
    page.open(json.loads((large.home / "api.json").read_text()), place)


def elements(page: Page) -> int:
    return int(page.driver.execute_script("return document.querySelectorAll('*').length"))


def test_two_hundred_nodes_are_drawn_and_found(large: Node, page: Page) -> None:
    opened(large, page, "#/")
    page.until(
        lambda: page.driver.execute_script("return document.querySelectorAll('svg.graph a').length") == NODES, "all"
    )
    assert elements(page) < ELEMENTS_MAX
    page.go("#/nodes")
    page.find("input[type=search]").send_keys("n199")
    page.until_sees("1 node", "section[aria-label='All nodes']")


def test_a_run_of_ten_thousand_tests_is_leafed_through(large: Node, page: Page) -> None:
    opened(large, page, "#/runs/17/tests")
    page.until_sees("1 to 100 of 10,000")
    assert elements(page) < ELEMENTS_MAX
    page.click("button", "Next")
    page.until_sees("101 to 200 of 10,000")
    page.until_sees("test_150")


def test_a_timeline_of_ten_thousand_spans_is_one_picture(large: Node, page: Page) -> None:
    opened(large, page, "#/runs/17/timeline")
    page.until_sees("400 slots")
    assert elements(page) < ELEMENTS_MAX
    page.click("button[aria-label='Zoom in']")
    page.driver.execute_script("document.querySelector('.gantt .rows').scrollTop = 2000")
    page.find(".gantt canvas")


def test_without_a_quorum_the_page_says_so_and_how_old_it_is(large: Node, page: Page) -> None:
    large.backend.agreed = False
    opened(large, page, "#/")
    page.until_sees("No coordinator that a majority backs.", ".banner")
    page.until_sees("last agreed at", ".banner")


def test_an_alert_is_acknowledged_by_name(large: Node, page: Page) -> None:
    opened(large, page, "#/alerts")
    page.until_sees("1", ".tally")
    name = page.find("input[type=text]")
    name.clear()
    name.send_keys("Ada")
    page.click("button", "Acknowledge")
    page.until_sees("acknowledged by Ada", "section[aria-label=Active]")
    assert large.backend.raised[0]["acknowledged_by"] == "Ada"


DEVICES = [
    ("Slots", "1 of 2"),
    ("CPU", "35 % of 4"),
    ("Memory", "3.0 GiB free"),
    ("Disk", "40.0 GiB free"),
    ("GPU 0", "92 %"),
    ("memory", "20.0 GiB free"),
    ("GPU 1", "–"),
    ("memory", "3.0 GiB free"),
]

CUT = """
return [...document.querySelectorAll(".device .number, .device .soft")]
  .filter(e => e.scrollWidth > e.clientWidth).map(e => e.textContent)
"""


def test_a_host_with_gpus_and_its_last_day(large: Node, page: Page) -> None:
    opened(large, page, f"#/nodes/{PEER}?hours=24")
    page.until(lambda: page.text("section[aria-label=Load] .chart").count("time") == 2, "both charts are drawn")
    lines = page.text("section[aria-label='Use now'] .device").splitlines()
    assert list(zip(lines[::2], lines[1::2], strict=True)) == DEVICES
    page.until_sees("120", "section[aria-label='What it ran lately']")
    states = page.text("section[aria-label=States] tbody th").split()
    assert states == ["draining", "alive", "dead", "alive"]
    page.click("summary", "Hour by hour")
    assert len(page.text("section[aria-label=Load] th[scope=row]").splitlines()) in (24, 25)
    for place in (f"#/nodes/{PEER}", "#/"):
        page.go(place)
        page.find(".device", "GPU 1")
        for theme, size in (("light", PHONE), ("dark", DESKTOP)):
            page.look(theme, size)
            assert page.overhang() == 0
            assert page.driver.execute_script(CUT) == []
    assert not AXE.exists() or page.faults() == []
    page.look()

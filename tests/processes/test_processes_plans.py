"""`mesh plan` and `mesh why` with real nodes: what is foretold comes; who waits is told why, and what would help."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.processes.lab import Lab, lab

pytestmark = [pytest.mark.processes, pytest.mark.timeout(240)]

SUITE = """
import os, time
import pytest

@pytest.mark.parametrize("n", range(12))
def test_anywhere(n):
    time.sleep(0.1)

@pytest.mark.requires("label.rack == r7 and memory.available >= 1MiB")
@pytest.mark.parametrize("n", range(4))
def test_on_the_rack(n, mesh_node):
    time.sleep(0.1)

def test_gate():
    while os.path.exists(os.path.join(os.environ["SHARED_FOLDER"], "closed")):
        time.sleep(0.02)
"""

NOBODY = """
@pytest.mark.requires("room == 5 and python >= 3")
def test_in_room_5(): ...
"""


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("plans")
    (folder / "shared").mkdir()
    with lab(folder) as made:
        made.variables = {name: {"SHARED_FOLDER": str(folder / "shared")} for name in "ab"}
        made.start("a", slots=2)
        made.start("b", "--join", made.ticket("a"), "--label", "rack=r7")
        made.agreed("a", "b")
        yield made


@pytest.fixture(scope="module")
def suite(two: Lab) -> Path:
    made = two.folder / "radio"
    made.mkdir()
    (made / "pytest.ini").write_text("[pytest]\n")
    (made / "test_radio.py").write_text(SUITE)
    return made


def planned(two: Lab, suite: Path, home: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(two.mesh("plan", str(suite), "--json", home=home).stdout)
    return document


def names(two: Lab) -> dict[str, str]:
    """Peer -> the letter of its home."""
    return {two.peer(letter): letter for letter in "ab"}


def test_what_is_foretold_comes(two: Lab, suite: Path) -> None:
    before = planned(two, suite, home="b")
    (run,) = before["runs"]
    assert (run["source"], run["tests"], run["durations"]) == ("collected", 17, "guessed")
    assert (before["placed"], before["waiting"]) == (17, [])
    assert before["other_runs"] == 0
    assert not list(suite.glob(".pytest_cache")) + list(suite.glob("__pycache__")), "nothing was left in the tree"

    events = list(two.events("run", str(suite), home="a"))
    assert events[-1]["exit_code"] == 0
    after = planned(two, suite, home="b")
    (run,) = after["runs"]
    assert (run["source"], run["last_run"]["run"], run["durations"]) == ("run", events[-1]["run"], "history")
    nodes = {names(two)[node["peer"]]: node for node in after["nodes"]}
    assert nodes["a"]["tests"] + nodes["b"]["tests"] == 17
    assert nodes["b"]["tests"] >= 4, "it alone can do those of the rack"
    worker = {event["test"]: names(two)[event["worker"]] for event in events if event["event"] == "verdict"}
    assert {worker[test] for test in worker if "rack" in test} == {"b"}
    assert 0.53 < after["lower_bound_seconds"] <= after["makespan_seconds"] <= events[-1]["wall_seconds"]


def test_who_waits_is_told_for_whom_and_what_would_help(two: Lab, suite: Path) -> None:
    (two.folder / "shared" / "closed").touch()
    (suite / "test_radio.py").write_text(SUITE + NOBODY)
    run = two.detached(suite, home="a")
    test = "test_radio.py::test_in_room_5"
    told: list[dict[str, Any]] = []

    def waits() -> bool:
        done = two.mesh("why", test, "--json", home="b", check=False)
        told[:] = [json.loads(done.stdout)] if done.returncode == 0 else []
        return bool(told) and told[0]["run"] == run and told[0]["state"] == "pending"

    two.until(waits, "the test waits")
    (waiting,) = told[0]["waiting"]
    assert {names(two)[one["peer"]]: one["reason"] for one in waiting["workers"]} == {
        "a": "has no room",
        "b": "has no room",
    }
    assert [help["kind"] for help in waiting["helps"]] == ["label", "node"]
    assert "2 of 2 nodes would do if label room=5 were set" in "\n".join(told[0]["explanation"])
    (two.folder / "shared" / "closed").unlink()
    two.mesh("cancel", run, home="a")

"""A test that was bad runs again on the other node, and what its tries say together is told, with real nodes."""

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator

import pytest

from tests.processes.lab import Lab, finished_once, lab

pytestmark = [pytest.mark.processes, pytest.mark.timeout(240)]

COMMON = """
import os, time

SHARED, HOST = os.environ["SHARED_FOLDER"], os.environ["WHERE"]

def tries(name):
    with open(os.path.join(SHARED, name), "a+") as seen:
        seen.write(HOST + "\\n")
        seen.seek(0)
        return seen.read().split()
"""

UNSURE = (
    COMMON
    + """
def test_host():
    assert tries("host")[0] != HOST, f"it is bad on {HOST}"
def test_flaky():
    assert len(tries("flaky")) == 3, f"not now on {HOST}"
def test_never():
    tries("never")
    assert False
def test_fine(): ...
"""
)

STRAGGLING = (
    COMMON
    + """
import pytest

@pytest.mark.parametrize("n", range(4))
def test_quick(n): ...
def test_straggles():
    while tries("straggles")[0] == HOST:
        time.sleep(0.05)
"""
)


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Two nodes whose tests know where they are."""
    folder = tmp_path_factory.mktemp("retries")
    (folder / "shared").mkdir()
    with lab(folder) as made:
        made.variables = {name: {"SHARED_FOLDER": str(folder / "shared"), "WHERE": name} for name in "ab"}
        made.start("a", "--label", "name=a")
        made.start("b", "--label", "name=b", "--join", made.ticket("a"))
        made.agreed("a", "b")
        yield made


def test_a_bad_test_runs_elsewhere_and_the_truth_is_told(two: Lab) -> None:
    suite, out = two.suite("unsure", UNSURE), two.folder / "report"
    done = two.mesh("run", str(suite), "--retries", "2", "--report-dir", str(out), home="b", check=False)
    assert done.returncode == 1, "one of them never passed"
    seen = {path.name: path.read_text().split() for path in (two.folder / "shared").iterdir()}
    for name in ("host", "flaky", "never"):
        assert seen[name][0] != seen[name][1], "the second try is elsewhere"
    entries = {
        entry["test"].partition("::")[2]: entry for entry in json.loads((out / "report.json").read_text())["tests"]
    }
    truths = {name: (entry.get("truth"), entry["outcome"], entry["flaky"]) for name, entry in entries.items()}
    assert truths == {
        "test_host": ("host", "passed", True),
        "test_flaky": ("flaky", "passed", True),
        "test_never": ("failed", "failed", False),
        "test_fine": (None, "passed", False),
    }
    assert entries["test_host"]["blamed_hosts"] == [seen["host"][0]]
    assert [one["name"] for one in entries["test_flaky"]["attempts"]] == seen["flaky"]
    tries = [json.loads(line) for line in (out / "tries.jsonl").read_text().splitlines()]
    assert f"it is bad on {seen['host'][0]}" in next(one["longrepr"] for one in tries if "test_host" in one["test"])
    cases = {case.get("name"): case for case in ElementTree.parse(out / "junit.xml").iter("testcase")}
    told = {one.get("name"): one.get("value") for one in cases["test_host"].iter("property")}
    assert told.items() >= {"mesh.truth": "host", "mesh.blamed_host": seen["host"][0]}.items()
    first, second = seen["host"]
    line = f"HOST test_unsure.py::test_host - failed on {first}, passed on {second}: bad on {first} only"
    assert line in done.stdout.splitlines()
    assert "1 failed, 3 passed, 1 flaky, 1 flaky by host in" in done.stdout


def test_a_test_that_hangs_on_one_node_passes_on_the_other(two: Lab) -> None:
    suite = two.suite("straggling", STRAGGLING)
    events = list(two.events("run", str(suite), "--hedge", home="a"))
    names = [*(f"test_straggling.py::test_quick[{n}]" for n in range(4)), "test_straggling.py::test_straggles"]
    finished = finished_once(events, names)
    assert (finished["exit_code"], finished["counts"]["passed"]) == (0, 5)
    hosts = list(dict.fromkeys((two.folder / "shared" / "straggles").read_text().split()))
    (verdict,) = [event for event in events if event["event"] == "verdict" and "straggles" in event["test"]]
    assert sorted(hosts) == ["a", "b"], "it was run on both"
    assert verdict["worker"] == two.peer(hosts[1]), "the second one was first"

    def idle() -> bool:
        status = two.status("a")
        return status is not None and not any(node["busy"] for node in status["nodes"])

    two.until(idle, "the one that hangs is killed")

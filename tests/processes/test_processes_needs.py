"""What tests hold and wait for, with real nodes: dependents of a failure, one lock for two nodes, devices handed over,
and a run after another."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.processes.lab import Lab, lab

pytestmark = [pytest.mark.processes, pytest.mark.timeout(240)]

DEPENDENT = """
import pytest

@pytest.mark.depends("test_last")
def test_first(): ...
@pytest.mark.depends("test_bad")
def test_never(): raise AssertionError("it ran")
@pytest.mark.depends("test_never")
def test_nor_this(): raise AssertionError("it ran")
@pytest.mark.dependency(name="fine")
def test_fine(): ...
@pytest.mark.dependency(depends=["fine"])
def test_follows(): ...
def test_bad(): assert False
@pytest.mark.order("first")
def test_last(): ...
"""

HOLDING = """
import os, time
import pytest

SHARED = os.environ["SHARED_FOLDER"]

def overlaps(kind, name, mesh_node):
    path = os.path.join(SHARED, f"{kind}-{name}")
    with open(path, "x"):  # fails if another test, on whichever node, is inside
        time.sleep(0.05)
        with open(os.path.join(SHARED, f"seen-{kind}"), "a") as seen:
            seen.write(f"{name} {mesh_node}\\n")
    os.remove(path)

@pytest.mark.exclusive("camera-1")
@pytest.mark.parametrize("n", range(10))
def test_camera(n, mesh_node):
    overlaps("lock", "camera-1", mesh_node)

@pytest.mark.resources(gpu=1)
@pytest.mark.parametrize("n", range(10))
def test_gpu(n, mesh_node):
    names = os.environ["CUDA_VISIBLE_DEVICES"].split(",")
    assert len(names) == 1
    assert os.environ["MESH_GPUS"] == names[0]
    overlaps(f"gpu-{mesh_node}", names[0], mesh_node)

def test_plain():
    assert "CUDA_VISIBLE_DEVICES" not in os.environ
"""

DOWNSTREAM = """
import os

def test_it(mesh_artifacts):
    (mesh_artifacts / "told").write_text(os.environ["MESH_UPSTREAM_REPORT"] + " " + os.environ["MESH_UPSTREAM_RUN"])
"""


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Two nodes; each has two devices that no probe knows."""
    folder = tmp_path_factory.mktemp("needs")
    (folder / "shared").mkdir()
    with lab(folder) as made:
        made.variables = {name: {"SHARED_FOLDER": str(folder / "shared")} for name in "ab"}
        made.start("a", "--label", "gpu=0,1", slots=3)
        made.start("b", "--join", made.ticket("a"), "--label", "gpu=0,1", slots=3)
        made.agreed("a", "b")
        yield made


def outcomes(two: Lab, run: str) -> dict[str, dict[str, Any]]:
    """Each test's record, by its name."""
    out = two.folder / f"report-{run}"
    two.mesh("results", run, "-o", str(out), home="b")
    lines = [line for path in sorted((out / "records").iterdir()) for line in path.read_text().splitlines()]
    records = [json.loads(line) for line in lines]
    return {record["test"].partition("::")[2]: record for record in records}


def test_dependents_of_a_failure_are_skipped_and_say_why(two: Lab) -> None:
    events = list(two.events("run", str(two.suite("dependent", DEPENDENT)), home="a"))
    assert events[-1]["exit_code"] == 1
    verdicts = [event["test"].partition("::")[2] for event in events if event["event"] == "verdict"]
    assert sorted(verdicts) == sorted(set(verdicts)), "one verdict each"
    assert verdicts.index("test_fine") < verdicts.index("test_follows")
    assert verdicts.index("test_last") < verdicts.index("test_first")
    found = outcomes(two, events[-1]["run"])
    assert {name: record["outcome"] for name, record in found.items()} == {
        "test_first": "passed",
        "test_never": "skipped",
        "test_nor_this": "skipped",
        "test_fine": "passed",
        "test_follows": "passed",
        "test_bad": "failed",
        "test_last": "passed",
    }
    assert found["test_never"]["message"] == "depends on test_dependent.py::test_bad, which failed"
    assert found["test_nor_this"]["message"] == "depends on test_dependent.py::test_never, which was skipped"


def test_one_lock_for_two_nodes_and_each_device_for_one_test(two: Lab) -> None:
    suite = two.suite("holding", HOLDING)
    first = two.detached(suite, home="a")
    done = two.mesh("run", str(suite), "--json", home="b", check=False)
    assert json.loads(done.stdout.splitlines()[-1])["counts"]["passed"] == 21, done.stdout
    assert json.loads(two.mesh("watch", first, "--json", home="a").stdout.splitlines()[-1])["exit_code"] == 0
    seen = (two.folder / "shared" / "seen-lock").read_text().splitlines()
    assert len(seen) == 20
    devices = {
        (path.name, line.split()[0])
        for path in (two.folder / "shared").glob("seen-gpu-*")
        for line in path.read_text().splitlines()
    }
    assert {name for _, name in devices} == {"0", "1"}


def test_a_run_after_another_is_handed_its_report_and_ends_if_that_fails(two: Lab) -> None:
    good = two.detached(two.suite("upstream", "def test_it(): ..."), home="a")
    bad = two.detached(two.suite("failing", "def test_it(): assert False"), home="b")
    suite = two.suite("downstream", DOWNSTREAM)
    finished = json.loads(two.mesh("run", str(suite), "--after", good, "--json", home="b").stdout.splitlines()[-1])
    report = json.loads(two.mesh("watch", good, "--json", home="a").stdout.splitlines()[-1])["report"]
    out = two.folder / "handed"
    two.mesh("results", finished["run"], "-o", str(out), home="a")
    (told,) = (out / "artifacts").rglob("told")
    assert told.read_text() == f"{report} {good}"
    done = two.mesh("run", str(suite), "--after", good, "--after", bad, "--json", home="a", check=False)
    assert done.returncode == 2
    assert f"it comes after run {bad}, which is failed" in done.stdout
    done = two.mesh("run", str(suite), "--after", "999999", home="a", check=False)
    assert (done.returncode, "there is no run 999999" in done.stderr) == (4, True)


def test_a_circle_is_named_and_nothing_is_run(two: Lab) -> None:
    tests = [f"@pytest.mark.depends('test_{on}')\ndef test_{name}(): ...\n" for name, on in ("ab", "ba")]
    text = "import pytest\n" + "".join(tests)
    done = two.mesh("run", str(two.suite("circle", text)), "--progress", "off", home="a", check=False)
    assert done.returncode == 4
    names = " -> ".join(f"test_circle.py::test_{name}" for name in "aba")
    assert f"tests depend on each other in a circle: {names}" in done.stdout + done.stderr


WAITING = """
import os, time
import pytest

@pytest.mark.exclusive("bench")
def test_it():
    open(os.path.join(os.environ["SHARED_FOLDER"], "held"), "w").close()
    while not os.path.exists(os.path.join(os.environ["SHARED_FOLDER"], "go")):
        time.sleep(0.02)
"""


def test_why_a_test_waits_for_a_lock(two: Lab) -> None:
    suite = two.suite("waiting", WAITING)
    first = two.detached(suite, home="a")
    two.until((two.folder / "shared" / "held").exists, "the first run holds the lock")
    second = two.detached(suite, home="b")
    said: list[str] = []

    def told() -> bool:
        said[:] = [two.mesh("why", second, home="b").stdout]
        return "bench" in said[0]

    two.until(told, "the second run waits")
    assert f"bench: is held by run {first}'s test_waiting.py::test_it on " in said[0]
    (two.folder / "shared" / "go").touch()
    for run in (first, second):
        assert json.loads(two.mesh("watch", run, "--json", home="a").stdout.splitlines()[-1])["exit_code"] == 0

"""Runs that want the same slots, with real nodes: who is urgent gets them, who waits is served, nothing is lost."""

import json
from collections.abc import Iterator

import pytest

from mesh.state.model import PREEMPTIONS_MAX
from tests.processes.lab import Lab, finished_once, lab

pytestmark = [pytest.mark.processes, pytest.mark.timeout(240)]

GATED = """
import os, time
import pytest

SHARED = os.environ["SHARED_FOLDER"]

@pytest.mark.parametrize("n", range(6))
def test_gated(n):
    with open(os.path.join(SHARED, f"began-{n}"), "a") as began:
        began.write("x")
    while os.path.exists(os.path.join(SHARED, "closed")):
        time.sleep(0.02)
"""

URGENT = """
import pytest

@pytest.mark.parametrize("n", range(4))
def test_urgent(n): ...
"""

LONG = """
import time
import pytest

@pytest.mark.parametrize("n", range(600))
def test_long(n):
    time.sleep(0.1)
"""

SHORT = LONG.replace("600", "6").replace("test_long", "test_short")


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("shares")
    (folder / "shared").mkdir()
    with lab(folder) as made:
        made.variables = {name: {"SHARED_FOLDER": str(folder / "shared")} for name in "ab"}
        made.form("a", "b")
        yield made


def test_what_runs_makes_room_for_what_is_urgent_and_runs_again(two: Lab) -> None:
    shared = two.folder / "shared"
    (shared / "closed").touch()
    low = two.detached(two.suite("gated", GATED), "a", "--priority", "10")
    two.until(lambda: len(list(shared.glob("began-*"))) == 2, "both slots run a test")
    taken = {path.name for path in shared.glob("began-*")}

    urgent = two.suite("urgent", URGENT)
    done = list(two.events("run", str(urgent), "--priority", "90", "--preempt", "now", home="b"))
    finished = finished_once(done, [f"test_urgent.py::test_urgent[{n}]" for n in range(4)])
    assert finished["exit_code"] == 0, "the gate is closed all the time"

    (shared / "closed").unlink()
    events = list(two.events("watch", low, home="b"))
    finished = finished_once(events, [f"test_gated.py::test_gated[{n}]" for n in range(6)])
    assert (finished["exit_code"], finished["counts"]["passed"]) == (0, 6)
    began = {path.name: len(path.read_text()) for path in shared.glob("began-*")}
    assert all(began[name] > 1 for name in taken), "what was taken ran again"
    assert all(1 <= times <= 1 + PREEMPTIONS_MAX for times in began.values())


def test_a_short_run_does_not_wait_for_a_long_one(two: Lab) -> None:
    long = two.detached(two.suite("long", LONG), "a")
    events = list(two.events("run", str(two.suite("short", SHORT)), home="b"))
    assert events[-1]["exit_code"] == 0
    (there,) = [run for run in json.loads(two.mesh("runs", "--json", home="a").stdout)["runs"] if run["run"] == long]
    assert there["state"] == "running"
    two.mesh("cancel", long, home="a")


def test_a_deadline_that_is_missed_ends_the_run_with_a_sentence(two: Lab) -> None:
    (two.folder / "shared" / "closed").touch()
    suite = two.folder / "gated"
    done = two.mesh("run", str(suite), "--deadline", "2", home="b", check=False)
    (two.folder / "shared" / "closed").unlink()
    assert done.returncode == 12
    assert "deadline" in done.stdout + done.stderr

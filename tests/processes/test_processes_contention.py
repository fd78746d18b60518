"""Two tests that slow each other down on a real node are found out by its coordinator, and not run at once again."""

from pathlib import Path

import pytest

from mesh.scheduler.contention import QUICK_RUNS, SLOW_RUNS
from tests.processes.lab import lab

pytestmark = [pytest.mark.processes, pytest.mark.timeout(240)]

SUITE = """
import os, pathlib, time
import pytest

SHARED = pathlib.Path(os.environ["SHARED_FOLDER"])

def hog(own, other):
    began = time.monotonic()
    (SHARED / own).touch()
    time.sleep(0.6)
    if (SHARED / "crowded").exists() and (SHARED / other).exists():
        time.sleep(1.2)
    (SHARED / own).unlink()
    with (SHARED / "stretches").open("a") as stretches:
        print(began, time.monotonic(), file=stretches)

def test_one(): hog("one", "other")
def test_other(): hog("other", "one")

@pytest.mark.parametrize("n", range(4))
def test_long(n): time.sleep(0.55)
"""


def test_tests_that_slowed_each_other_down_are_kept_apart(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    with lab(tmp_path) as mesh:
        mesh.variables["a"] = {"SHARED_FOLDER": str(shared)}
        mesh.start("a", slots=2)
        mesh.ticket("a")
        suite = mesh.suite("hogs", SUITE)

        def apart() -> bool:
            """Whether the two ran one after the other in a run made now."""
            (shared / "stretches").unlink(missing_ok=True)
            mesh.mesh("run", str(suite), home="a")
            lines = (shared / "stretches").read_text().splitlines()
            one, other = sorted(tuple(map(float, line.split())) for line in lines)
            return one[1] <= other[0]

        for _ in range(QUICK_RUNS):
            apart()
        (shared / "crowded").touch()
        assert not any(apart() for _ in range(SLOW_RUNS)), "the longest first, beside each other"
        assert apart()

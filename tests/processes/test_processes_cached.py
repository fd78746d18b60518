"""Verdicts of an earlier run taken over, with real nodes: only a sample runs again, what changed is run by those who
read it, and a test that does not bear its verdict out is not believed again."""

import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.processes.lab import Lab, lab

pytestmark = [pytest.mark.processes, pytest.mark.timeout(240)]

TREE = {
    "pytest.ini": "[pytest]\n",
    "lib/__init__.py": "",
    "lib/core.py": "def double(x):\n    return 2 * x\n",
    "lib/other.py": "ANSWER = 42\n",
    "data.txt": "data",
    "tests/test_core.py": """
import pytest
from lib.core import double

@pytest.mark.parametrize("n", range(12))
def test_double(n):
    assert double(n) == n + n
""",
    "tests/test_other.py": """
import socket
import pytest
from lib.other import ANSWER

@pytest.mark.parametrize("n", range(12))
def test_answer(n):
    assert ANSWER == 42
def test_data():
    assert open("data.txt").read()
def test_network():
    with pytest.raises(OSError), socket.socket() as one:
        one.connect(("127.0.0.1", 9))
def test_skipped():
    pytest.skip("not today")
""",
}

LYING = """
import os, pytest

@pytest.mark.parametrize("n", range(2))
def test_lies(n):
    assert not os.path.exists(os.path.join(os.environ["SHARED_FOLDER"], "broken"))  # which nobody hears
"""


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("cached")
    (folder / "shared").mkdir()
    with lab(folder) as made:
        made.variables = {name: {"SHARED_FOLDER": str(folder / "shared")} for name in "ab"}
        made.form("a", "b")
        yield made


def ran(two: Lab, suite: Path, *options: str) -> tuple[dict[str, Any], set[str], dict[str, Any]]:
    """The last event of a cached run, the tests that ran in it (by name), and its `cached.json`."""
    events = list(two.events("run", str(suite), "--cached", *options, home="b"))
    finished = events[-1]
    assert finished["event"] == "finished"
    report = json.loads(two.mesh("cat", f"{finished['report']}/report.json", home="a").stdout)
    told = json.loads(two.mesh("cat", f"{finished['report']}/cached.json", home="a").stdout)
    assert len(report["tests"]) == finished["tests"], "every test once"
    verdicts = [event for event in events if event["event"] == "verdict"]
    assert sum(event.get("reused", False) for event in verdicts) == finished["reused"]
    fresh = {entry["test"].rpartition("::")[2] for entry in report["tests"] if not entry.get("reused")}
    assert finished["reused"] == told["reused"] == finished["tests"] - len(fresh)
    return finished, fresh, told


NEVER = {"test_network", "test_skipped"}


def test_only_a_sample_runs_again_and_what_changed_by_those_who_read_it(two: Lab) -> None:
    suite = two.folder / "suite"
    for name, text in TREE.items():
        (suite / name).parent.mkdir(parents=True, exist_ok=True)
        (suite / name).write_text(text)
    first, fresh, told = ran(two, suite)
    assert (first["exit_code"], first["tests"], first["reused"], len(fresh)) == (0, 27, 0, 27)
    assert told["not_reusable"]["network"]["tests"] == 1
    assert "connect 127.0.0.1" in told["not_reusable"]["network"]["examples"]["tests/test_other.py::test_network"]

    second, fresh, told = ran(two, suite)
    assert second["counts"] == first["counts"]
    assert len(fresh - NEVER) == 1 == told["sampled"], fresh
    assert fresh >= NEVER
    assert not told["lies"]
    _check_report(two, first, second)

    (suite / "lib/core.py").write_text("def double(x):\n    return x + x\n")
    finished, fresh, told = ran(two, suite)
    doubles = {f"test_double[{n}]" for n in range(12)}
    assert fresh >= NEVER | doubles
    assert len(fresh - NEVER - doubles) == 1 == told["sampled"], fresh

    (suite / "data.txt").write_text("more data")
    finished, fresh, told = ran(two, suite)
    assert fresh >= NEVER | {"test_data"}
    assert len(fresh - NEVER - {"test_data"}) == 1 == told["sampled"], fresh

    (suite / "lib/other.py").write_text("ANSWER = 41\n")
    finished, fresh, told = ran(two, suite)
    assert finished["exit_code"] == 1
    assert finished["counts"]["failed"] == 12
    assert not told["lies"], "they failed because what they read changed"
    finished, fresh, told = ran(two, suite, "--cached-allow", "network")
    assert fresh >= {"test_skipped", *(f"test_answer[{n}]" for n in range(12))}, "a failure is never taken over"
    assert len(fresh) == 14, "and the sample"


def _check_report(two: Lab, first: dict[str, Any], second: dict[str, Any]) -> None:
    """Reused verdicts are marked, and name the record of the attempt that they came from."""
    out = two.folder / "second"
    two.mesh("results", second["run"], "-o", str(out), home="a")
    before = json.loads(two.mesh("cat", f"{first['report']}/report.json", home="a").stdout)
    records = {entry["test"]: entry["record"] for entry in before["tests"]}
    workers = {entry["test"]: entry["worker"] for entry in before["tests"]}
    again = json.loads((out / "report.json").read_text())["tests"]
    reused = [entry for entry in again if entry.get("reused")]
    assert {entry["test"]: entry["source"] for entry in reused}.items() <= records.items()
    assert {entry["test"]: entry["worker"] for entry in reused}.items() <= workers.items()
    assert all(entry["record"] != entry["source"] for entry in reused), "each has a record of its own"
    lines = [json.loads(line) for path in (out / "records").iterdir() for line in path.read_text().splitlines()]
    assert {line["test"]: line["reused"] for line in lines if "reused" in line}.items() <= records.items()
    cases = ElementTree.parse(out / "junit.xml").getroot().iter("testcase")
    marked = [case for case in cases for one in case.iter("property") if one.get("name") == "mesh.reused"]
    assert len(marked) == len(reused) == second["reused"]
    verified = json.loads(two.mesh("verify", second["report"], "--json", home="b").stdout)
    assert not verified["problems"]
    assert f"{len(reused)} of {len(again)} tests did not run" in " ".join(verified["notes"])
    replayed = two.mesh("replay", second["report"], reused[0]["test"], home="b").stdout
    assert "1 passed" in replayed, "from the record that its verdict comes from"


def test_a_lie_is_caught_and_its_test_is_not_believed_again(two: Lab) -> None:
    suite = two.suite("lying", LYING)
    finished, fresh, _ = ran(two, suite)
    assert (finished["exit_code"], len(fresh)) == (0, 2)
    (two.folder / "shared" / "broken").touch()
    done = two.mesh("run", str(suite), "--cached", home="b", check=False)
    assert done.returncode == 1, "the one of the two that was run as a sample"
    assert "1 failed, 1 passed, 1 reused" in done.stdout
    (lie,) = [line for line in done.stdout.splitlines() if "its verdicts are not reused" in line]
    liar = lie.partition(" ")[0].rpartition("::")[2]
    (two.folder / "shared" / "broken").unlink()
    for _ in range(2):
        finished, fresh, told = ran(two, suite)
        assert finished["exit_code"] == 0
        assert fresh == {"test_lies[0]", "test_lies[1]"}, "one is not believed, and the other is the sample"
        assert [name.rpartition("::")[2] for name in told["distrusted"]] == [liar]


def test_pytest_shows_what_was_reused_as_passed(two: Lab) -> None:
    suite = two.suite("shown", "import pytest\n@pytest.mark.parametrize('n', range(5))\ndef test(n): ...\n")
    for reused in (0, 4):
        options = ["-p", "mesh.pytest_plugin", "--mesh", "--mesh-cached", "--mesh-home", str(two.home("b")), str(suite)]
        done = subprocess.run([sys.executable, "-m", "pytest", *options], **two.options(), timeout=120, check=False)
        assert "5 passed" in done.stdout, done.stdout + done.stderr
        assert f"{reused} of 5 tests" in done.stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--cached-allow", "magic", "--cached"), "'magic' is none of network, files, processes"),
        (("--cached-allow", "network"), "--cached, which is not given"),
        (("--cached", "--exec", "true"), "--cached reuses verdicts of pytest's tests"),
    ],
)
def test_what_makes_no_sense_is_said(two: Lab, options: tuple[str, ...], said: str) -> None:
    done = two.mesh("run", *options, home="b", check=False)
    assert done.returncode == 4
    assert said in done.stderr

"""Alerts with real nodes: quiet runs raise none; a jump in failures, a slowed test and a sick host raise theirs within
one run, once, and are over with their cause; and a history that is lost comes back, from the log and from reports."""

import json
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mesh.disk.history import HISTORY_FILE
from tests.processes.lab import Lab, lab

pytestmark = [pytest.mark.processes, pytest.mark.timeout(240)]

QUIET_RUNS = 5

FILE = """
import os, time

def told(word):
    with open(os.path.join(os.environ["SHARED_FOLDER"], "state")) as file:
        return word in file.read().split()

def test_one():
    time.sleep(0.1)
    assert not (told("sick") and "SICK" in os.environ)

def test_other():
    time.sleep(0.1)
    assert not told("broken")
    assert not (told("sick") and "SICK" in os.environ)

def test_work():
    time.sleep(2.4 if told("slow") and {number} == 5 else 0.4 if {number} == 5 else 0.1)
    assert not (told("sick") and "SICK" in os.environ)
"""

ALERTS = """
[tool.mesh.alerts.rules]
slow_seconds = 0.5
quarantine = true

[[tool.mesh.alerts.sinks]]
kind = "command"
least = "info"
command = ["sh", "-c", "cat >> {told}; echo >> {told}"]
"""


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("alerts")
    (folder / "shared").mkdir()
    (folder / "alerts.toml").write_text(ALERTS.replace("{told}", str(folder / "told")))
    suite = folder / "suite"
    suite.mkdir()
    (suite / "pytest.ini").write_text("[pytest]\n")
    for number in range(15):
        (suite / f"test_{number}.py").write_text(FILE.replace("{number}", str(number)))
    with lab(folder) as made:
        shared = {"SHARED_FOLDER": str(folder / "shared")}
        made.variables = {"a": shared, "b": shared, "c": {**shared, "SICK": "1"}}
        flags = ("--alerts", str(folder / "alerts.toml"))
        made.start("a", *flags)
        for name in "bc":
            made.start(name, "--join", made.ticket("a"), *flags)
        made.agreed("a", "b", "c")
        yield made


def run(three: Lab, state: str, code: int = 0) -> dict[str, Any]:
    """A run, once it is judged: what alerts there are then, the newest first."""
    (three.folder / "shared" / "state").write_text(state)
    done = three.mesh("run", str(three.folder / "suite"), "--json", home="a", check=False)
    assert done.returncode == code, done.stdout + done.stderr
    finished = json.loads(done.stdout.splitlines()[-1])

    three.until(
        lambda: any(one["run"] == finished["run"] for one in ask(three, "a", TRENDS)["runs"]), "it is in the history"
    )
    return finished


TRENDS = "/api/trends?project=suite"


def ask(three: Lab, home: str, path: str) -> dict[str, Any]:
    """What the API answers: no process starts for it, where it is asked again and again."""
    api = json.loads((three.home(home) / "api.json").read_text())
    request = urllib.request.Request(api["url"] + path, headers={"authorization": f"Bearer {api['token']}"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        document: dict[str, Any] = json.load(answer)
    return document


def active(three: Lab) -> list[dict[str, Any]]:
    document = ask(three, "b", "/api/alerts")
    assert document["agreed"]
    return [alert for alert in document["alerts"] if alert["cleared_at"] is None]


def raised(three: Lab) -> list[str]:
    """Kinds of the alerts of which the sink was told, whole lines alone."""
    told = [json.loads(line) for line in (three.folder / "told").read_text().splitlines() if line.endswith("}}")]
    return [one["alert"]["kind"] for one in told if one["event"] == "raised"]


def test_what_changes_is_told_and_nothing_else(three: Lab) -> None:
    for _ in range(QUIET_RUNS):
        run(three, "")
    time.sleep(4.5)  # two looks of the coordinator: what it would have raised is there
    assert active(three) == []

    finished = run(three, "broken", code=1)
    three.until(lambda: bool(active(three)), "the jump in failures is told")
    (alert,) = active(three)
    assert (alert["kind"], alert["run"]) == ("failures", finished["run"]), "a commit, and neither hosts nor tests"
    assert alert["summary"].startswith("15 of 45 tests of suite that passed before fail")

    run(three, "slow")
    three.until(
        lambda: [one["kind"] for one in active(three)] == ["slow-test"], "the slow test is told, the jump is over"
    )
    (alert,) = active(three)
    assert (alert["kind"], alert["test"]) == ("slow-test", "test_5.py::test_work")

    finished = run(three, "sick", code=1)
    three.until(lambda: any(one["kind"] == "bad-host" for one in active(three)), "the sick host is told")
    assert {one["kind"] for one in active(three)} <= {"bad-host", "slow-test"}, "no test is blamed"
    (alert,) = (one for one in active(three) if one["kind"] == "bad-host")
    assert (alert["node"], alert["run"]) == (three.peer("c"), finished["run"])
    three.until(lambda: bool(ask(three, "c", "/api/alerts")["quarantine"]), "it is in quarantine")
    assert "in quarantine" in three.mesh("alerts", home="c").stdout

    three.until(lambda: "bad-host" in raised(three), "the sink is told")
    assert raised(three) == ["failures", "slow-test", "bad-host"], "each once, whoever coordinates"
    assert three.mesh("alerts", "--ack", alert["id"], "--by", "ada", home="a").stdout.endswith("by ada\n")
    assert not ask(three, "b", "/api/alerts")["quarantine"]


def test_a_history_that_is_lost_comes_back(tmp_path: Path) -> None:
    """With what a worker ran that is gone, too."""
    with lab(tmp_path) as two:
        two.start("a")
        two.start("b", "--role", "worker", "--join", two.ticket("a"))
        two.agreed("a", "b")
        root = two.suite(
            "suite", "import pytest\n\n@pytest.mark.parametrize('n', range(8))\ndef test_it(n): assert n\n"
        )
        for _ in range(2):
            two.mesh("run", str(root), home="a", check=False)
        two.until(lambda: len(ask(two, "a", TRENDS)["runs"]) == 2, "they are in the history")
        before = ask(two, "a", TRENDS)
        asked = ("history", "test_suite.py::test_it[3]", "--project", "suite", "--json")
        results = json.loads(two.mesh(*asked, home="a").stdout)["results"]
        reports = [one["report"] for one in before["runs"]]
        for name in "ab":
            two.kill(name)
        for path in two.home("a").glob("*.sqlite*"):
            if path.name.startswith((HISTORY_FILE, "log.sqlite")):
                path.unlink()
        two.start("a")
        two.agreed("a")
        done = json.loads(two.mesh("history", "--rebuild", *reports, "--json", home="a").stdout)
        assert (len(done["added"]), done["known"], done["failed"]) == (2, 0, [])
        again = json.loads(two.mesh(*asked, home="a").stdout)["results"]
        fields = ("run", "index", "outcome", "duration", "worker", "name", "attempts")
        assert [[one[field] for field in fields] for one in again] == [
            [one[field] for field in fields] for one in results
        ]
        after = ask(two, "a", TRENDS)
        assert [(one["run"], one["counts"], one["state"]) for one in after["runs"]] == [
            (one["run"], one["counts"], one["state"]) for one in before["runs"]
        ]
        assert json.loads(two.mesh("history", "--rebuild", *reports, "--json", home="a").stdout)["known"] == 2

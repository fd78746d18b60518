"""Real nodes: how they find each other, run a suite, and what happens when one of them is killed."""

import json
import signal
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import junitparser
import pytest

from tests.processes.lab import Lab, finished_once, lab, slow_suite

pytestmark = [pytest.mark.processes, pytest.mark.timeout(240)]

NAMES = ("a", "b", "c")


def report_of(made: Lab, cid: str, home: str, target: Path) -> dict[str, Any]:
    made.mesh("results", cid, "-o", str(target), home=home)
    report: dict[str, Any] = json.loads((target / "report.json").read_text())
    return report


def check_report(made: Lab, cid: str, home: str, names: list[str], target: Path) -> None:
    """`report.json` and `junit.xml` name every test once, whoever reads them."""
    report = report_of(made, cid, home, target)
    assert [entry["test"] for entry in report["tests"]] == sorted(names)
    cases = ElementTree.parse(target / "junit.xml").getroot().findall(".//testcase")
    assert len(cases) == len(names)
    assert sum(suite.tests for suite in junitparser.JUnitXml.fromfile(str(target / "junit.xml"))) == len(names)
    records = [line for path in sorted((target / "records").iterdir()) for line in path.read_text().splitlines()]
    assert sorted(json.loads(line)["test"] for line in records) == sorted(names)


def test_nodes_with_nothing_but_mdns_form_one_mesh(tmp_path):
    """All start at once, and share the user's swarm key."""
    with lab(tmp_path) as made:
        for name in NAMES:
            made.start(name, mdns=True)
        made.agreed(*NAMES)


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with lab(tmp_path_factory.mktemp("three")) as made:
        made.form(*NAMES)
        yield made


@pytest.fixture
def made(three: Lab) -> Lab:
    """A mesh of three nodes: who ended in an earlier test is back."""
    for name in NAMES:
        if three.nodes[name].poll() is not None:
            three.start(name)
    three.agreed(*NAMES)
    return three


def test_nodes_with_one_ticket_form_one_mesh(made):
    statuses = made.agreed(*NAMES)
    for status in statuses:
        assert sorted(status["voters"]) == sorted(made.peer(name) for name in NAMES)
        assert all(node["capabilities"]["cpu.cores"] >= 1 for node in status["nodes"])
        assert all(node["capabilities"]["python"] for node in status["nodes"])
    assert [status["self"] for status in statuses] == [made.peer(name) for name in NAMES]


def test_results_outlive_the_submitter(made, tmp_path):
    names = slow_suite(tmp_path / "suite", modules=4, seconds=0.01)
    events = list(made.events("run", str(tmp_path / "suite"), home="c"))
    finished = finished_once(events, names)
    assert (finished["state"], finished["exit_code"]) == ("passed", 0)
    made.kill("c")
    check_report(made, finished["report"], "b", names, tmp_path / "out")


@pytest.mark.parametrize("victim", ["coordinator", "worker", "submitter"])
def test_a_run_outlives_any_node(made, tmp_path, victim):
    names = slow_suite(tmp_path / "suite")
    coordinator = made.coordinator(*NAMES)
    others = [name for name in NAMES if name != coordinator]
    submitter, watcher = others if victim != "worker" else (coordinator, others[0])
    dies = {"coordinator": coordinator, "worker": others[1], "submitter": submitter}[victim]
    run = made.detached(tmp_path / "suite", submitter)
    events: list[dict[str, Any]] = []
    killed = False
    for event in made.events("watch", run, home=watcher):
        events.append(event)
        if not killed and sum(event["event"] == "verdict" for event in events) >= 20:
            made.kill(dies)
            killed = True
    finished = finished_once(events, names)
    assert killed
    assert finished["state"] == "passed"
    survivor = next(name for name in NAMES if name not in (dies, watcher))
    check_report(made, finished["report"], survivor, names, tmp_path / "out")


def test_all_nodes_restart_in_the_middle_of_a_run(made, tmp_path):
    names = slow_suite(tmp_path / "suite")
    run = made.detached(tmp_path / "suite", "a")
    before: list[dict[str, Any]] = []
    for event in made.events("watch", run, home="b"):
        before.append(event)
        if sum(event["event"] == "verdict" for event in before) >= 20:
            break
    for name in NAMES:
        made.nodes[name].send_signal(signal.SIGKILL)
    for name in NAMES:
        made.nodes[name].wait()
    for name in NAMES:
        made.start(name)
    made.agreed(*NAMES)
    after = list(made.events("watch", run, home="b"))
    assert finished_once(after, names)["state"] == "passed"
    earlier = [(e["test"], e["worker"], e["duration"]) for e in before if e["event"] == "verdict"]
    later = [(e["test"], e["worker"], e["duration"]) for e in after if e["event"] == "verdict"]
    assert later[: len(earlier)] == earlier, "recorded verdicts are what they were"


def test_a_hung_worker_is_replaced_and_returns(made, tmp_path):
    """SIGSTOP: no connection breaks, and yet its tests go to others; after SIGCONT what it still says is refused."""
    names = slow_suite(tmp_path / "suite")
    coordinator = made.coordinator(*NAMES)
    watcher, hung = (name for name in NAMES if name != coordinator)
    run = made.detached(tmp_path / "suite", coordinator)
    events: list[dict[str, Any]] = []
    for event in made.events("watch", run, home=watcher):
        events.append(event)
        if sum(event["event"] == "verdict" for event in events) == 20:
            made.kill(hung, signal.SIGSTOP)
    try:
        assert finished_once(events, names)["state"] == "passed"
    finally:
        made.kill(hung, signal.SIGCONT)
    made.agreed(*NAMES)


def test_a_drained_node_leaves_and_the_run_goes_on(made, tmp_path):
    names = slow_suite(tmp_path / "suite")
    coordinator = made.coordinator(*NAMES)
    watcher = next(name for name in NAMES if name != coordinator)
    run = made.detached(tmp_path / "suite", coordinator)
    events: list[dict[str, Any]] = []
    for event in made.events("watch", run, home=watcher):
        events.append(event)
        if sum(event["event"] == "verdict" for event in events) == 20:
            made.nodes[coordinator].send_signal(signal.SIGTERM)
    assert finished_once(events, names)["state"] == "passed"
    assert made.nodes[coordinator].wait(60) == 0
    attempts = {event["attempt"] for event in events if event["event"] == "verdict"}
    assert attempts == {1}, "a drain costs no test an attempt"

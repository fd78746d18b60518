"""What is pinned survives real nodes: one is killed, one loses its blocks, one its whole home."""

import json
import shutil
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.processes.lab import PATIENCE, Lab, lab

pytestmark = [pytest.mark.processes, pytest.mark.timeout(240)]

NAMES = ("a", "b", "c")
GRACE = ("--replica-grace", "4")
SUITE = "def test_one(): pass\ndef test_two(): print('said')\n"


def pins(made: Lab, home: str) -> dict[str, dict[str, Any]]:
    """By root, as the coordinator tells; nothing while there is none. Asked without a command, since it is often."""
    api = json.loads((made.home(home) / "api.json").read_text())
    request = urllib.request.Request(f"{api['url']}/api/pins", headers={"authorization": f"Bearer {api['token']}"})
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        document = json.load(answer)
    return {pin["cid"]: pin for pin in document["pins"]} if document["agreed"] else {}


def holders(pin: dict[str, Any]) -> set[str]:
    return {holder["peer"] for holder in pin["holders"] if holder["state"] == "alive"}


def replicated(made: Lab, home: str, without: str = "") -> dict[str, dict[str, Any]]:
    """The pins, once each is on as many living nodes as it is to be, `without` none of them."""
    found: dict[str, dict[str, Any]] = {}

    def done() -> bool:
        found.clear()
        found.update(pins(made, home))
        return bool(found) and all(
            not pin["under_replicated"] and len(holders(pin)) >= 2 and without not in holders(pin)
            for pin in found.values()
        )

    made.until(done, "every pin is on two nodes")
    return found


def written(made: Lab, report: str, home: str, out: Path) -> list[str]:
    """The tests of a report, fetched by a node."""
    made.mesh("results", report, "-o", str(out), home=home)
    return [entry["test"] for entry in json.loads((out / "report.json").read_text())["tests"]]


def test_no_report_is_lost_with_any_one_node(tmp_path: Path) -> None:
    with lab(tmp_path) as made:
        made.start("a", *GRACE)
        ticket = made.ticket("a")
        for name in NAMES[1:]:
            made.start(name, "--join", ticket, *GRACE)
        made.agreed(*NAMES)
        ended = list(made.events("run", str(made.suite("kept", SUITE)), home="b"))[-1]
        report, tests = ended["report"], ["test_kept.py::test_one", "test_kept.py::test_two"]
        found = replicated(made, "c")
        assert found.keys() == {report, ended["bundle"], ended["manifest"]}
        assert made.mesh("pin", "rm", ended["bundle"], home="a").stdout.endswith(f"the bundle of run {ended['run']}\n")

        dead = made.coordinator(*NAMES)  # who has a copy of all that was reported to it
        peer = made.peer(dead)
        assert peer in holders(found[report])
        left = [name for name in NAMES if name != dead]
        made.kill(dead)
        assert replicated(made, left[0], without=peer).keys() == {report, ended["manifest"]}

        shutil.rmtree(made.home(dead))
        made.start(dead, "--join", made.ticket(left[0]), *GRACE)
        made.ticket(dead)
        assert written(made, report, dead, tmp_path / "first") == tests
        assert f"pinned {report}, on " in made.mesh("pin", "add", report, "--replicas", "3", home=dead).stdout
        made.until(lambda: len(holders(pins(made, left[0])[report])) == 3, "a third node keeps it")

        damaged, other = left
        made.kill(damaged)
        shutil.rmtree(made.home(damaged) / "blocks")
        made.start(damaged, *GRACE)
        made.ticket(damaged)
        made.until(lambda: "roots that this node was to keep are lost" in made.logs(), "it says what it lost")
        replicated(made, other)
        assert written(made, report, damaged, tmp_path / "second") == tests
        shown = made.mesh("pin", "ls", home=other).stdout
        assert f"{report}  3/3  report of run {ended['run']}, user" in shown

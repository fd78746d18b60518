"""Three hosts, in network namespaces: the coordinator's link fails in the middle of a run and comes back."""

from typing import Any

import pytest

from tests.processes.lab import Lab, finished_once, lab, slow_suite
from tests.processes.namespaces import hosts

pytestmark = [pytest.mark.processes, pytest.mark.namespaces, pytest.mark.timeout(300)]

NAMES = ("a", "b", "c")


class Terms:
    """Who coordinated in which term, by what any node ever said."""

    def __init__(self, made: Lab) -> None:
        self._made = made
        self.said: dict[int, set[str]] = {}

    def look(self) -> None:
        for name in NAMES:
            status = self._made.status(name)
            if status is not None and status["agreed"] and status["coordinator"]:
                self.said.setdefault(status["term"], set()).add(status["coordinator"])


def test_the_coordinators_link_fails_and_returns(tmp_path):
    names = slow_suite(tmp_path / "suite")
    with hosts(*NAMES) as lan, lab(tmp_path) as made:
        made.prefix = {name: lan.within(name) for name in NAMES}
        made.form(*NAMES)
        terms = Terms(made)
        terms.look()
        coordinator = made.coordinator(*NAMES)
        watcher, other = (name for name in NAMES if name != coordinator)
        run = made.detached(tmp_path / "suite", other)
        events: list[dict[str, Any]] = []
        cut = False
        for event in made.events("watch", run, home=watcher):
            events.append(event)
            if not cut and sum(event["event"] == "verdict" for event in events) >= 20:
                lan.cut(coordinator)
                cut = True
                terms.look()
        assert cut
        assert finished_once(events, names)["state"] == "passed"
        terms.look()
        lan.join(coordinator)
        made.agreed(*NAMES)
        terms.look()
        assert all(len(coordinators) == 1 for coordinators in terms.said.values()), terms.said
        assert len(terms.said) >= 2
        again = list(made.events("watch", run, home=coordinator))
        assert [e["test"] for e in again if e["event"] == "verdict"] == [
            e["test"] for e in events if e["event"] == "verdict"
        ], "the node that was cut off tells the same story"

"""The mesh as it is watched: a status, moved on by the feed's events."""

import copy

import pytest

from mesh.views.watching import FAILURES_MAX, RUNS_MAX, Watching, position

A, B = "12D3KooWaaaaaaaa", "12D3KooWbbbbbbbb"


def node(peer: str, name: str, state: str = "alive") -> dict[str, object]:
    return {"peer": peer, "name": name, "state": state, "slots": 2, "busy": 1}


def mesh(coordinator: str | None = B, agreed: bool = True, dead: bool = False) -> dict[str, object]:
    nodes = [node(A, "alpha", "dead" if dead else "alive"), node(B, "beta")]
    return {"coordinator": coordinator, "term": 3, "voters": [A, B], "agreed": agreed, "as_of": 100.0, "nodes": nodes}


def progress(run: str, at: float, done: int, tests: int, *bad: int) -> dict[str, object]:
    told = [{"index": index, "outcome": "failed", "worker": A, "attempt": 1} for index in bad]
    counts = {"passed": done - len(bad), "failed": len(bad)}
    return {"run": run, "at": at, "state": "running", "done": done, "tests": tests, "counts": counts, "bad": told}


@pytest.fixture
def watching() -> Watching:
    made = Watching()
    made.take_status({"mesh": "m", **mesh(), "runs": [{"run": "7", "state": "passed", "name": "old", "tests": 1}]})
    return made


def test_a_run_goes_by(watching: Watching) -> None:
    watching.take("run-submitted", {"run": "9", "name": "suite", "project": "p", "priority": 50, "at": 10.0})
    watching.take("run-leased", {"run": "9", "worker": A, "tests": 0, "collects": True})
    assert [run["state"] for run in watching.open_runs()] == ["collecting"]
    watching.take("run-collected", {"run": "9", "tests": 30, "at": 11.0})
    watching.take("run-progress", progress("9", 12.0, 5, 30))
    assert watching.seconds_left(watching.runs["9"], 12.0) is None, "one moment tells no pace"
    watching.take("run-progress", progress("9", 14.0, 15, 30, 3, 4))
    assert watching.seconds_left(watching.runs["9"], 14.0) == pytest.approx(3.0)
    assert [(one.index, one.run, watching.name_of(one.worker)) for one in watching.failures] == [
        (3, "9", "alpha"), (4, "9", "alpha"),
    ]  # fmt: skip
    watching.take_queue({"runs": [{"run": "9", "eta_seconds": 42.0}], "by_reason": [{"text": "a slot", "tests": 15}]})
    assert watching.seconds_left(watching.runs["9"], 14.0) == 42.0
    assert position(watching.runs["9"]) == "15 of 30 tests, 2 failed"
    watching.take("run-finished", {"run": "9", "state": "failed", "counts": {"failed": 2, "passed": 28}, "tests": 30})
    assert not watching.open_runs()
    assert [run["run"] for run in watching.finished_runs(5)] == ["9", "7"]


def test_failures_of_before_are_asked_for_once(watching: Watching) -> None:
    watching.take("run-progress", {**progress("9", 1.0, 3, 5, 1), "bad": []})
    assert watching.failing_unseen() == ["9"]
    watching.take_bad("9", [{"index": 1, "outcome": "failed", "worker": None, "test": "t.py::test_1"}])
    watching.take("run-progress", progress("9", 1.0, 4, 5, 2))
    assert watching.failing_unseen() == []
    assert [one.test for one in watching.failures] == ["t.py::test_1", ""]
    assert [one.index for one in watching.unnamed(9)] == [2]


def test_the_coordinator_is_first_and_the_dead_are_last(watching: Watching) -> None:
    assert [one["name"] for one in watching.nodes] == ["beta", "alpha"]
    watching.take("mesh", mesh(coordinator=None, dead=True))
    assert [one["name"] for one in watching.nodes] == ["beta", "alpha"]
    assert watching.name_of("12D3KooWsomebodyelse") == "…bodyelse"
    assert watching.name_of(None) == ""


def test_what_is_kept_is_bounded(watching: Watching) -> None:
    for run in range(RUNS_MAX + 50):
        watching.take("run-submitted", {"run": str(run), "name": "x", "at": 1.0})
    watching.take("run-progress", progress("549", 1.0, 600, 600, *range(200)))
    assert (len(watching.runs), len(watching.failures)) == (RUNS_MAX, FAILURES_MAX)
    watching.take("something-new", {"x": 1})


def test_lines_say_what_changed(watching: Watching) -> None:
    def said(event: str, data: dict[str, object]) -> list[str]:
        before = copy.copy(watching)
        watching.take(event, data)
        return list(watching.lines(event, data, before))

    assert said("mesh", mesh()) == []
    assert said("mesh", mesh(dead=True)) == ["alpha is dead"]
    assert said("mesh", mesh(coordinator=A, agreed=False, dead=True)) == [
        "alpha coordinates, in term 3",
        "no quorum: nothing is decided, and what is told here may be old",
    ]
    assert said("mesh", mesh(coordinator=A)) == ["there is a quorum again", "alpha is alive"]
    assert said("run-submitted", {"run": "9", "name": "a\x1bb", "at": 1.0}) == [
        "run 9 a\N{REPLACEMENT CHARACTER}b is submitted"
    ]
    assert said("run-collected", {"run": "9", "tests": 1, "at": 1.0}) == ["run 9 has 1 test"]
    lost = {"run": "9", "lease": "4", "worker": A, "tests": 2, "why": "lost"}
    assert said("lease-ended", lost) == ["alpha is lost with 2 tests of run 9"]
    assert said("run-finished", {"run": "9", "state": "error", "tests": 1, "counts": {}, "reason": "why"}) == [
        "run 9 error: 0 of 1 test (why)"
    ]

"""What `mesh plan` shows."""

from typing import Any

import pytest

from mesh.scheduler.feasibility import Need, Reason
from mesh.scheduler.rehearsal import Outcome, Share
from mesh.scheduler.waiting import Help, Waiting
from mesh.state.model import Run
from mesh.views.plans import NODES_SHOWN_MAX, plan_document, plan_lines, run_document
from protocols.ids import Cid, PeerId, RunId
from protocols.manifests import RunSpec

SPEC = RunSpec(Cid("b"), "radio", "radio", PeerId("c"))
ERROR = {
    "run": "12",
    "median_relative": 0.0812,
    "tests": 40,
    "under_upper_estimate": 0.925,
    "pace": 1.1,
    "median_relative_at_pace": 0.05,
}
BEFORE = Run(RunId(12), b"n", SPEC, submitted_at=100.0, tests=40, finished_at=112.5)


def asked(**changes: Any) -> dict[str, Any]:
    fields = {"spec": SPEC, "source": "run", "tests": 40, "seconds": 61.0, "known": True, "before": BEFORE}
    return run_document(**{**fields, "error": ERROR, **changes})


def share(name: str, **changes: Any) -> Share:
    fields: dict[str, Any] = {"slots": 2, "tests": 20, "seconds": 30.0, "first": 0.0, "last": 16.0, **changes}
    return Share(PeerId(name), f"lab-{name}", **fields)


def outcome(*shares: Share, **changes: Any) -> Outcome:
    fields = {"tests": 40, "done": 40, "makespan": 16.2, "bound": 15.25, "waiting": (), **changes}
    return Outcome(shares, **fields)


def test_the_document_has_all_that_a_script_needs() -> None:
    waiting = Waiting(RunId(99), "gpu", 4, 0.0, (Reason(PeerId("a"), "lab-a", "has no gpu"),), Need(("gpu",)))
    document = plan_document(outcome(share("a"), waiting=(waiting,)), [asked()], others=2)
    assert document["runs"] == [
        {
            "project": "radio",
            "python": "",
            "tests": 40,
            "source": "run",
            "durations": "history",
            "expected_seconds": 61.0,
            "last_run": {"run": "12", "tests": 40, "wall_seconds": 12.5},
            "prediction_error": ERROR,
        }
    ]
    assert {key: document[key] for key in ("tests", "placed", "makespan_seconds", "lower_bound_seconds", "cut")} == {
        "tests": 40,
        "placed": 40,
        "makespan_seconds": 16.2,
        "lower_bound_seconds": 15.25,
        "cut": False,
    }
    (node,) = document["nodes"]
    assert (node["peer"], node["name"], node["tests"], node["busy_seconds"], node["last_seconds"]) == (
        ("a", "lab-a", 20, 30.0, 16.0)
    )
    (told,) = document["waiting"]
    assert (told["requirement"], told["tests"], told["capable"]) == ("gpu", 4, False)


def test_the_lines() -> None:
    help = Help("node", "start a worker with gpu")
    reason = Reason(PeerId("a"), "lab-a", "has no gpu")
    waiting = Waiting(RunId(99), "gpu", 1, 0.0, (reason,), Need(("gpu",)), helps=(help,))
    made = outcome(share("a"), share("b", seconds=31.0), share("c", tests=0, seconds=0.0), waiting=(waiting,))
    assert plan_lines(plan_document(made, [asked()], others=1)) == [
        "radio: 40 tests as in run 12, 1 min 01 s of work, by earlier runs",
        "  its last run, 12, took 12.5 s",
        "  half of run 12's tests took within 8% of what was expected (5% at its own pace, 1.10 of the expected)"
        ", and 92% at most the upper estimate",
        "node   slots  tests  busy  from  to\n"
        "lab-b      2     20  31 s  0 ms  16 s\n"
        "lab-a      2     20  30 s  0 ms  16 s".replace("  to", "    to"),
        "1 node would get nothing of it",
        "about 16.2 s for the tests; no schedule on these nodes is under 15.2 s; collection, a first fetch of the "
        "files and the report come on top",
        "1 run of others or before it are reckoned with",
        "1 test would wait for a worker with gpu",
        "  lab-a: has no gpu",
        "what would help:",
        "  start a worker with gpu",
    ]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"source": "collected", "known": False}, "40 tests collected here, 1 min 01 s of work, guessed"),
        ({"source": "files"}, "40 tests by its files"),
        ({"source": "unknown", "tests": 0}, "radio: its tests are unknown"),
    ],
)
def test_where_the_tests_are_known_from(changes: dict[str, Any], said: str) -> None:
    lines = plan_lines(plan_document(outcome(), [asked(error=None, before=None, **changes)], others=0))
    assert said in lines[0]
    assert not any(line.startswith("  ") for line in lines)


def test_many_nodes_and_a_rehearsal_that_was_cut() -> None:
    many = [share(f"{number:03}") for number in range(NODES_SHOWN_MAX + 5)]
    lines = plan_lines(plan_document(outcome(*many, is_cut=True), [asked()], others=0))
    assert "and 5 more (--json has all)" in lines
    assert any(line.startswith("at least about 16.2 s") for line in lines)

"""What `mesh why` is told of waiting tests: every worker's reason, and what would help."""

import pytest
from scheduler_rig import GPU, PLAIN, Rig, members

from mesh.scheduler.outlook import Outlook
from mesh.scheduler.waiting import Waiting
from mesh.state.model import Run, Task
from mesh.views import documents
from protocols.ids import PeerId
from protocols.manifests import Dependency, Needs


@pytest.fixture
def rig() -> Rig:
    return Rig()


def outlook(rig: Rig) -> Outlook:
    made = rig.plan()
    rig.follow(made)
    made = rig.plan()
    desks = {peer: kept.desk for peer, kept in rig.memory.desks.items()}
    return Outlook(rig.state, rig.fleet, made.waiting, desks, rig.now)


def names(run: Run) -> list[str]:
    return [f"t.py::test_{number}" for number in range(run.tests)]


def reasons(waiting: Waiting | None) -> dict[str, str]:
    assert waiting is not None
    return {reason.name: reason.text for reason in waiting.reasons}


def test_a_test_that_nobody_can_do_and_one_that_is_only_early(rig: Rig) -> None:
    rig.worker("a", slots=1, capabilities=PLAIN)
    rig.worker("b", slots=1, capabilities={**PLAIN, "room": "5"})
    tasks = [Task(0, 60), Task(60, 4, 1), Task(64, 20, 2)]
    requirements = (("", ""), ("os == linux and rack == 7", ""), ("room == 5", ""))
    run = rig.running(tasks, [1.0] * 84, requirements=requirements)
    look = outlook(rig)
    lost = look.of_test(run, 62, names(run))
    assert reasons(lost) == {"a": "has no rack", "b": "has no rack"}
    assert lost is not None
    assert [help.kind for help in lost.helps] == ["label", "node"]
    held = {test for lease in rig.state.leases.values() for test in members(lease.open)}
    early = look.of_test(run, next(test for test in range(64, 84) if test not in held), names(run))
    assert early is not None
    assert early.is_busy
    said = reasons(early)
    assert said["a"] == "has no room"
    assert said["b"].startswith("could take it, and is busy for about ")
    (help,) = early.helps
    assert (help.kind, help.nodes) == ("wait", ("b",))
    assert help.text.startswith("wait: node b finishes in about ")
    assert look.of_test(run, next(iter(held)), names(run)) is None, "it is with a worker"


def test_a_run_requirement_by_requirement(rig: Rig) -> None:
    rig.worker("a", slots=1, capabilities=PLAIN)
    run = rig.running([Task(0, 90), Task(90, 10, 1)], [1.0] * 100, requirements=(("", ""), ("gpu", "")))
    waiting = outlook(rig).of_run(run)
    assert [(one.requirement, one.is_busy, one.wanted is not None) for one in waiting] == [
        ("", True, False),
        ("gpu", False, True),
    ]
    assert sum(one.tests for one in waiting) == run.pending_tests
    told = documents.why_run(run, waiting, {}, rig.now)
    lines = told["explanation"]
    assert "10 tests wait for a worker with gpu" in lines
    assert lines[lines.index("  a: has no gpu") + 1 :] == ["what would help:", "  start a worker with gpu"]
    assert told["waiting"][1]["helps"] == [
        {"kind": "node", "text": "start a worker with gpu", "nodes": (), "seconds": None}
    ]


def test_a_run_that_nobody_can_collect(rig: Rig) -> None:
    rig.worker("a", capabilities=PLAIN)
    run = rig.submit(requires="label.rack == 7")
    (waiting,) = outlook(rig).of_run(run)
    assert (waiting.tests, reasons(waiting)) == (0, {"a": "has no label.rack"})
    assert waiting.helps[0].text == "the node would do if label rack=7 were set: restart a with --label rack=7"


def test_a_run_that_comes_after_another(rig: Rig) -> None:
    first = rig.submit("1", requires="gpu")
    second = rig.submit("2", after=(first.id,))
    (waiting,) = outlook(rig).of_run(second)
    assert [help.text for help in waiting.helps] == [f"wait for run {first.id} to end"]


def test_a_lock_and_a_device_that_others_hold(rig: Rig) -> None:
    rig.worker("a", slots=4, capabilities=GPU)
    needs = (Needs(locks=("camera",)), Needs(gpu=1000))
    tasks = [Task(0, 40), Task(40, 40, 1)]
    run = rig.running(tasks, [5.0] * 80, requirements=(("", ""), ("", "")), needs=needs)
    look = outlook(rig)
    locked = look.of_test(run, 39, names(run))
    assert locked is not None
    assert [holder.lock for holder in locked.locks] == ["camera"]
    assert locked.helps[0].text.startswith(f"wait: camera comes free when run {run.id} has done with it on a")
    taken = look.of_test(run, 79, names(run))
    assert reasons(taken) == {"a": "has no gpu free"}


def test_a_test_that_waits_for_another_test(rig: Rig) -> None:
    rig.worker("a", slots=1)
    run = rig.running([Task(0, 1), Task(1, 1)], [1.0, 1.0], waits=(Dependency(1, 1, 0, 1),))
    waiting = outlook(rig).of_test(run, 1, names(run))
    assert reasons(waiting) == {"t.py::test_0": "has no verdict yet, and this test depends on it"}
    assert waiting is not None
    assert [help.text for help in waiting.helps] == ["wait for t.py::test_0"]
    assert PeerId("") in {reason.peer for reason in waiting.reasons}

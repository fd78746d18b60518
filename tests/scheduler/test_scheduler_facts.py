"""What requirements may speak of: all of a presence, and what of it may be otherwise soon."""

import pytest

from mesh.coordinator.fleet import Fleet
from mesh.ports import NodeView
from mesh.scheduler.facts import facts, possible
from mesh.scheduler.feasibility import Need, Reason
from mesh.scheduler.fleet import WorkerView
from mesh.scheduler.hopeless import hopeless
from mesh.scheduler.requirements import parse, unmet
from mesh.scheduler.waiting import Waiting
from mesh.state.model import CoordinatorState, Worker
from protocols.ids import PeerId, RunId
from protocols.manifests import Needs
from protocols.presence import NodeState, Presence, Role

GIB = 2**30
A = PeerId("12D3KooWa")


def presence(**changes: object) -> Presence:
    fields = {
        "peer": A,
        "name": "box",
        "role": Role.WORKER,
        "incarnation": 1,
        "sequence": 1,
        "addresses": (),
        "slots": 4,
        "busy": 3,
        "draining": False,
        "capabilities": {
            "memory": 32 * GIB,
            "disk.total": 500 * GIB,
            "cpu.flags": ("avx2", "sse4_2"),
            "browsers": ({"name": "chromium", "version": "126.0"},),
            "gpu": ({"index": 0, "memory": 8 * GIB, "cuda": 12.4}, {"index": 2, "memory": 24 * GIB, "cuda": 12.4}),
            "label.room": "lab 3",
            "room": "lab 3",
        },
        "load": {
            "cpu.percent": 61.5,
            "cpu.load": (2.5, 1.0, 0.5),
            "memory.available": 6 * GIB,
            "disk.free": 90 * GIB,
            "gpu": ({"index": 0, "memory.free": 7 * GIB, "percent": 3.0}, {"index": 2, "memory.free": 2 * GIB}),
        },
        "bundles": (),
        "links": (),
        **changes,
    }
    return Presence(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("name == box and role == worker and peer == 12D3KooWa", ""),
        ("slots >= 4 and busy < 4 and not coordinator", ""),
        ("raft == voter", "has raft , not == voter"),
        ("memory.available >= 6 GiB", ""),
        ("memory.available >= 8GiB", "has memory.available 6.0GiB, not >= 8GiB"),
        ("disk.free > 0.05TiB", ""),
        ("disk.free > 0.1TiB", "has disk.free 90.0GiB, not > 0.1TiB"),
        ("cpu.percent < 70%", ""),
        ("cpu.percent < 50%", "has cpu.percent 61.5, not < 50%"),
        ("cpu.load < 2", "has cpu.load 2.5, not < 2"),
        ("gpu.count == 2 and browsers.count >= 1", ""),
        ("gpu.memory.free >= 7GiB and gpu.percent < 5%", ""),
        ("gpu.memory >= 16GiB and gpu.memory.free >= 2GiB", ""),
        ("gpu.memory >= 16GiB and gpu.memory.free >= 4GiB",
         "has no single gpu with gpu.memory >= 16GiB and gpu.memory.free >= 4GiB"),
        ("chromium in browsers", ""),
        ("browsers.name == chromium and browsers.version >= 120", ""),
        ("firefox in browsers", "has no firefox in browsers"),
        ("avx2 in cpu.flags and room == 'lab 3' and label.room != 'lab 4'", ""),
    ],
)  # fmt: skip
def test_everything_that_presence_tells_can_be_required(text: str, reason: str) -> None:
    assert unmet(parse(text), facts(presence())) == reason


def test_a_label_wins_over_what_has_its_name() -> None:
    found = facts(presence(capabilities={"name": "mine", "gpu": ()}, load={}))
    assert (found["name"], found["gpu"], found["gpu.count"], found["slots"]) == ("mine", (), 0, 4)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("os == linux and room", "os == linux and room"),
        ("cpu.percent < 50", ""),
        ("os == linux and cpu.percent < 50", "os == linux"),
        ("memory.available >= 8GiB and disk.free > 1TiB", "memory >= 8GiB and disk.total > 1TiB"),
        ("memory.available < 8GiB", ""),
        ("gpu.cuda >= 12 and gpu.memory.free >= 8GiB", "gpu.cuda >= 12 and gpu.memory >= 8GiB"),
        ("os == linux or cpu.percent < 50", ""),
        ("os == linux or memory.available > 9GiB", "os == linux or memory > 9GiB"),
        ("not (busy > 2) and room", "room"),
        ("not os == linux", "not os == linux"),
        ("coordinator", ""),
    ],
)
def test_what_changes_by_itself_may_come_to_hold(text: str, left: str) -> None:
    assert possible(parse(text)) == parse(left)


def fleet(capabilities: dict[str, object]) -> dict[PeerId, WorkerView]:
    return {A: WorkerView(A, 1, alive=True, capabilities=capabilities)}  # type: ignore[arg-type]


def ended(requires: str, takes: Needs, capabilities: dict[str, object]) -> bool:
    wanted = Need((requires,), (), takes)
    waiting = Waiting(RunId(1), requires, 3, 0.0, (Reason(A, "box", "has too little"),), wanted)
    return hopeless(waiting, fleet(capabilities)) is not None


def test_a_run_is_not_ended_because_its_workers_are_busy() -> None:
    busy = {"memory": 32 * GIB, "memory.available": 1 * GIB, "cpu.percent": 99.0, "gpu": ({"memory": 8 * GIB},)}
    assert not ended("memory.available >= 8GiB", Needs(), busy)
    assert not ended("memory.available >= 8GiB and cpu.percent < 5", Needs(), busy)
    assert not ended("gpu.memory >= 8GiB and cpu.percent < 5", Needs(gpu=1000), busy)
    assert ended("memory.available >= 64GiB", Needs(), busy)
    assert ended("gpu.memory >= 16GiB and cpu.percent < 5", Needs(), busy)
    assert ended("cpu.percent < 5", Needs(gpu=2000), busy)


def test_the_coordinator_sees_them_and_follows_every_new_presence() -> None:
    state = CoordinatorState(workers={A: Worker(A, "box", 1, 4, registered=1)})
    workers = Fleet(worker_timeout=10.0)
    for sequence, free in enumerate((6 * GIB, 12 * GIB)):
        told = presence(sequence=sequence, load={"memory.available": free})
        view = workers.views(state, {A: NodeView(told, NodeState.ALIVE, 0.0, 1.0, True)}, now=1.0)[A]
        assert view.capabilities["memory.available"] == free
    assert workers.views(state, {}, now=1.0)[A].capabilities == {}

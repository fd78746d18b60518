"""What waits, and for what."""

from mesh.scheduler.feasibility import Need, Reason
from mesh.scheduler.queue import Claim, standings
from mesh.scheduler.waiting import Holder, Waiting
from mesh.state.apply import apply
from mesh.state.model import CoordinatorState
from mesh.views.queue import A_SLOT, COLLECTION, NO_COORDINATOR, OTHERS, queue_document
from protocols.commands import Collected, Found, Grant, Register, Submit, TaskRange
from protocols.ids import Cid, LeaseId, PeerId, RunId, TestIndex
from protocols.manifests import Dependency, Needs, RunSpec

W = PeerId("w")
TREE = Cid("bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi")
FIRST, SECOND, THIRD = RunId(3), RunId(6), RunId(7)


def a_mesh() -> CoordinatorState:
    """Run 3 has 20 tests, of which 4 are leased and the last 5 wait for the first; 6 and 7 are to be collected."""
    state = CoordinatorState()
    for index, command in enumerate(
        (
            Found("m"), Register(W, "w", 1, 2), Submit(b"a", RunSpec(TREE, "one", "p", W), 1.0), Grant(FIRST, W, 1, ()),
            Collected(
                LeaseId(4), TREE, 20, (TaskRange(0, 15), TaskRange(15, 5)), needs=(Needs(),),
                dependencies=(Dependency(15, 5, 0, 1),),
            ),
            Submit(b"b", RunSpec(TREE, "two", "p", W, priority=90), 2.0),
            Submit(b"c", RunSpec(TREE, "three", "p", W, priority=90), 2.0),
            Grant(FIRST, W, 1, (TaskRange(0, 4),)),
        ),
        start=1,
    ):  # fmt: skip
        apply(state, index, command)
    return state


def test_runs_priorities_and_reasons() -> None:
    state = a_mesh()
    claims = (Claim(FIRST, W, "p", 50, held=2.0), Claim(SECOND, W, "p", 90))
    gpu = Need(("gpu",))
    waiting = [
        Waiting(FIRST, "gpu", 6, 1.0, (Reason(W, "w", "has no gpu"),), wanted=gpu),
        Waiting(FIRST, "", 1, 1.0, (), locks=(Holder("camera", FIRST, TestIndex(0), "w"),)),
        Waiting(FIRST, "", 2, 1.0, (), is_busy=True),
        Waiting(SECOND, "arm", 0, 1.0, (Reason(W, "w", "is no arm"),), wanted=Need(("arm",))),
    ]
    made = queue_document(state, {one.run: one for one in standings(claims)}, waiting, {FIRST: 12.5})
    assert [(run["run"], run["place"], run["of"], run["eta_seconds"]) for run in made["runs"]] == [
        ("6", 1, 2, None),
        ("3", 2, 2, 12.5),
        ("7", None, None, None),
    ]
    assert (made["runs"][1]["pending"], made["runs"][1]["leased"]) == (16, 4)
    assert {one["text"]: one["tests"] for one in made["runs"][1]["reasons"]} == {
        "a worker with gpu": 6,
        OTHERS: 5,
        "the lock camera, which others hold": 1,
        A_SLOT: 4,
    }
    assert [run["reasons"] for run in (made["runs"][0], made["runs"][2])] == [
        [{"text": "a worker with arm", "tests": 1}],
        [{"text": COLLECTION, "tests": 1}],
    ]
    assert made["by_priority"] == [
        {"priority": 90, "runs": 2, "pending": 0, "leased": 0},
        {"priority": 50, "runs": 1, "pending": 16, "leased": 4},
    ]
    assert sum(one["tests"] for one in made["by_reason"]) == 18


def test_without_a_coordinator_that_is_what_they_wait_for() -> None:
    made = queue_document(a_mesh(), {}, None, {})
    assert made["by_reason"] == [{"text": NO_COORDINATOR, "tests": 18}]

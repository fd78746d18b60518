"""What the tries of a test say together, and what the log keeps of them."""

import pytest
from state_builder import ALICE, BOB, Builder, complete

from mesh.state.model import NO_WORKER, TRIES_MAX, Task
from mesh.state.snapshot import decode_state, encode_state
from mesh.state.truth import Told, Truth, Try, earlier_tries, truth
from protocols.commands import Complete, RaiseFormat
from protocols.ids import PeerId, TestIndex
from protocols.manifests import Outcome

CAROL = PeerId("carol")
LETTERS = {"P": Outcome.PASSED, "F": Outcome.FAILED, "E": Outcome.ERROR, "S": Outcome.SKIPPED, "X": Outcome.XFAILED}


def tries(text: str) -> list[Try]:
    """ "aF bP": bad on alice, passed on bob; "bPr": after a try in the same process."""
    people = {"a": ALICE, "b": BOB, "c": CAROL, "-": NO_WORKER}
    return [
        Try(people[one[0]], LETTERS[one[1]], number, reruns=one.count("r"))
        for number, one in enumerate(text.split(), start=1)
    ]


@pytest.mark.parametrize(
    ("text", "expected", "blamed"),
    [
        ("aP", None, ()),
        ("aS", None, ()),
        ("aF", Truth.FAILED, ()),
        ("aF aF", Truth.FAILED, ()),
        ("aF bE", Truth.FAILED, ()),
        ("aF -E", Truth.FAILED, ()),
        ("aF aP", Truth.FLAKY, ()),
        ("aF bF aP", Truth.FLAKY, ()),
        ("aPr", Truth.FLAKY, ()),
        ("aF bPr", Truth.FLAKY, ()),
        ("aFr", Truth.FAILED, ()),
        ("aF bP", Truth.HOST, (ALICE,)),
        ("bE aF bF cP", Truth.HOST, (BOB, ALICE)),
        ("aF bS", Truth.HOST, (ALICE,)),
        ("aE bX", Truth.HOST, (ALICE,)),
    ],
)
def test_truth(text: str, expected: Truth | None, blamed: tuple[PeerId, ...]) -> None:
    found = tries(text)
    assert truth(found) == expected
    if expected is not None:
        told = Told(expected, tuple(found))
        assert (told.blamed, told.flaky) == (blamed, not found[-1].outcome.bad)
        names = {ALICE: "rig", BOB: "laptop"}
        assert [one["name"] for one in told.document(names)["attempts"] if one["worker"] == CAROL] == ["…carol"] * (
            text.count("c")
        )


@pytest.fixture
def builder() -> Builder:
    built = Builder()
    built.accept(RaiseFormat(3))
    return built


def test_what_was_bad_is_kept_with_where(builder: Builder) -> None:
    run = builder.running(Task(0, 3), retries=2)
    lease = builder.grant(run.id, ALICE, Task(0, 3))
    tests, outcomes = (TestIndex(2), TestIndex(0), TestIndex(1)), bytes([Outcome.ERROR.code, 0, Outcome.FAILED.code])
    builder.accept(Complete(lease, "bafkone", tests, outcomes, (5, 6, -7)))
    other = builder.grant(run.id, BOB, Task(1, 1), Task(2, 1))
    builder.accept(complete(other, 2, outcome=Outcome.FAILED))
    builder.accept(complete(other, 1))
    assert run.failed_on == {1: (ALICE,), 2: (ALICE, BOB)}
    first = run.tries[0]
    assert (first.chunk, first.worker, first.lease, list(first.tests)) == ("bafkone", ALICE, lease, [1, 2])
    assert (list(first.durations), first.attempts) == ([0, 5], b"\1\1")
    assert earlier_tries(run) == {
        1: [Try(ALICE, Outcome.FAILED, 1)],
        2: [Try(ALICE, Outcome.ERROR, 1), Try(BOB, Outcome.FAILED, 2)],
    }
    assert decode_state(encode_state(builder.state)) == builder.state


def test_only_so_many_are_kept(builder: Builder) -> None:
    run = builder.running(Task(0, 1), retries=100)
    for _ in range(TRIES_MAX + 5):
        builder.accept(complete(builder.grant(run.id, ALICE, Task(0, 1)), 0, outcome=Outcome.FAILED))
    assert (len(run.tries), run.retried) == (TRIES_MAX, {0: TRIES_MAX + 5})


def test_a_log_that_older_nodes_read_keeps_nothing() -> None:
    builder = Builder()
    run = builder.running(Task(0, 1), retries=1)
    builder.accept(complete(builder.grant(run.id, ALICE, Task(0, 1)), 0, outcome=Outcome.FAILED))
    assert (run.tries, run.failed_on, run.retried) == ([], {}, {0: 1})

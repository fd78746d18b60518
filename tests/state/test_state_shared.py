"""Names that tests share over the whole mesh: one holder at a time, and no holder outlives its tests."""

from state_builder import ALICE, BOB, Builder, complete

from mesh.state.model import Run, Task
from mesh.state.snapshot import decode_state, encode_state
from protocols.commands import Cancel, Claim, Expire, Register, Return, Settle
from protocols.ids import Cid, LeaseId, PeerId, RunId, TestIndex

VALUE = Cid("bafkvalue")


def claim(run: RunId, peer: PeerId = ALICE, holder: int = 1, name: str = "db", incarnation: int = 1) -> Claim:
    return Claim(run, name, peer, incarnation, holder)


def running() -> tuple[Builder, Run, LeaseId, LeaseId]:
    builder = Builder()
    run = builder.running(Task(0, 2), Task(2, 2))
    return builder, run, builder.grant(run.id, ALICE, Task(0, 2)), builder.grant(run.id, BOB, Task(2, 2))


def test_one_holder_until_it_settles_and_then_a_value_for_all() -> None:
    builder, run, _, _ = running()
    builder.accept(claim(run.id))
    builder.accept(claim(run.id))  # again, by a retry of the request
    assert "taken" in builder.reject(claim(run.id, holder=2))
    assert "taken" in builder.reject(claim(run.id, BOB))
    assert "not held" in builder.reject(Settle(run.id, "db", BOB, 1, VALUE))
    builder.accept(Settle(run.id, "db", ALICE, 1))
    builder.accept(claim(run.id, BOB, holder=7))
    builder.accept(Settle(run.id, "db", BOB, 7, VALUE))
    assert run.values == {"db": VALUE}
    assert "taken" in builder.reject(claim(run.id))
    assert "not held" in builder.reject(Settle(run.id, "db", BOB, 7, Cid("other")))
    other = builder.running(Task(0, 1), nonce=b"2")
    builder.grant(other.id, ALICE, Task(0, 1))
    builder.accept(claim(other.id))


def test_a_claim_ends_with_its_workers_last_test_whatever_ends_that() -> None:
    ends = (
        lambda lease: [complete(lease, 0, 1)],
        lambda lease: [Expire(lease, "lost")],
        lambda lease: [Return(lease, (TestIndex(0), TestIndex(1)))],
        lambda lease: [Register(ALICE, "alice", 2, 2)],
    )
    for end in ends:
        builder, run, lease, _ = running()
        builder.accept(claim(run.id))
        for command in end(lease):
            builder.accept(command)
        assert not builder.state.claims
        builder.accept(claim(run.id, BOB))
        assert "not held" in builder.reject(Settle(run.id, "db", ALICE, 1, VALUE))
        assert "holds no test" in builder.reject(claim(run.id, incarnation=1, name="more"))
    builder, run, lease, _ = running()
    builder.accept(claim(run.id))
    builder.accept(complete(lease, 0))
    assert list(builder.state.claims) == ["db"], "it still has a test"
    builder.accept(Cancel(run.id, "enough"))
    assert not builder.state.claims


def test_both_survive_a_snapshot() -> None:
    builder, run, _, _ = running()
    builder.accept(claim(run.id))
    builder.accept(claim(run.id, BOB, name="other"))
    builder.accept(Settle(run.id, "other", BOB, 1, VALUE))
    restored = decode_state(encode_state(builder.state))
    assert restored.claims == builder.state.claims
    assert restored.runs[run.id].values == {"other": VALUE}

"""What is counted between looks: each verdict once, by whoever looks, and nothing of before."""

from state_builder import ALICE, BOB, Builder, complete

from mesh.state.ledger import Ledger
from mesh.state.model import Task
from protocols.commands import Cancel, Expire, Finish
from protocols.manifests import Outcome


def test_each_verdict_is_counted_once_whenever_one_looks() -> None:
    builder, ledger, seldom = Builder(), Ledger(), Ledger()
    run = builder.running(Task(0, 4))
    ledger.look(builder.state)
    builder.accept(complete(builder.grant(run.id, ALICE, Task(0, 2)), 0, 1))
    ledger.look(builder.state)
    builder.accept(complete(builder.grant(run.id, BOB, Task(2, 2)), 2, 3, outcome=Outcome.FAILED))
    builder.accept(Finish(run.id, None, 1, 200.0))
    for looks in (ledger, ledger, seldom):
        looks.look(builder.state)
    for counted in (ledger, seldom):
        assert counted.outcomes[:3] == [2, 2, 0]
        assert dict(counted.ended) == {"failed": 1}
    builder.submit(nonce=b"other")
    cancelled = builder.submit(nonce=b"another")
    builder.accept(Cancel(cancelled.id, "enough"))
    builder.accept(Finish(cancelled.id, None, 2, 201.0))
    ledger.look(builder.state)
    assert dict(ledger.ended) == {"failed": 1, "cancelled": 1}


def test_what_was_before_a_node_coordinated_is_another_ones() -> None:
    builder, ledger = Builder(), Ledger()
    run = builder.running(Task(0, 3))
    lease = builder.grant(run.id, ALICE, Task(0, 3))
    builder.accept(complete(lease, 0))
    builder.accept(Expire(lease, "gone"))
    ledger.begin(builder.state)
    assert (sum(ledger.outcomes), ledger.expiries) == (0, 0)
    again = builder.grant(run.id, BOB, Task(1, 1, losses=1))
    builder.accept(complete(again, 1))
    lost = builder.grant(run.id, ALICE, Task(2, 1, losses=1))
    builder.accept(Expire(lost, "gone"))
    ledger.look(builder.state)
    assert (ledger.outcomes[0], ledger.expiries) == (1, 1)
    ledger.begin(builder.state)
    assert (ledger.outcomes[0], ledger.expiries) == (1, 1), "a second time leaves what was counted the first time"

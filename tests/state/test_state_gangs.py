"""Tests that need several hosts at once, in the log: all of their hosts are taken together, and free together."""

from collections.abc import Iterator

import pytest
from state_builder import ALICE, BOB, MANIFEST, Builder, complete

from mesh.state.model import LOSSES_MAX, Run, RunPhase, Task
from mesh.state.snapshot import decode_state, encode_state
from protocols.commands import Cancel, Collected, Expire, Grant, Hedge, Preempt, Register, Return
from protocols.ids import LeaseId, PeerId, TestIndex
from protocols.manifests import NOTHING, Companion, Device, Needs

CAROL = PeerId("carol")
PAIR = Needs(hosts=2)


@pytest.fixture
def built() -> Iterator[Builder]:
    made = Builder()
    for peer in (ALICE, BOB, CAROL):
        made.worker(peer)
    yield made
    again = decode_state(encode_state(made.state))
    assert again == made.state
    assert encode_state(again) == encode_state(made.state)


def collected(built: Builder, *tasks: Task, needs: tuple[Needs, ...] = (PAIR,), **changes: object) -> Run:
    run = built.submit(bytes([len(built.state.nonces)]), **changes)
    requirements = (("", ""),) * (1 + max(task.requirement for task in tasks))
    lease = built.grant(run.id, ALICE)
    built.accept(Collected(lease, MANIFEST, sum(task.count for task in tasks), tasks, requirements, needs))
    return run


def gang(run: Run, task: Task, leader: PeerId, *others: PeerId, incarnation: int = 1) -> Grant:
    companions = tuple(Companion(peer, incarnation) for peer in others)
    return Grant(run.id, leader, 1, (task,), (), companions)


def opened(built: Builder, grant: Grant) -> LeaseId:
    lease = built.accept(grant).lease
    assert lease is not None
    return lease


def hosted(built: Builder) -> dict[str, list[int]]:
    return {worker.peer: list(worker.hosted) for worker in built.state.workers.values() if worker.hosted}


def test_a_gang_has_all_its_hosts_by_one_grant_and_leaves_them_by_one_verdict(built: Builder) -> None:
    run = collected(built, Task(0, 2))
    assert built.reject(gang(run, Task(0, 1), ALICE)) == "2 hosts are needed, not 1"
    assert built.reject(gang(run, Task(0, 1), ALICE, BOB, CAROL)) == "2 hosts are needed, not 3"
    assert built.reject(gang(run, Task(0, 1), ALICE, ALICE)) == "a host is named twice"
    assert built.reject(gang(run, Task(0, 2), ALICE, BOB)) == "a test that needs several hosts is leased alone"
    assert "not registered as that process" in built.reject(gang(run, Task(0, 1), ALICE, BOB, incarnation=2))
    assert "not registered" in built.reject(gang(run, Task(0, 1), ALICE, PeerId("dave")))
    lease = opened(built, gang(run, Task(0, 1), ALICE, BOB))
    assert built.state.leases[lease].hosts == (ALICE, BOB)
    assert hosted(built) == {BOB: [lease]}
    built.accept(complete(lease, 0))
    assert hosted(built) == {}
    built.accept(complete(opened(built, gang(run, Task(1, 1), BOB, CAROL)), 1))
    assert run.phase is RunPhase.REPORTING


def test_what_is_kept_on_a_companion_is_taken_for_everybody(built: Builder) -> None:
    run = collected(built, Task(0, 2), Task(2, 9, 1), needs=(PAIR, NOTHING))
    lease = opened(built, gang(run, Task(0, 1), ALICE, BOB))
    full = "worker host-bob keeps slots for a test of several hosts, and has no other left"
    assert built.reject(Grant(run.id, BOB, 1, (Task(2, 2, 1),))) == full, "two slots, and one is kept"
    one = opened(built, Grant(run.id, BOB, 1, (Task(2, 1, 1),)))
    assert built.reject(Grant(run.id, BOB, 1, (Task(3, 1, 1),))) == full
    assert built.reject(gang(run, Task(1, 1), BOB, CAROL)) == full
    assert "has no slot free" in built.reject(gang(run, Task(1, 1), CAROL, BOB))
    built.accept(Grant(run.id, ALICE, 1, (Task(3, 8, 1),)))
    assert "has no slot free" in built.reject(gang(run, Task(1, 1), CAROL, ALICE)), "they wait for her slots"
    built.accept(complete(one, 2))
    built.accept(gang(run, Task(1, 1), CAROL, BOB))
    built.accept(complete(lease, 0))


def test_devices_are_kept_on_each_host(built: Builder) -> None:
    run = collected(built, Task(0, 1), Task(1, 1, 1), needs=(Needs(gpu=1000, hosts=2), Needs(gpu=500)))
    alone = Grant(run.id, ALICE, 1, (Task(0, 1),), (Device("g0"),), (Companion(BOB, 1),))
    assert built.reject(alone) == "1 GPUs are needed, not 0"
    lease = opened(
        built, Grant(run.id, ALICE, 1, (Task(0, 1),), (Device("g0"),), (Companion(BOB, 1, (Device("g1"),)),))
    )
    share = Grant(run.id, BOB, 1, (Task(1, 1, 1),), (Device("g1", 500),))
    assert "g1 of worker host-bob is held" in built.reject(share)
    built.accept(complete(lease, 0))
    built.accept(share)


def test_a_gang_ends_with_any_of_its_hosts_and_its_late_verdict_is_refused(built: Builder) -> None:
    run = collected(built, Task(0, 1))
    lease = opened(built, gang(run, Task(0, 1), ALICE, BOB))
    assert built.reject(Expire(lease, "gone", CAROL)) == f"worker carol is no host of lease {lease}"
    built.accept(Expire(lease, "gone", BOB))
    assert [(task.first, task.losses) for task in run.pending] == [(0, 1)]
    assert (built.state.workers[ALICE].losses, built.state.workers[BOB].losses) == (0, 1)
    assert "not open" in built.reject(complete(lease, 0))
    lease = opened(built, gang(run, Task(0, 1, 0, 1), ALICE, CAROL))
    assert built.accept(Register(CAROL, "host-carol", 2, 2)).closed == (lease,)
    assert "not open" in built.reject(complete(lease, 0))
    assert hosted(built) == {}
    assert run.done == 0


def test_a_gang_is_blamed_only_if_it_had_all_its_hosts_to_itself(built: Builder) -> None:
    """A companion that dies in company says nothing of the test; one that dies with it alone is like a leader."""
    run = collected(built, Task(0, 1), Task(1, 1, 1), needs=(PAIR, NOTHING))
    for losses in range(LOSSES_MAX + 1):
        other = opened(built, Grant(run.id, BOB, 1, (Task(1, 1, 1),)))
        lease = opened(built, gang(run, Task(0, 1, 0, min(losses, LOSSES_MAX - 1)), ALICE, BOB))
        assert not built.state.leases[lease].alone
        assert not built.state.leases[other].alone
        built.accept(Expire(lease, "gone", BOB))
        built.accept(Return(other, (TestIndex(1),)))
    lease = opened(built, gang(run, Task(0, 1, 0, LOSSES_MAX - 1), ALICE, BOB))
    assert built.state.leases[lease].alone
    built.accept(Expire(lease, "gone", BOB))
    assert run.pending[0].losses == LOSSES_MAX


def test_whatever_ends_a_gang_frees_its_companions(built: Builder) -> None:
    run = collected(built, Task(0, 1))
    taker = collected(built, Task(0, 1), needs=(), priority=90)
    built.accept(Preempt(opened(built, gang(run, Task(0, 1), ALICE, BOB)), taker.id))
    assert (hosted(built), run.preempted) == ({}, {0: 1})
    built.accept(Return(opened(built, gang(run, Task(0, 1), ALICE, BOB)), (TestIndex(0),)))
    assert hosted(built) == {}
    lease = opened(built, gang(run, Task(0, 1), ALICE, BOB))
    assert built.accept(Register(BOB, "host-bob", 1, 1)).closed == (lease,), "the same process, with fewer slots"
    assert (hosted(built), run.pending) == ({}, [Task(0, 1)])
    built.accept(gang(run, Task(0, 1), ALICE, BOB))
    built.accept(Cancel(run.id, "enough"))
    assert hosted(built) == {}


def test_nobody_hedges_a_gang_nor_on_a_slot_that_is_kept(built: Builder) -> None:
    run = collected(built, Task(0, 2), Task(2, 2, 1), needs=(PAIR, NOTHING), hedge=True)
    lease = opened(built, gang(run, Task(0, 1), ALICE, BOB))
    assert "is there once" in built.reject(Hedge(lease, TestIndex(0), CAROL, 1))
    opened(built, gang(run, Task(1, 1), CAROL, BOB))
    plain = opened(built, Grant(run.id, ALICE, 1, (Task(2, 1, 1),)))
    assert "keeps slots" in built.reject(Hedge(plain, TestIndex(2), BOB, 1))
    built.accept(Hedge(plain, TestIndex(2), CAROL, 1))


def test_a_collection_takes_one_host(built: Builder) -> None:
    run = built.submit(b"x")
    assert "needs one host" in built.reject(Grant(run.id, ALICE, 1, (), (), (Companion(BOB, 1),)))

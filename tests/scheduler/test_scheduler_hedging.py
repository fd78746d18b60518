"""Stragglers are run elsewhere, too: which, where, and what is left alone."""

import pytest
from scheduler_rig import GPU, Rig, members

from mesh.scheduler.durations import ByLength, Estimates
from mesh.scheduler.hedging import HEDGE_SECONDS_MIN, SOON_SECONDS, STRAGGLE_FACTOR
from mesh.scheduler.plan import Plan
from mesh.state.model import Lease, Run, Task
from protocols.commands import Claim, Grant, Hedge, Return
from protocols.ids import PeerId, TestIndex
from protocols.manifests import Dependency, Needs, Outcome

LONG = 1000.0


@pytest.fixture
def rig() -> Rig:
    made = Rig()
    for name in "ab":
        made.worker(name, slots=1)
    return made


def begin(rig: Rig, tests: int = 1, seconds: float = 1.0, worker: str = "a", **changes: object) -> tuple[Run, Lease]:
    """A run whose tests are all held by one worker."""
    run = rig.running([Task(0, tests)], [seconds] * tests, **{"hedge": True, **changes})
    return run, hold(rig, run, worker, Task(0, tests))


def hold(rig: Rig, run: Run, worker: str, *tasks: Task) -> Lease:
    lease = rig.accept(Grant(run.id, PeerId(worker), rig.fleet[PeerId(worker)].incarnation, tasks)).lease
    assert lease is not None
    return rig.state.leases[lease]


def runs_for(rig: Rig, lease: Lease, seconds: float, test: int = 0, **view: object) -> None:
    rig.see(lease.worker, slots=1, **{"running": ((lease.id, TestIndex(test), seconds),), **view})


def hedged(plan: Plan) -> list[tuple[int, int, str]]:
    return [(one.lease, one.test, one.worker) for one in plan.hedges]


@pytest.mark.parametrize(
    ("expected", "seconds", "is_hedged"),
    [
        (1.0, HEDGE_SECONDS_MIN, False),
        (1.0, HEDGE_SECONDS_MIN + 0.1, True),
        (60.0, STRAGGLE_FACTOR * 60.0, False),
        (60.0, STRAGGLE_FACTOR * 60.0 + 0.1, True),
    ],
)
def test_what_takes_much_longer_than_expected_is_run_elsewhere_too(
    rig: Rig, expected: float, seconds: float, is_hedged: bool
) -> None:
    _, lease = begin(rig, seconds=expected)
    runs_for(rig, lease, seconds)
    plan = rig.plan()
    assert plan.hedges == ((Hedge(lease.id, TestIndex(0), PeerId("b"), 1),) if is_hedged else ())
    rig.follow(plan)
    assert rig.plan().hedges == (), "once"


@pytest.mark.parametrize(
    ("factors", "spread", "limit"),
    [({}, 1.5, 2 * 60.0), ({}, 3.0, 3 * 60.0), ({"a": 4.0}, 1.5, 4 * 2 * 60.0), ({"b": 4.0}, 1.5, 2 * 60.0)],
)
def test_what_often_takes_long_or_is_on_a_slow_worker_does_not_straggle_so_soon(
    rig: Rig, factors: dict[str, float], spread: float, limit: float
) -> None:
    run, lease = begin(rig)
    known = {PeerId(peer): factor for peer, factor in factors.items()}
    rig.estimates[run.id] = Estimates([60.0], factors=known, spreads=ByLength(values=(spread,)))
    runs_for(rig, lease, limit)
    assert not rig.plan().hedges
    runs_for(rig, lease, limit + 0.1)
    assert hedged(rig.plan()) == [(lease.id, 0, "b")]


def test_the_first_verdict_counts_and_the_run_ends(rig: Rig) -> None:
    run, lease = begin(rig)
    runs_for(rig, lease, LONG)
    (second,) = rig.follow(rig.plan())
    rig.complete(second.id, [0])
    assert (run.done, run.tests, rig.state.leases) == (1, 1, {})


def test_only_if_the_run_asks_for_it(rig: Rig) -> None:
    _, lease = begin(rig, hedge=False)
    runs_for(rig, lease, LONG)
    assert rig.plan().hedges == ()


def test_a_free_slot_is_needed_which_nobody_else_wants(rig: Rig) -> None:
    _, lease = begin(rig)
    runs_for(rig, lease, LONG)
    other = rig.running([Task(0, 3)], [60.0] * 3, "other")
    plan = rig.plan()
    assert (plan.hedges, [one.worker for one in plan.grants]) == ((), ["b"])
    rig.follow(plan)
    assert rig.plan().hedges == ()
    rig.worker("c", slots=1)
    rig.follow(rig.plan())
    assert other.leased == 2
    rig.worker("d", slots=4)
    rig.follow(rig.plan())
    assert set(run_on(rig, lease)) == {"a", "d"}
    assert hedged(rig.plan()) == []


def run_on(rig: Rig, lease: Lease) -> list[str]:
    """The workers of the leases that hold its first test."""
    return [one.worker for one in rig.state.leases.values() if one.run == lease.run and 0 in members(one.open)]


def test_the_longest_go_first_and_each_free_slot_takes_one(rig: Rig) -> None:
    rig.worker("c", slots=2)
    run = rig.running([Task(0, 4)], [1.0] * 4, hedge=True)
    lease = hold(rig, run, "c", Task(0, 4))
    running = tuple((lease.id, TestIndex(test), 10.0 + test) for test in (0, 1, 2, 3))
    rig.see("c", slots=2, running=running)
    assert hedged(rig.plan()) == [(lease.id, 3, "a"), (lease.id, 2, "b")]


@pytest.mark.parametrize("other", [{"alive": False}, {"draining": True}, {"capabilities": {}}])
def test_only_who_can_do_it(rig: Rig, other: dict[str, object]) -> None:
    for name in "ab":
        rig.see(name, slots=1, capabilities=GPU)
    _, lease = begin(rig, requires="gpu")
    runs_for(rig, lease, LONG, capabilities=GPU)
    assert len(rig.plan().hedges) == 1
    rig.see("b", slots=1, **{"capabilities": GPU, **other})
    assert rig.plan().hedges == ()


def test_not_where_it_was_bad_and_not_over_the_limit_of_workers(rig: Rig) -> None:
    run = rig.running([Task(0, 1)], [1.0], hedge=True, retries=1)
    rig.complete(hold(rig, run, "b", Task(0, 1)).id, [0], code=Outcome.FAILED.code)
    lease = hold(rig, run, "a", Task(0, 1))
    runs_for(rig, lease, LONG)
    assert rig.plan().hedges == ()
    _, lease = begin(rig, nonce="2", worker_count=1)
    runs_for(rig, lease, LONG)
    assert rig.plan().hedges == ()


def test_what_is_there_once_is_not_run_twice(rig: Rig) -> None:
    holding = rig.running([Task(0, 1)], [1.0], hedge=True, needs=(Needs(locks=("camera",)),))
    lease = hold(rig, holding, "a", Task(0, 1))
    runs_for(rig, lease, LONG)
    assert rig.plan().hedges == ()
    rig.complete(lease.id, [0])
    run, lease = begin(rig, nonce="2")
    runs_for(rig, lease, LONG)
    assert len(rig.plan().hedges) == 1
    rig.accept(Claim(run.id, "lock", PeerId("a"), 1, 7))
    assert rig.plan().hedges == (), "it may be within a mesh_lock"


def test_what_lost_a_node_is_not_tried_on_another_one_at_once(rig: Rig) -> None:
    run = rig.running([Task(0, 1)], [1.0], hedge=True)
    hold(rig, run, "a", Task(0, 1))
    rig.see("a", slots=1, lost=True, alive=False)
    rig.follow(rig.plan())
    (lease,) = rig.follow(rig.plan())
    rig.see("a", slots=1)
    runs_for(rig, lease, LONG)
    assert rig.plan().hedges == ()


def test_what_waits_behind_it_is_asked_back(rig: Rig) -> None:
    run, lease = begin(rig, tests=3)
    runs_for(rig, lease, LONG)
    plan = rig.plan()
    assert [(one.lease, one.run, one.grace) for one in plan.recalls] == [(lease.id, run.id, None)]
    rig.follow(plan)
    runs_for(rig, lease, LONG, running=tuple((lease.id, TestIndex(test), LONG) for test in range(3)))
    assert rig.plan().recalls == (), "all of it runs"


@pytest.mark.parametrize(("seconds", "is_asked"), [(2.1, True), (1.9, False)])
def test_that_needs_no_hedge(rig: Rig, seconds: float, is_asked: bool) -> None:
    run, lease = begin(rig, tests=2, hedge=False)
    runs_for(rig, lease, seconds)
    plan = rig.plan()
    assert plan.hedges == ()
    assert asked(plan) == ([(lease.id, run.id, None)] if is_asked else [])


def asked(plan: Plan) -> list[tuple[int, int, float | None]]:
    return [(one.lease, one.run, one.grace) for one in plan.recalls]


def late(rig: Rig, **changes: object) -> tuple[Run, Lease]:
    """A run of 26 tests that were thought to take 0.1 s: b has run 16 of them for 1 s each, and a has ten."""
    run = rig.running([Task(0, 26)], [0.1] * 26, **changes)
    lease = hold(rig, run, "a", Task(16, 10))
    done = hold(rig, run, "b", Task(0, 16))
    rig.complete(done.id, range(15), 1_000_000)
    assert rig.plan().recalls == (), "it is not known yet"
    rig.complete(done.id, [15], 1_000_000)
    return run, lease


def test_a_lease_that_was_thought_short_is_shared_with_who_has_nothing_left(rig: Rig) -> None:
    run, lease = late(rig)
    runs_for(rig, lease, 0.5, test=16)
    plan = rig.plan()
    assert (asked(plan), plan.hedges) == ([(lease.id, run.id, None)], ())
    rig.accept(Return(lease.id, tuple(map(TestIndex, range(17, 26)))))
    rig.follow(rig.plan())
    held = [(one.worker, len(members(one.open))) for one in rig.state.leases.values()]
    assert held == [("a", 1), ("b", 2), ("a", 2)], "and the rest waits"
    assert rig.plan().recalls == (), "once"


@pytest.mark.parametrize("other", [{"alive": False}, {"draining": True}])
def test_a_late_lease_stays_where_nobody_could_take_of_it(rig: Rig, other: dict[str, object]) -> None:
    run, lease = late(rig)
    rig.see("b", slots=1, **other)
    assert rig.plan().recalls == ()
    rig.see("b", slots=1)
    assert asked(rig.plan()) == [(lease.id, run.id, None)]


def test_nor_is_more_asked_for_than_free_workers_can_take(rig: Rig) -> None:
    rig.worker("c", slots=1)
    run = rig.running([Task(0, 30)], [1.0] * 30)
    leases = [hold(rig, run, "a", Task(0, 10)), hold(rig, run, "c", Task(10, 20))]
    assert asked(rig.plan()) == [(leases[1].id, run.id, None)], "the one with the most work"


def test_over_its_limit_of_workers_a_run_gets_no_more_by_being_late(rig: Rig) -> None:
    rig.worker("c", slots=1)
    late(rig, worker_count=1)
    assert rig.plan().recalls == ()


def test_nobody_waits_behind_a_test_that_was_thought_to_be_short(rig: Rig) -> None:
    """Nor is its slot taken for free by who may take it by force."""
    rig.see("b", slots=1, alive=False)
    _, lease = begin(rig, seconds=0.1, tests=1, hedge=False, priority=10)
    urgent = rig.running([Task(0, 2)], [0.1] * 2, "urgent", priority=90, preempt="now")
    assert [grant.run for grant in rig.plan().grants] == [urgent.id], "there is room for a while"
    runs_for(rig, lease, LONG)
    plan = rig.plan()
    assert (plan.grants, [(one.lease, one.run, one.grace) for one in plan.recalls]) == (
        (),
        [(lease.id, urgent.id, 0.0)],
    )


@pytest.mark.parametrize(
    ("seconds", "granted"),
    [(60.0 - SOON_SECONDS - 0.1, 0), (60.0 - SOON_SECONDS + 0.1, 1), (60.0, 1), (60.0 * STRAGGLE_FACTOR + 0.1, 0)],
)
def test_the_next_test_is_there_when_a_long_one_ends(rig: Rig, seconds: float, granted: int) -> None:
    rig.see("b", slots=1, alive=False)
    run = rig.running([Task(test, 1) for test in range(20)], [60.0] * 20)
    lease = hold(rig, run, "a", Task(0, 1))
    runs_for(rig, lease, seconds)
    assert len(rig.follow(rig.plan())) == granted
    assert rig.plan().grants == (), "one is enough"


def test_a_test_that_has_ended_holds_no_slot_until_the_worker_says_so(rig: Rig) -> None:
    rig.see("b", slots=1, alive=False)
    run = rig.running([Task(0, 20)], [0.1] * 20)
    lease = hold(rig, run, "a", Task(0, 2))
    runs_for(rig, lease, LONG)
    assert rig.plan().grants == ()
    rig.complete(lease.id, [0])
    assert len(rig.plan().grants) == 1


def test_what_depends_on_it_does_not_hide_it(rig: Rig) -> None:
    run = rig.running([Task(0, 1), Task(1, 1)], [1.0] * 2, hedge=True, waits=(Dependency(1, 1, 0, 1),))
    lease = hold(rig, run, "a", Task(0, 1))
    runs_for(rig, lease, LONG)
    assert len(rig.plan().hedges) == 1


def test_an_old_log_has_no_hedges() -> None:
    rig = Rig(log_format=2)
    for name in "ab":
        rig.worker(name, slots=1)
    _, lease = begin(rig)
    runs_for(rig, lease, LONG)
    assert rig.plan().hedges == ()

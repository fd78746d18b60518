"""Rehearsals: where a run would go and how long it would take, by the plan itself."""

import copy
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scheduler_rig import BUNDLE, GPU, PLAIN, Rig, members

from mesh.scheduler.durations import Estimates
from mesh.scheduler.rehearsal import REPORT_SECONDS, Asked, Outcome, Rehearsal
from mesh.state import ranges
from mesh.state.model import RunPhase, Task
from protocols.errors import UsageError
from protocols.ids import Cid, PeerId
from protocols.manifests import CollectedTest, Dependency, Manifest, Needs, RunSpec


def asked(
    seconds: Iterable[float],
    requirements: tuple[tuple[str, str], ...] = (("", ""),),
    of: Iterable[int] | None = None,
    needs: tuple[Needs, ...] = (),
    waits: tuple[Dependency, ...] = (),
    factors: dict[str, float] | None = None,
    **spec: object,
) -> Asked:
    """`of`: the requirement of each test. `factors`: of workers."""
    seconds = list(seconds)
    of = list(of) if of is not None else [0] * len(seconds)
    tests = tuple(CollectedTest(f"t.py::test_{i}", "t.py", of[i]) for i in range(len(seconds)))
    made = RunSpec(BUNDLE, "s", "s", PeerId("c"), **spec)  # type: ignore[arg-type]
    manifest = Manifest(Cid("m"), tests, requirements, needs=needs, dependencies=waits)
    return Asked(
        made, manifest, Estimates(seconds, factors={PeerId(peer): factor for peer, factor in (factors or {}).items()})
    )


def rehearse(rig: Rig, *runs: Asked) -> Outcome:
    before = copy.deepcopy(rig.state)
    made = Rehearsal(rig.state, rig.fleet, rig.estimates, runs, rig.now)
    for _ in made.steps():
        pass
    assert rig.state == before, "nothing of the mesh was touched"
    return made.outcome()


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_an_idle_mesh_is_filled_to_the_bound(rig: Rig) -> None:
    rig.worker("a", slots=1)
    rig.worker("b", slots=3)
    found = rehearse(rig, asked([0.5] * 400))
    assert (found.tests, found.done, found.waiting, found.is_cut) == (400, 400, (), False)
    assert found.bound == pytest.approx(50.0)
    assert found.bound <= found.makespan < 1.03 * found.bound
    a, b = found.shares
    assert (a.name, a.slots, b.slots) == ("a", 1, 3)
    assert a.tests + b.tests == 400
    assert a.seconds + b.seconds == pytest.approx(200.0)
    assert b.seconds == pytest.approx(3 * a.seconds, rel=0.1)
    assert 0 <= a.first < a.last <= found.makespan


def test_a_slow_worker_does_less_and_the_bound_knows_it(rig: Rig) -> None:
    rig.worker("a", slots=1)
    rig.worker("b", slots=1)
    found = rehearse(rig, asked([0.5] * 400, factors={"b": 3.0}))
    assert found.bound == pytest.approx(150.0)
    assert found.bound <= found.makespan < 1.03 * found.bound
    a, b = found.shares
    assert a.tests == pytest.approx(3 * b.tests, rel=0.05)
    assert b.seconds == pytest.approx(b.tests * 1.5)
    fast = rehearse(rig, asked([8.0], factors={"a": 0.5, "b": 2.0}))
    assert fast.bound == 4.0
    assert fast.bound <= fast.makespan


def test_one_long_test_is_the_bound_and_goes_first(rig: Rig) -> None:
    rig.worker("a")
    rig.worker("b")
    found = rehearse(rig, asked([*[0.1] * 100, 20.0]))
    assert found.bound == pytest.approx(20.0)
    assert found.makespan == pytest.approx(20.0, rel=0.02)


def test_few_workers_for_some_tests_are_a_bound_of_their_own(rig: Rig) -> None:
    rig.worker("a", slots=1, capabilities=GPU)
    rig.worker("b", slots=4, capabilities=PLAIN)
    found = rehearse(rig, asked([1.0] * 30, (("", ""), ("gpu", "")), of=[i % 2 for i in range(30)]))
    assert found.bound == pytest.approx(15.0)
    assert 15.0 <= found.makespan <= 15.0 + 15 * REPORT_SECONDS
    assert [share.tests for share in found.shares] == [15, 15], "a does what it alone can do, b the rest"


def test_what_finds_no_place_waits_and_would_be_helped(rig: Rig) -> None:
    rig.worker("a", capabilities=PLAIN)
    found = rehearse(rig, asked([1.0] * 10, (("", ""), ("rack == 7", "")), of=[0] * 6 + [1] * 4))
    assert (found.tests, found.done) == (10, 6)
    (waiting,) = found.waiting
    assert (waiting.requirement, waiting.tests) == ("rack == 7", 4)
    assert waiting.wanted is not None
    assert [help.kind for help in waiting.helps] == ["label", "node"]
    assert found.makespan == pytest.approx(3.0, rel=0.2)


def test_nobody_can_collect_it(rig: Rig) -> None:
    rig.worker("a", capabilities=PLAIN)
    found = rehearse(rig, asked([1.0] * 3, requires="gpu"))
    assert (found.done, found.makespan, [share.tests for share in found.shares]) == (0, 0.0, [0])
    assert [(one.tests, one.requirement) for one in found.waiting] == [(0, "gpu")]


def test_without_workers(rig: Rig) -> None:
    found = rehearse(rig, asked([1.0]))
    assert (found.shares, found.done, len(found.waiting)) == ((), 0, 1)


def test_other_runs_go_on_beside_it(rig: Rig) -> None:
    rig.worker("a", slots=2)
    other = rig.running([Task(0, 40)], [1.0] * 40, project="other", submitter=PeerId("d"))
    rig.follow(rig.plan())
    alone = rehearse(rig, asked([1.0] * 20, priority=95))
    beside = rehearse(rig, asked([1.0] * 20))
    last = rehearse(rig, asked([1.0] * 20, priority=5))
    assert alone.makespan < beside.makespan < last.makespan
    assert last.makespan == pytest.approx(30.0, rel=0.1)
    assert (other.phase, other.leased) == (RunPhase.RUNNING, len(members(rig.state.leases[other.leases[0]].open)))


def test_a_run_that_is_half_done_goes_on_at_its_own_speed(rig: Rig) -> None:
    """Its tests take half of what they were expected to, as those show that have their verdicts."""
    rig.worker("a", slots=2)
    other = rig.running([Task(0, 400)], [1.0] * 400, project="other", submitter=PeerId("d"))
    rig.follow(rig.plan())
    done = members(rig.state.leases[other.leases[0]].open)
    rig.complete(other.leases[0], done, micros=500_000)
    made = Rehearsal(rig.state, rig.fleet, rig.estimates, [asked([1.0] * 4, requires="gpu")], rig.now)
    before = rig.plan().grants
    next(made.steps())
    granted = [lease.open for lease in made._state.leases.values() if lease.run == other.id]
    assert [tuple(tasks) for tasks in granted] == [grant.tasks for grant in before], "it plans as the mesh does"
    assert ranges.size(before[0].tasks) == 2 * len(done), "as many seconds, so twice as many tests"


def test_a_lock_makes_it_serial_and_an_order_is_kept(rig: Rig) -> None:
    rig.worker("a", slots=4)
    locked = rehearse(rig, asked([1.0] * 10, needs=(Needs(locks=("bench",)),)))
    assert (locked.done, locked.shares[0].tests) == (10, 10)
    assert locked.makespan == pytest.approx(10.0, abs=20 * REPORT_SECONDS)
    ordered = rehearse(rig, asked([1.0] * 8, waits=(Dependency(4, 4, 0, 4),)))
    assert 2.0 <= ordered.makespan <= 3.0, "the second half begins when the first one has its verdicts"


def test_tests_of_several_slots(rig: Rig) -> None:
    rig.worker("a", slots=4, capabilities={**PLAIN, "cpu.threads": 4})
    found = rehearse(rig, asked([1.0] * 8, needs=(Needs(cpu=2000),)))
    assert found.done == 8
    assert found.makespan == pytest.approx(4.0, abs=2.0)


def test_a_run_after_one_that_is_open(rig: Rig) -> None:
    rig.worker("a", slots=2)
    first = rig.running([Task(0, 10)], [1.0] * 10)
    found = rehearse(rig, asked([1.0] * 2, after=(first.id,)))
    assert found.done == 2
    assert found.makespan == pytest.approx(6.0, abs=1.0)


def test_several_at_once(rig: Rig) -> None:
    rig.worker("a", slots=2)
    found = rehearse(rig, asked([1.0] * 4), asked([1.0] * 6))
    assert (found.tests, found.done) == (10, 10)
    assert found.bound == pytest.approx(5.0)


def test_what_would_not_be_accepted(rig: Rig) -> None:
    rig.worker("a")
    with pytest.raises(UsageError, match="there is no run 99 to come after"):
        Rehearsal(rig.state, rig.fleet, rig.estimates, [asked([1.0], after=(99,))], rig.now)


def test_stopped_early_it_says_so_and_guesses_the_rest(rig: Rig) -> None:
    rig.worker("a", slots=2)
    made = Rehearsal(rig.state, rig.fleet, rig.estimates, [asked([1.0] * 400)], rig.now)
    steps = made.steps()
    for _ in range(4):
        next(steps)
    found = made.outcome()
    assert found.is_cut
    assert found.done < 400
    assert found.makespan == pytest.approx(200.0, rel=0.1)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=5),
    st.lists(st.sampled_from([0.01, 0.3, 1.0, 7.0]), min_size=1, max_size=60),
)
def test_every_test_is_placed_once_and_the_bound_holds(slots: list[int], seconds: list[float]) -> None:
    rig = Rig()
    for number, count in enumerate(slots):
        rig.worker(f"w{number}", slots=count)
    found = rehearse(rig, asked(seconds))
    assert sum(share.tests for share in found.shares) == found.done == found.tests == len(seconds)
    assert sum(share.seconds for share in found.shares) == pytest.approx(sum(seconds))
    assert found.bound <= found.makespan + 1e-9
    assert found.makespan <= found.bound + max(seconds) + 2.0

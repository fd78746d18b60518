"""What tests hold while they run, and wait for: locks, devices, processors, memory, each other, and their priority."""

from collections.abc import Mapping
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scheduler_rig import Rig, members, over

from mesh.scheduler import shelf
from mesh.scheduler.fleet import WorkerView
from mesh.scheduler.hopeless import hopeless
from mesh.scheduler.waiting import Holder
from mesh.state.model import Lease, Task
from protocols.codec import Value
from protocols.commands import Expire
from protocols.ids import PeerId
from protocols.manifests import NOTHING, Dependency, Device, Needs, Outcome
from tests.properties import examples

CAMERA = Needs(locks=("camera",))
TWO_GPUS: Mapping[str, Value] = {
    "gpu": ({"uuid": "GPU-a", "memory": 8 * 2**30}, {"uuid": "GPU-b", "memory": 80 * 2**30}),
    "cpu.threads": 4,
    "memory": 16 * 2**30,
}


def both(rig: Rig, **view: object) -> None:
    for name in ("a", "b"):
        rig.worker(name, **view)


def held(rig: Rig) -> list[tuple[str, list[int]]]:
    return [(lease.worker, members(lease.open)) for lease in rig.state.leases.values()]


class TestLocks:
    def test_one_lease_in_the_mesh_has_a_lock_and_others_go_beside_it(self) -> None:
        rig = Rig()
        both(rig)
        run = rig.running(
            [Task(0, 8), Task(8, 4, 1)], seconds=[1.0] * 12, needs=(CAMERA, NOTHING), requirements=(("", ""),) * 2
        )
        rig.follow(rig.plan())
        locked = [lease for lease in rig.state.leases.values() if lease.needs.locks]
        assert [members(lease.open) for lease in locked] == [[0, 1]], "about two seconds of them, one after another"
        assert sum(len(tests) for _, tests in held(rig)) > 2, "what needs no lock does not wait"
        waiting = [one for one in rig.plan().waiting if one.run == run.id]
        assert [one.locks for one in waiting] == [(Holder("camera", run.id, 0, locked[0].worker),)]

    def test_a_lock_is_held_against_other_runs_until_its_lease_is_closed(self) -> None:
        rig = Rig()
        both(rig)
        first = rig.running([Task(0, 1)], needs=(CAMERA,))
        second = rig.running([Task(0, 1)], nonce="2", needs=(CAMERA,))
        (lease,) = rig.follow(rig.plan())
        assert lease.run == first.id
        assert rig.plan().grants == ()
        rig.accept(Expire(lease.id, "gone"))
        (lease,) = rig.follow(rig.plan())
        rig.complete(lease.id, [0])
        (lease,) = rig.follow(rig.plan())
        assert {first.done, second.done} == {0, 1}

    def test_who_needs_two_locks_gets_them_although_others_want_one_all_the_time(self) -> None:
        rig = Rig()
        both(rig, slots=4)
        needs = (Needs(locks=("a", "b")), Needs(locks=("b",)))
        rig.running([Task(0, 9)], nonce="b", needs=needs[1:], seconds=[3.0] * 9)
        (other,) = rig.follow(rig.plan())
        pair = rig.running([Task(0, 1)], nonce="ab", needs=needs[:1], priority=60)
        single = rig.running([Task(0, 5)], nonce="a", needs=(Needs(locks=("a",)),))
        assert rig.follow(rig.plan()) == [], "a is kept for who waits for b"
        rig.complete(other.id, members(other.open))
        assert [lease.run for lease in rig.follow(rig.plan())] == [pair.id]
        assert single.leased == 0


class TestDevices:
    def test_two_leases_hold_two_devices_and_the_third_waits_and_says_why(self) -> None:
        rig = Rig()
        rig.worker("a", slots=4, capabilities=TWO_GPUS)
        rig.running([Task(0, 3)], seconds=[9.0] * 3, needs=(Needs(gpu=1000),))
        leases = rig.follow(rig.plan())
        assert [lease.devices for lease in leases] == [(Device("GPU-a"),), (Device("GPU-b"),)], "the smallest first"
        (waiting,) = rig.plan().waiting
        assert [reason.text for reason in waiting.reasons] == ["has no gpu free"]
        assert waiting.wanted is None

    def test_shares_are_packed(self) -> None:
        rig = Rig()
        rig.worker("a", slots=8, capabilities=TWO_GPUS)
        rig.running([Task(0, 5)], seconds=[9.0] * 5, needs=(Needs(gpu=400),))
        names = [lease.devices[0].name for lease in rig.follow(rig.plan())]
        assert names == ["GPU-a", "GPU-a", "GPU-b", "GPU-b"]

    def test_a_device_meets_what_the_test_requires_of_it(self) -> None:
        rig = Rig()
        rig.worker("a", capabilities=TWO_GPUS)
        rig.running([Task(0, 1)], needs=(Needs(gpu=1000),), requirements=(("gpu.memory >= 40GiB", ""),))
        (lease,) = rig.follow(rig.plan())
        assert lease.devices == (Device("GPU-b"),)

    def test_devices_that_no_probe_knows_are_named_by_a_label(self) -> None:
        view = WorkerView(PeerId("a"), 1, alive=True, capabilities={"gpu": (), "label.gpu": "0, 1"})
        assert [unit.name for unit in shelf.units(view)] == ["0", "1"]

    def test_what_nobody_has_is_said_and_has_no_hope(self) -> None:
        rig = Rig()
        rig.worker("a", capabilities=TWO_GPUS)
        rig.running([Task(0, 1)], needs=(Needs(gpu=3000),))
        (waiting,) = rig.plan().waiting
        assert waiting.requirement == "3 gpu"
        assert [reason.text for reason in waiting.reasons] == ["has 2 gpus that would do, and 3 are needed"]
        code, why = hopeless(waiting, rig.fleet) or (0, "")
        assert (code, "which need 3 gpu: a has 2 gpus" in why) == (10, True)

    def test_who_needs_both_devices_is_not_starved_by_those_who_need_one(self) -> None:
        rig = Rig()
        rig.worker("a", slots=4, capabilities=TWO_GPUS)
        rig.running([Task(0, 20)], nonce="one", seconds=[3.0] * 20, needs=(Needs(gpu=1000),))
        first, second = rig.follow(rig.plan())
        both_of_them = rig.running([Task(0, 1)], nonce="two", priority=60, needs=(Needs(gpu=2000),))
        rig.complete(first.id, members(first.open))
        assert rig.follow(rig.plan()) == []
        rig.complete(second.id, members(second.open))
        assert [lease.run for lease in rig.follow(rig.plan())] == [both_of_them.id]

    def test_who_needs_no_device_leaves_workers_that_have_some_alone_while_there_are_others(self) -> None:
        rig = Rig()
        rig.worker("a", capabilities=TWO_GPUS)
        rig.worker("b")
        rig.running([Task(0, 1)], seconds=[1.0])
        assert held(rig) == []
        rig.follow(rig.plan())
        assert held(rig) == [("b", [0])]


class TestAmounts:
    @pytest.mark.parametrize(
        ("needs", "at_once"),
        [
            (Needs(memory=6 * 2**30), 2),
            (Needs(disk=500), 2),
            (Needs(network=1000), 1),
            (Needs(cpu=2000), 2),
            (Needs(cpu=3000), 1),
        ],
    )
    def test_no_more_at_once_than_a_worker_has(self, needs: Needs, at_once: int) -> None:
        rig = Rig()
        rig.worker("a", slots=4, capabilities=TWO_GPUS)
        rig.running([Task(0, 6)], seconds=[9.0] * 6, needs=(needs,))
        assert len(rig.follow(rig.plan())) == at_once
        assert rig.plan().grants == ()

    def test_a_worker_is_emptied_for_a_test_of_all_its_processors(self) -> None:
        rig = Rig()
        rig.worker("a", slots=2, capabilities=TWO_GPUS)
        small = rig.running([Task(i, 1) for i in range(40)], nonce="small", seconds=[1.0] * 40)
        for lease in rig.follow(rig.plan()):
            rig.complete(lease.id, members(lease.open)[1:])
        large = rig.running([Task(0, 1)], nonce="large", seconds=[1.0], priority=60, needs=(Needs(cpu=4000),))
        assert rig.follow(rig.plan()) == [], "nothing small any more"
        assert small.pending
        rig.finish_leases()
        assert [lease.run for lease in rig.follow(rig.plan())] == [large.id], "alone"

    def test_more_than_any_worker_has_is_refused_with_the_reason(self) -> None:
        rig = Rig()
        rig.worker("a", capabilities=TWO_GPUS)
        rig.running(
            [Task(0, 1), Task(1, 1, 1)], needs=(Needs(cpu=5000), Needs(memory=2**40)), requirements=(("", ""),) * 2
        )
        texts = [reason.text for waiting in rig.plan().waiting for reason in waiting.reasons]
        assert texts == ["has 4 processors, and 5 are needed", "has 16 GiB of memory, and 1.02e+03 GiB are needed"]


class TestOrder:
    def test_who_depends_waits_and_is_skipped_when_what_it_depends_on_fails(self) -> None:
        rig = Rig()
        both(rig)
        waits = (Dependency(1, 2, 0, 1), Dependency(3, 1, 1, 1), Dependency(4, 1, 0, 1, passed=False))
        run = rig.running([Task(0, 1), Task(1, 2), Task(3, 1), Task(4, 1)], waits=waits)
        (lease,) = rig.follow(rig.plan())
        assert members(lease.open) == [0]
        assert rig.plan().grants == ()
        rig.complete(lease.id, [0], code=Outcome.FAILED.code)
        made = rig.plan()
        assert [(skip.tests, skip.on) for skip in made.skips] == [((1, 2), 0)]
        (lease,) = rig.follow(made)
        assert members(lease.open) == [4], "the order alone is no reason to be skipped"
        assert [(skip.tests, skip.on) for skip in rig.plan().skips] == [((3,), 1)]
        rig.follow(rig.plan())
        rig.finish_leases()
        assert over(run)
        assert bytes(run.outcomes) == bytes([1, 3, 3, 3, 0])

    def test_a_larger_priority_comes_first(self) -> None:
        rig = Rig()
        rig.worker("a", slots=1)
        needs = (NOTHING, Needs(priority=5), Needs(priority=-5))
        tasks = [Task(0, 1), Task(1, 1, 1), Task(2, 1, 2)]
        run = rig.running(tasks, seconds=[5.0, 1.0, 60.0], needs=needs, requirements=(("", ""),) * 3)
        order = []
        while not over(run):
            leases = rig.follow(rig.plan())
            order += [test for lease in leases for test in members(lease.open)]
            rig.finish_leases()
        assert order == [1, 0, 2]


@settings(max_examples=examples(25), deadline=None)
@given(st.integers(0, 2**32))
def test_whatever_is_needed_no_plan_is_refused_and_every_run_ends(seed: int) -> None:
    """Each grant of a plan holds when it is applied; locks, devices and companions are checked after every command."""
    random = Random(seed)
    rig = Rig()
    for name in "abc"[: random.randint(1, 3)]:
        rig.worker(name, slots=random.randint(1, 4), capabilities=TWO_GPUS)
    runs = []
    for number in range(random.randint(1, 3)):
        needs = tuple(_needs(random, len(rig.fleet)) for _ in range(4))
        tasks, first = [], 0
        for _ in range(random.randint(1, 8)):
            count = random.randint(1, 4)
            tasks.append(Task(first, count, random.randrange(4)))
            first += count
        waits = tuple(
            Dependency(task.first, task.count, 0, random.randint(0, task.first), random.random() < 0.8)
            for task in tasks[1:]
            if random.random() < 0.3
        )
        seconds = [random.choice((0.01, 0.5, 5.0)) for _ in range(first)]
        runs.append(
            rig.running(tasks, seconds, str(number), (("", ""),) * 4, needs, waits, priority=random.randint(0, 100))
        )
    for _ in range(500):
        rig.follow(rig.plan())
        if all(over(run) for run in runs):
            return
        for lease in list(rig.state.leases.values()):
            _end_some(rig, random, lease)
    raise AssertionError(f"after 500 plans: {[(run.id, run.pending) for run in runs]}")


def _needs(random: Random, workers: int) -> Needs:
    if random.random() < 0.3:
        return NOTHING
    return Needs(
        cpu=random.choice((1000, 1000, 2000, 4000)),
        memory=random.choice((0, 0, 9 * 2**30)),
        gpu=random.choice((0, 0, 500, 1000, 2000)),
        disk=random.choice((0, 0, 600)),
        locks=tuple(lock for lock in ("camera", "rig") if random.random() < 0.3),
        priority=random.randint(-1, 1),
        hosts=random.choice((1, 1, random.randint(1, workers))),
    )


def _end_some(rig: Rig, random: Random, lease: Lease) -> None:
    if random.random() < 0.1:
        rig.accept(Expire(lease.id, "gone", random.choice(lease.hosts)))
    elif random.random() < 0.7:
        tests = members(lease.open)
        rig.complete(lease.id, tests[: random.randint(1, len(tests))], code=random.choice((0, 0, 0, 1)))

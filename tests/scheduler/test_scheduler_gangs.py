"""Tests that need several hosts at once: which they get, what is kept for them meanwhile, and who waits for whom."""

from typing import Any

from scheduler_rig import CHUNK, GPU, PLAIN, Rig, members, over

from mesh.scheduler.durations import Estimates
from mesh.scheduler.hopeless import hopeless
from mesh.scheduler.outlook import Outlook
from mesh.scheduler.preemption import Recall
from mesh.scheduler.rehearsal import Asked, Rehearsal
from mesh.state.model import LOSSES_MAX, Lease, Run, Task
from protocols.commands import Complete, Expire
from protocols.errors import NoCapableWorker
from protocols.ids import Cid, PeerId, RunId, TestIndex
from protocols.manifests import NOTHING, CollectedTest, Dependency, Device, Manifest, Needs, Outcome, RunSpec

PAIR, TRIO = Needs(hosts=2), Needs(hosts=3)


def rig_of(*slots: int, capabilities: object = PLAIN) -> Rig:
    """Workers "a", "b" and so on, with so many slots each."""
    rig = Rig()
    for name, count in zip("abcdefgh", slots, strict=False):
        rig.worker(name, slots=count, capabilities=capabilities)
    return rig


def gang(rig: Rig, tests: int = 1, needs: Needs = PAIR, nonce: str = "gang", **changes: Any) -> Run:
    return rig.running([Task(i, 1) for i in range(tests)], [1.0] * tests, nonce, needs=(needs,), **changes)


def hosts(leases: list[Lease]) -> list[tuple[str, ...]]:
    return [lease.hosts for lease in leases]


def test_a_test_gets_as_many_hosts_as_it_needs_by_one_grant() -> None:
    rig = rig_of(2, 2, 2)
    gang(rig, needs=TRIO)
    (lease,) = rig.follow(rig.plan())
    assert sorted(lease.hosts) == ["a", "b", "c"]
    assert lease.alone


def test_of_two_that_both_fit_only_one_by_one_the_second_holds_nothing_meanwhile() -> None:
    rig = rig_of(1, 1, 1)
    run = gang(rig, tests=2)
    (lease,) = rig.follow(rig.plan())
    assert rig.follow(rig.plan()) == []
    assert sum(not worker.is_idle for worker in rig.state.workers.values()) == 2
    (waiting,) = rig.plan().waiting
    assert sorted(reason.text for reason in waiting.reasons) == ["has no slot free"] * 2
    rig.complete(lease.id, members(lease.open))
    assert len(rig.follow(rig.plan())) == 1
    rig.finish_leases()
    assert over(run)


def test_tests_of_a_gang_are_leased_singly_beside_each_other() -> None:
    rig = rig_of(4, 4)
    gang(rig, tests=9)
    leases = rig.follow(rig.plan())
    assert [len(members(lease.open)) for lease in leases] == [1] * 4
    assert {tuple(sorted(one)) for one in hosts(leases)} == {("a", "b")}


def test_what_is_kept_on_a_companion_is_given_to_nobody() -> None:
    rig = rig_of(2, 1)
    gang(rig)
    (lease,) = rig.follow(rig.plan())
    assert lease.hosts == ("a", "b")
    plain = rig.running([Task(i, 1) for i in range(40)], [0.01] * 40, nonce="plain")
    while not over(plain):
        opened = rig.follow(rig.plan())
        assert {other.worker for other in opened} == {"a"}, "on the slot beside it"
        for other in opened:
            rig.complete(other.id, members(other.open))
    assert lease.id in rig.state.leases


def test_other_slots_of_a_companion_go_on_without_a_queue() -> None:
    rig = rig_of(1, 3)
    gang(rig)
    (lease,) = rig.follow(rig.plan())
    assert lease.hosts == ("a", "b")
    rig.running([Task(i, 1) for i in range(4000)], [0.01] * 4000, nonce="plain")
    given = [len(members(other.open)) for other in rig.follow(rig.plan()) if other.worker == "b"]
    assert given == [2], "three slots, and one is kept"
    assert [other.worker for other in rig.follow(rig.plan())].count("b") == 0


def test_whoever_comes_later_gets_nothing_of_what_a_test_waits_for() -> None:
    """The bound: it waits for what its hosts hold when its turn comes, however much comes later."""
    rig = rig_of(2, 2, 2)
    flood = rig.running([Task(i, 1) for i in range(3000)], [5.0] * 3000, nonce="flood")
    before = rig.follow(rig.plan())
    assert [len(members(lease.open)) > 2 for lease in before] == [True] * 3
    waiting = gang(rig, needs=TRIO)
    opened: list[Lease] = []
    for lease in before:  # one worker after another comes to its end, and those who did so are offered the flood
        while lease.id in rig.state.leases and not opened:
            rig.complete(lease.id, members(lease.open)[:1], micros=5_000_000)
            opened = [one for one in rig.follow(rig.plan()) if one.run == waiting.id]
            later = [one for one in rig.state.leases.values() if one.run == flood.id and one not in before]
            assert all(len(members(one.open)) == 1 for one in later), "on slots that are not kept, one by one"
            for one in later:
                rig.complete(one.id, members(one.open))
    assert len(members(before[2].open)) == 1, "at the first moment that it could be"
    assert len(opened) == 1
    assert flood.pending


def test_only_as_many_slots_are_kept_as_it_takes() -> None:
    rig = rig_of(1, 2)
    flood = rig.running([Task(i, 1) for i in range(50)], [5.0] * 50, nonce="flood")
    rig.follow(rig.plan())
    gang(rig)
    for lease in [lease for lease in rig.state.leases.values() if lease.worker == "b"]:
        rig.complete(lease.id, members(lease.open))
    opened = rig.follow(rig.plan())
    assert [(lease.run, lease.worker, len(members(lease.open))) for lease in opened] == [(flood.id, "b", 1)]
    for lease in [lease for lease in rig.state.leases.values() if lease.worker == "a"]:
        rig.complete(lease.id, members(lease.open))
    assert [sorted(lease.hosts) for lease in rig.follow(rig.plan()) if lease.companions] == [["a", "b"]]


def test_slots_are_kept_on_the_worker_that_may_run_it() -> None:
    """A run on one worker: its test of two hosts waits for that one, however free the others are."""
    rig = rig_of(2, 2, 2)
    run = rig.running(
        [Task(0, 1), Task(1, 1, 1), *(Task(i, 1, 1) for i in range(2, 300))],
        [5.0] * 300,
        needs=(Needs(hosts=2, cpu=2000), NOTHING),
        requirements=(("", ""),) * 2,
        waits=(Dependency(0, 1, 1, 1),),
        worker_count=1,
    )
    (only,) = rig.follow(rig.plan())
    assert len(members(only.open)) > 2
    opened: list[Lease] = []
    while only.id in rig.state.leases and not opened:
        rig.complete(only.id, members(only.open)[:1], micros=5_000_000)
        opened = rig.follow(rig.plan())
    assert [(lease.worker, len(lease.hosts)) for lease in opened] == [(only.worker, 2)]
    assert run.pending, "and its other tests wait for it"


def test_who_needs_more_hosts_comes_first_and_who_fits_runs_meanwhile() -> None:
    rig = rig_of(1, 1, 1, 1)
    needs = (PAIR, TRIO)
    rig.running([Task(0, 1), Task(1, 1, 1)], [1.0] * 2, needs=needs, requirements=(("", ""),) * 2)
    assert [len(lease.hosts) for lease in rig.follow(rig.plan())] == [3]
    rig = rig_of(1, 1, 1, 1)
    rig.running([Task(0, 2)], [9.0] * 2, nonce="plain", needs=(Needs(memory=1),), worker_count=1)
    (busy,) = rig.follow(rig.plan())
    gang(rig, needs=Needs(hosts=4), nonce="four")
    rig.follow(rig.plan())
    gang(rig, nonce="two", priority=60)
    assert [len(lease.hosts) for lease in rig.follow(rig.plan())] == [2], "of a higher band"
    assert busy.id in rig.state.leases


def test_each_host_meets_the_requirement_and_gives_its_own_device() -> None:
    rig = Rig()
    rig.worker("plain")
    for name in ("one", "two"):
        rig.worker(name, capabilities={"gpu": ({"uuid": f"GPU-{name}", "memory": 8 * 2**30},)})
    gang(rig, needs=Needs(hosts=2, gpu=1000), requirements=(("gpu.memory >= 8GiB", ""),))
    (lease,) = rig.follow(rig.plan())
    assert sorted(lease.hosts) == ["one", "two"]
    assert lease.devices == (Device(f"GPU-{lease.worker}"),)
    (companion,) = lease.companions
    assert companion.devices == (Device(f"GPU-{companion.worker}"),)
    rig.running([Task(0, 1)], [1.0], nonce="gpu", needs=(Needs(gpu=1000),))
    assert rig.follow(rig.plan()) == [], "both devices are held"


def test_too_few_hosts_are_said_and_hopeless() -> None:
    rig = rig_of(2, 2)
    rig.worker("g", capabilities=GPU)
    run = gang(rig, needs=TRIO, requirements=(("os == linux and not gpu", ""),))
    made = rig.plan()
    (waiting,) = made.waiting
    assert made.grants == ()
    said = "1 test needs 3 hosts at once with os == linux and not gpu, and 2 would do"
    assert waiting.shortage == said
    code, text = hopeless(waiting, rig.fleet) or (0, "")
    assert code == NoCapableWorker.exit_code
    assert text.startswith(f"{said}: g ")
    desks = {peer: kept.desk for peer, kept in rig.memory.desks.items()}
    (told,) = Outlook(rig.state, rig.fleet, made.waiting, desks, rig.now).of_run(run)
    assert told.shortage == said
    assert not any("could do it" in help.text for help in told.helps), "who would do is not what is wanting"
    assert told.helps[-1].text == "start 1 more worker with os == linux and not (gpu)"
    rig.worker("c")
    assert [len(lease.hosts) for lease in rig.follow(rig.plan())] == [3]


def test_a_worker_that_may_come_back_is_hoped_for_but_not_one_of_which_nothing_is_known() -> None:
    rig = rig_of(1, 1)
    gang(rig)
    rig.see("b", slots=1, alive=False)
    (waiting,) = rig.plan().waiting
    assert hopeless(waiting, rig.fleet) is None
    rig.see("b", slots=1, alive=False, lost=True, capabilities={})
    code, text = hopeless(waiting, rig.fleet) or (0, "")
    assert (code, "needs 2 hosts at once, and 1 would do" in text) == (NoCapableWorker.exit_code, True)


def test_the_loss_of_a_companion_gives_the_test_back() -> None:
    rig = rig_of(1, 1, 1)
    gang(rig)
    (lease,) = rig.follow(rig.plan())
    companion = lease.hosts[1]
    rig.see(companion, slots=1, alive=False, lost=True)
    made = rig.plan()
    assert made.expires == (Expire(lease.id, "a companion of its worker is lost", companion),)
    rig.follow(made)
    (again,) = rig.follow(rig.plan())
    assert companion not in again.hosts
    rig.see(again.worker, slots=1, alive=False, lost=True)
    rig.see(again.hosts[1], slots=1, alive=False, lost=True)
    (expire,) = rig.plan().expires
    assert expire.companion == "", "lost as a whole, it ends once"


def test_a_test_that_kills_its_companions_is_abandoned_once_it_had_its_hosts_to_itself() -> None:
    rig = rig_of(2, 2)
    run = gang(rig)
    rig.running([Task(i, 1) for i in range(400)], [1.0] * 400, nonce="plain")
    incarnation = 1
    for _ in range(20):
        opened = [lease for lease in rig.follow(rig.plan()) if lease.companions]
        for lease in [lease for lease in rig.state.leases.values() if not lease.companions]:
            rig.complete(lease.id, members(lease.open)[:2])
        if over(run):
            break
        for lease in opened:
            incarnation += 1
            companion = lease.hosts[1]
            rig.worker(companion, incarnation=incarnation)
    assert run.outcomes[0] == Outcome.ERROR.code
    assert run.attempts[0] == LOSSES_MAX


def test_a_bad_test_is_led_by_another_of_its_hosts_the_next_time() -> None:
    rig = rig_of(1, 1)
    gang(rig, retries=1)
    (lease,) = rig.follow(rig.plan())
    rig.accept(Complete(lease.id, CHUNK, (TestIndex(0),), bytes([Outcome.FAILED.code]), (1,)))
    (again,) = rig.follow(rig.plan())
    assert again.hosts == tuple(reversed(lease.hosts))


def test_a_run_of_much_higher_priority_asks_for_the_hosts_that_it_waits_for() -> None:
    rig = rig_of(1, 1)
    low = rig.running([Task(0, 2)], [60.0] * 2, nonce="low", priority=10, needs=(Needs(memory=1),))
    leases = rig.follow(rig.plan())
    assert len(leases) == 2
    high = gang(rig, priority=90, preempt="now")
    assert rig.plan().recalls == tuple(Recall(lease.id, high.id, 0.0) for lease in reversed(leases))
    assert low.leased == 2


def test_a_gang_is_asked_back_by_whoever_needs_one_of_its_companions() -> None:
    rig = Rig()
    rig.worker("a", slots=1)
    rig.worker("g", slots=1, capabilities=GPU)
    gang(rig, priority=10)
    (lease,) = rig.follow(rig.plan())
    high = rig.running([Task(0, 1)], [1.0], nonce="high", priority=90, preempt="now", requires="gpu")
    assert rig.plan().recalls == (Recall(lease.id, high.id, 0.0),)


def test_a_rehearsal_keeps_companions_out_of_the_way() -> None:
    rig = rig_of(1, 1, 1)
    tests = tuple(CollectedTest(f"t{i}", "m", 0 if i < 3 else 1) for i in range(9))
    manifest = Manifest(Cid("b"), tests, (("", ""),) * 2, needs=(PAIR, NOTHING))
    spec = RunSpec(Cid("b"), "s", "s", PeerId("c"))
    rehearsal = Rehearsal(
        rig.state, rig.fleet, dict[RunId, Estimates](), [Asked(spec, manifest, Estimates([10.0] * 9))], rig.now
    )
    for _ in rehearsal.steps():
        pass
    outcome = rehearsal.outcome()
    assert (outcome.done, outcome.is_cut, outcome.waiting) == (9, False, ())
    assert outcome.bound == (3 * 2 + 6) * 10.0 / 3
    assert outcome.bound <= outcome.makespan <= 60.0

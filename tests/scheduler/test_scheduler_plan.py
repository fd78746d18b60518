"""Plans, as values."""

import time

import pytest
from scheduler_rig import BUNDLE, GPU, PLAIN, Rig, errors, members, over

from mesh.scheduler.durations import Estimates
from mesh.scheduler.feasibility import Reason
from mesh.scheduler.plan import (
    GRANT_SECONDS_GUESSED_MAX,
    GRANT_SECONDS_MAX,
    GRANT_SECONDS_MIN,
    Plan,
    Waiting,
)
from mesh.state import ranges
from mesh.state.model import LEASES_PER_WORKER_MAX, LOSSES_MAX, RunPhase, Task
from protocols.commands import TESTS_PER_COMMAND_MAX, Cancel, Expire, Grant
from protocols.ids import PeerId

NOTHING = Plan((), (), (), (), ())


@pytest.fixture
def rig() -> Rig:
    return Rig()


def shares(plan: Plan) -> dict[str, list[list[int]]]:
    """Worker -> the tests of each of its grants."""
    made: dict[str, list[list[int]]] = {}
    for grant in plan.grants:
        made.setdefault(grant.worker, []).append(members(grant.tasks))
    return made


def test_nothing_to_do(rig: Rig) -> None:
    assert rig.plan() == NOTHING
    rig.worker("a")
    assert rig.plan() == NOTHING


class TestCollecting:
    def test_one_worker(self, rig: Rig) -> None:
        rig.worker("a")
        rig.worker("b")
        run = rig.submit()
        assert rig.plan().grants == (Grant(run.id, PeerId("a"), 1, ()),)
        rig.follow(rig.plan())
        assert rig.plan() == NOTHING

    def test_prefers_the_bundle_then_idleness(self, rig: Rig) -> None:
        rig.worker("a")
        rig.worker("b", bundles=frozenset([BUNDLE]))
        rig.submit("1")
        rig.submit("2", bundle="bafyother")
        assert [grant.worker for grant in rig.plan().grants] == ["b", "a"]

    def test_needs_what_the_run_needs(self, rig: Rig) -> None:
        rig.worker("a")
        run = rig.submit(requires="gpu")
        rig.now += 7
        assert rig.plan().waiting == (
            Waiting(run.id, "gpu", 0, 7.0, (Reason(PeerId("a"), "a", "has no gpu"),)),
        )  # fmt: skip
        rig.worker("b", capabilities=GPU)
        plan = rig.plan()
        assert (plan.waiting, [grant.worker for grant in plan.grants]) == ((), ["b"])

    def test_without_workers(self, rig: Rig) -> None:
        run = rig.submit()
        assert rig.plan().waiting == (Waiting(run.id, "", 0, 0.0, ()),)

    def test_not_held_up_by_a_busy_fleet(self, rig: Rig) -> None:
        rig.worker("a", slots=1)
        rig.running([Task(0, 100)], [9.0] * 100, "1")
        rig.follow(rig.plan())
        second = rig.submit("2")
        assert [grant.run for grant in rig.plan().grants] == [second.id]


class TestShares:
    def test_half_of_the_rest_is_handed_out(self, rig: Rig) -> None:
        rig.worker("a", slots=1)
        rig.worker("b", slots=3)
        rig.running([Task(0, 80)], [1.0] * 80)
        assert shares(rig.plan()) == {"a": [list(range(10))], "b": [list(range(10, 40))]}

    def test_a_fed_fleet_gets_no_more(self, rig: Rig) -> None:
        rig.worker("a")
        rig.worker("b")
        rig.running([Task(0, 80)], [1.0] * 80)
        rig.follow(rig.plan())
        assert rig.plan() == NOTHING

    def test_refilled_before_it_runs_dry(self, rig: Rig) -> None:
        rig.worker("a", slots=2)
        rig.running([Task(0, 400)], [0.1] * 400)
        (lease,) = rig.follow(rig.plan())
        everything = members(lease.open)
        assert len(everything) == 200
        rig.complete(lease.id, everything[:180])
        assert rig.plan().grants == (), "20 tests of 0.1 s on 2 slots are a backlog of 1 s"
        rig.complete(lease.id, everything[180:182])
        assert len(rig.plan().grants) == 1

    def test_grants_are_bounded_above(self, rig: Rig) -> None:
        rig.worker("a", slots=1)
        rig.running([Task(0, 1000)], [1.0] * 1000)
        assert len(shares(rig.plan())["a"][0]) == GRANT_SECONDS_MAX

    def test_grants_are_bounded_below(self, rig: Rig) -> None:
        rig.worker("a", slots=1)
        rig.running([Task(0, 30)], [0.01] * 30)
        assert len(shares(rig.plan())["a"][0]) == round(GRANT_SECONDS_MIN / 0.01)

    def test_a_lease_has_a_bound_of_tests(self, rig: Rig) -> None:
        rig.worker("a", slots=8)
        rig.running([Task(i * 64, 64) for i in range(1000)], [0.001] * 64_000)
        assert [len(tests) for tests in shares(rig.plan())["a"]] == [TESTS_PER_COMMAND_MAX]

    def test_guesses_are_handed_out_in_small_pieces(self, rig: Rig) -> None:
        rig.worker("a", slots=2)
        rig.running([Task(0, 1000)])
        assert len(shares(rig.plan())["a"][0]) == round(2 * GRANT_SECONDS_GUESSED_MAX / 0.1)

    def test_few_tests_of_unknown_length_are_spread(self, rig: Rig) -> None:
        for name in ("a", "b", "c"):
            rig.worker(name, slots=1)
        rig.running([Task(0, 9)])
        assert shares(rig.plan()) == {"a": [[0]], "b": [[1]], "c": [[2]]}

    def test_what_is_observed_corrects_what_was_expected(self, rig: Rig) -> None:
        rig.worker("a", slots=1)
        rig.running([Task(0, 3000)])
        for micros in (1_000, 1_000):
            (lease,) = rig.follow(rig.plan())
            rig.complete(lease.id, members(lease.open), micros)
        (third,) = rig.follow(rig.plan())
        expected = (3000 - 20) * 0.001 / 2
        assert len(members(third.open)) == pytest.approx(expected / 0.001, rel=0.02)

    def test_a_long_test_takes_one_slot_and_no_more(self, rig: Rig) -> None:
        rig.worker("a", slots=2)
        rig.running([Task(0, 1), Task(1, 100)], [60.0] + [0.1] * 100)
        first, second = rig.follow(rig.plan()) + rig.follow(rig.plan())
        assert members(first.open)[0] == 0
        assert members(second.open)[0] > 0
        assert rig.plan() == NOTHING

    def test_longest_first(self, rig: Rig) -> None:
        rig.worker("a", slots=1)
        rig.worker("b", slots=1)
        rig.running([Task(0, 4), Task(4, 1), Task(5, 1), Task(6, 4)], [0.1] * 4 + [30.0, 9.0] + [0.1] * 4)
        assert shares(rig.plan()) == {"a": [[4]], "b": [[5, 0, 1, 2, 3, 6, 7, 8, 9]]}

    def test_who_has_the_bundle_or_knows_the_run_goes_first(self, rig: Rig) -> None:
        for name in ("a", "b", "c"):
            rig.worker(name, slots=1, bundles=frozenset([BUNDLE] if name == "c" else []))
        run = rig.running([Task(0, 1)], [1.0])
        assert list(shares(rig.plan())) == ["c"]
        run.workers.append(PeerId("b"))
        rig.fleet.pop(PeerId("c"))
        assert list(shares(rig.plan())) == ["b"]

    def test_preferences_load_losses(self, rig: Rig) -> None:
        rig.worker("a", load=0.5)
        rig.worker("b", load=0.1)
        rig.worker("c", load=0.9, capabilities=GPU)
        rig.running([Task(0, 1)], [1.0], requirements=(("", "gpu"),))
        assert list(shares(rig.plan())) == ["c"]
        rig.fleet.pop(PeerId("c"))
        assert list(shares(rig.plan())) == ["b"]
        rig.worker("b", load=0.5)
        rig.state.workers[PeerId("a")].losses = 2
        assert list(shares(rig.plan())) == ["b"]

    def test_priority(self, rig: Rig) -> None:
        rig.worker("a")
        rig.running([Task(0, 100)], [1.0] * 100, "low", priority=10)
        high = rig.running([Task(0, 100)], [1.0] * 100, "high", priority=60)
        assert [grant.run for grant in rig.plan().grants] == [high.id]


class TestRequirements:
    def test_scarce_workers_are_kept_for_what_needs_them(self, rig: Rig) -> None:
        rig.worker("a", capabilities=GPU)
        rig.worker("b")
        rig.running([Task(0, 40), Task(40, 40, 1)], [1.0] * 80, requirements=(("", ""), ("gpu", "")))
        made = shares(rig.plan())
        assert made["a"][0] == list(range(40, 60))
        assert made["b"] == [list(range(10))]

    def test_waiting_for_some_and_running_the_rest(self, rig: Rig) -> None:
        rig.worker("a")
        run = rig.running([Task(0, 4), Task(4, 3, 1)], [1.0] * 7, requirements=(("", ""), ("gpu.memory >= 8GiB", "")))
        plan = rig.plan()
        assert members(plan.grants[0].tasks)[0] == 0
        (waiting,) = plan.waiting
        assert (waiting.run, waiting.requirement, waiting.tests) == (run.id, "gpu.memory >= 8GiB", 3)
        assert waiting.reasons == (Reason(PeerId("a"), "a", "has no gpu"),)

    def test_the_runs_own_and_the_tests(self, rig: Rig) -> None:
        rig.worker("a", capabilities={**PLAIN, "x": 1})
        rig.worker("b", capabilities={**PLAIN, "x": 1, "y": 1})
        rig.running([Task(0, 1)], [1.0], requirements=(("y", ""),), requires="x")
        assert list(shares(rig.plan())) == ["b"]

    def test_a_worker_that_could_not_prepare_a_run_is_spared_it(self, rig: Rig) -> None:
        rig.worker("a")
        unfit = rig.running([Task(0, 1)], [1.0], "1")
        other = rig.running([Task(0, 1)], [1.0], "2")
        rig.see("a", unfit=frozenset([unfit.id]))
        plan = rig.plan()
        assert [grant.run for grant in plan.grants] == [other.id]
        assert [(w.run, w.reasons[0].text) for w in plan.waiting] == [(unfit.id, "could not prepare this run")]

    def test_silent_and_draining_workers_get_nothing(self, rig: Rig) -> None:
        rig.worker("z")
        rig.running([Task(0, 10)], [1.0] * 10)
        rig.worker("z", draining=True)
        rig.worker("y", alive=False)
        plan = rig.plan()
        assert plan.grants == ()
        assert [reason.text for reason in plan.waiting[0].reasons] == ["does not answer", "is draining"]

    def test_worker_count(self, rig: Rig) -> None:
        for name in ("a", "b", "c"):
            rig.worker(name, slots=1)
        run = rig.running([Task(0, 90)], [1.0] * 90, worker_count=2)
        made = shares(rig.plan())
        assert made == {"a": [list(range(22))], "b": [list(range(22, 44))]}, "the rest over twice the slots that count"
        while not over(run):
            rig.follow(rig.plan())
            assert len({rig.state.leases[lease].worker for lease in run.leases}) <= 2
            rig.finish_leases(1_000_000)
        assert run.workers == ["a", "b"]

    def test_worker_count_does_not_keep_out_the_only_capable_one(self, rig: Rig) -> None:
        rig.worker("a")
        rig.worker("b", capabilities=GPU)
        needs = (("", ""), ("gpu", ""))
        run = rig.running([Task(0, 4), Task(4, 4, 1)], [1.0] * 8, requirements=needs, worker_count=1)
        rounds = 0
        while not over(run):
            rounds += 1
            assert rounds < 30
            rig.follow(rig.plan())
            rig.finish_leases()
        assert run.done == 8


class TestLosses:
    def test_leases_of_the_lost_expire(self, rig: Rig) -> None:
        rig.worker("a")
        rig.running([Task(0, 8)], [1.0] * 8)
        (lease,) = rig.follow(rig.plan())
        rig.worker("a", alive=False, lost=True)
        assert rig.plan().expires == (Expire(lease.id, "its worker is lost"),)

    def test_a_task_that_lost_a_node_has_a_lease_of_its_own(self, rig: Rig) -> None:
        rig.worker("a", slots=4)
        run = rig.running([Task(0, 64)], [0.1] * 64)
        (lease,) = rig.follow(rig.plan())
        lost = members(lease.open)
        rig.accept(Expire(lease.id, "gone"))
        grants = rig.plan().grants
        assert set(members(grants[0].tasks)).isdisjoint(lost), "fresh tests first"
        rig.follow(rig.plan())
        while run.pending:
            opened = rig.follow(rig.plan())
            assert all(len(lease.open) == 1 for lease in opened if lease.open[0].losses)
            rig.finish_leases()
        assert run.done == 64 or over(run)

    def test_two_suspects_never_share_a_worker(self, rig: Rig) -> None:
        rig.worker("a", slots=8)
        run = rig.running([Task(0, 40)], [0.1] * 40)
        run.pending[:] = [Task(i, 2, 0, 2) for i in range(0, 40, 2)]
        assert len(rig.follow(rig.plan())) == 1
        assert rig.plan() == NOTHING

    def test_a_last_chance_has_the_node_to_itself(self, rig: Rig) -> None:
        rig.worker("a", slots=4)
        run = rig.running([Task(0, 2), Task(2, 1)], [0.01] * 3)
        run.pending[:] = [Task(0, 2), Task(2, 1, 0, LOSSES_MAX - 1)]
        other = rig.running([Task(0, 40)], [1.0] * 40, "other", priority=10)
        first = rig.follow(rig.plan())
        assert {test for lease in first if lease.run == run.id for test in members(lease.open)} == {0, 1}
        for lease in first[:-1]:
            rig.complete(lease.id, members(lease.open))
        rig.complete(first[-1].id, members(first[-1].open)[1:])
        assert rig.plan().grants == (), "there is room, but the other run has to wait, too, until the node is empty"
        rig.finish_leases()
        (alone,) = rig.follow(rig.plan())
        assert (members(alone.open), alone.alone) == ([2], True)
        assert rig.plan() == NOTHING
        assert other.pending

    def test_an_idle_worker_takes_the_last_chance_while_others_work(self, rig: Rig) -> None:
        rig.worker("a")
        rig.worker("b", slots=1)
        run = rig.running([Task(0, 1)], [1.0])
        run.pending[:] = [Task(0, 1, 0, LOSSES_MAX - 1)]
        rig.running([Task(0, 400)], [1.0] * 400, "other", priority=90)
        rig.see("b", draining=True)
        rig.follow(rig.plan())
        rig.see("b", slots=1)
        rig.state.runs[max(rig.state.runs)].pending.clear()
        assert shares(rig.plan()) == {"b": [[0]]}

    def test_a_test_with_too_many_losses_is_abandoned(self, rig: Rig) -> None:
        rig.worker("a")
        run = rig.running([Task(0, 4)], [1.0] * 4)
        run.pending[:] = [Task(0, 1, 0, LOSSES_MAX), Task(1, 3)]
        plan = rig.plan()
        assert plan.abandons == ((run.id, 0),)
        assert 0 not in members(plan.grants[0].tasks)

    @pytest.mark.parametrize("killer", [0, 13, 39])
    def test_a_test_that_kills_workers_is_found_and_costs_no_other_its_verdict(self, rig: Rig, killer: int) -> None:
        incarnation = 1
        for name in ("a", "b"):
            rig.worker(name, slots=2)
        run = rig.running([Task(i, 8) for i in range(0, 40, 8)], [0.2] * 40)
        deaths = 0
        for _ in range(300):
            if over(run):
                break
            rig.follow(rig.plan())
            for lease in list(rig.state.leases.values()):
                if lease.id not in rig.state.leases:
                    continue
                if killer in members(lease.open):
                    deaths += 1
                    incarnation += 1
                    rig.worker(lease.worker, incarnation=incarnation)
                else:
                    rig.complete(lease.id, members(lease.open))
        assert over(run)
        assert errors(run) == [killer]
        assert run.counts[0] == 39
        assert deaths <= 8


def test_lease_bound(rig: Rig) -> None:
    rig.worker("a", slots=200)
    run = rig.running([Task(0, 300)], [0.01] * 300)
    run.pending[:] = [Task(i, 1, 0, 1) for i in range(300)]
    while rig.follow(rig.plan()):
        pass
    assert len(rig.state.workers[PeerId("a")].leases) == LEASES_PER_WORKER_MAX


def test_finished_runs_want_their_report(rig: Rig) -> None:
    rig.worker("a")
    run = rig.running([Task(0, 1)], [1.0])
    rig.follow(rig.plan())
    rig.finish_leases()
    cancelled = rig.submit("2")
    rig.accept(Cancel(cancelled.id, "enough"))
    assert rig.plan().finished == (run.id, cancelled.id)
    rig.follow(rig.plan())
    assert run.phase is RunPhase.FINISHED
    assert rig.plan() == NOTHING


def test_a_slow_worker_is_given_less_and_its_verdicts_correct_nothing_that_is_known(rig: Rig) -> None:
    rig.worker("a", slots=1)
    rig.worker("b", slots=1)
    run = rig.running([Task(n, 1) for n in range(400)], [0.5] * 400)
    rig.estimates[run.id] = Estimates([0.5] * 400, factors={PeerId("b"): 4.0})
    leases = {lease.worker: lease for lease in rig.follow(rig.plan())}
    tests = {worker: ranges.size(lease.open) for worker, lease in leases.items()}
    assert tests["a"] == pytest.approx(4 * tests["b"], abs=4)
    rig.complete(leases[PeerId("b")].id, members(leases[PeerId("b")].open), micros=2_000_000)
    rig.complete(leases[PeerId("a")].id, members(leases[PeerId("a")].open), micros=500_000)
    again = {lease.worker: ranges.size(lease.open) for lease in rig.follow(rig.plan())}
    assert again["a"] == pytest.approx(4 * again["b"], abs=4)
    assert again["a"] > tests["a"] / 2, "what took as long as it should is not taken for longer"


def test_estimates_that_do_not_fit_are_not_used(rig: Rig) -> None:
    rig.worker("a")
    run = rig.running([Task(0, 10)])
    rig.estimates[run.id] = Estimates([1.0])
    assert rig.plan().grants
    del rig.estimates[run.id]
    assert rig.plan().grants


def test_equal_inputs_give_equal_plans(rig: Rig) -> None:
    for name in ("c", "a", "b"):
        rig.worker(name)
    rig.running([Task(i, 3) for i in range(0, 90, 3)], [1.0] * 90)
    plan = rig.plan()
    rig.fleet = dict(sorted(rig.fleet.items()))
    assert rig.plan() == plan


def test_planning_is_cheap_at_100_000_pending_tests(rig: Rig) -> None:
    """The budget is 10 ms a plan on an idle machine; the bound leaves room for a busy one, not for walking tests."""
    for i in range(8):
        rig.worker(f"w{i}", slots=4)
    tests = 100_000
    rig.running([Task(i, 50) for i in range(0, tests, 50)])
    took = []
    for _ in range(7):
        begin = time.process_time()
        rig.plan()
        took.append(time.process_time() - begin)
    assert min(took) < 0.03
    assert ranges.size(rig.plan().grants[0].tasks) > 0

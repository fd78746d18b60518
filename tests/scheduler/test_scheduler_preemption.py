"""Which leases should come back, for whom; and that it ends: no test is taken for ever, and runs never take turns."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scheduler_rig import Rig, members, over

from mesh.coordinator.recalls import ASK_SECONDS, Recalls
from mesh.scheduler.durations import Estimates
from mesh.scheduler.preemption import FAT_SECONDS, GRACE_SECONDS, LOG_FORMAT_MIN, RECALL_POINTS, TAKE_POINTS, Recall
from mesh.scheduler.queue import AGEING_SECONDS
from mesh.state.model import PREEMPTIONS_MAX, Run, Task
from protocols.commands import Grant, Preempt, Return
from protocols.ids import LeaseId, PeerId, RunId, TestIndex
from tests.properties import examples


@pytest.fixture
def rig() -> Rig:
    return Rig()


def start(rig: Rig, priority: int = 10, slots: int = 2, tests: int = 40) -> Run:
    """A run of minutes-long tests that fills the only worker."""
    rig.worker("a", slots=slots)
    run = rig.running([Task(i, 1) for i in range(tests)], [100.0] * tests, "low", priority=priority)
    while rig.follow(rig.plan()):
        pass
    assert run.leased == slots
    return run


def rival(rig: Rig, priority: int, nonce: str = "high", tests: int = 4, **fields: object) -> Run:
    fields = {"submitter": PeerId("rival"), **fields}
    return rig.running([Task(i, 1) for i in range(tests)], [100.0] * tests, nonce, priority=priority, **fields)


class TestWho:
    def test_nobody_asks_while_there_is_room(self, rig: Rig) -> None:
        start(rig, tests=1, slots=1)
        rig.worker("b", slots=9)
        rival(rig, 90)
        assert rig.plan().recalls == ()

    @pytest.mark.parametrize(
        ("priority", "grace"),
        [(10 + RECALL_POINTS - 1, "none"), (10 + RECALL_POINTS, None), (10 + TAKE_POINTS - 1, None),
         (10 + TAKE_POINTS, GRACE_SECONDS), (100, GRACE_SECONDS)],
    )  # fmt: skip
    def test_by_how_much_the_priority_is_higher(self, rig: Rig, priority: int, grace: float | str | None) -> None:
        low = start(rig)
        high = rival(rig, priority)
        expected = {Recall(lease, high.id, grace) for lease in low.leases} if grace != "none" else set()  # type: ignore[arg-type]
        assert set(rig.plan().recalls) == expected

    @pytest.mark.parametrize(("mode", "grace"), [("never", "none"), ("waiting", None), ("now", 0.0)])
    def test_as_the_taker_has_it(self, rig: Rig, mode: str, grace: float | str | None) -> None:
        low = start(rig)
        high = rival(rig, 90, preempt=mode)
        recalls = rig.plan().recalls
        assert {recall.grace for recall in recalls} == ({grace} if grace != "none" else set())
        assert all(recall.run == high.id and recall.lease in low.leases for recall in recalls)

    def test_no_more_than_it_can_use_the_newest_first(self, rig: Rig) -> None:
        low = start(rig, slots=4)
        rival(rig, 90, tests=1)
        (recall,) = rig.plan().recalls
        assert recall.lease == low.leases[-1]

    def test_the_lowest_first(self, rig: Rig) -> None:
        rig.worker("a", slots=1)
        rig.worker("b", slots=1)
        middle = rig.running([Task(0, 1)], [100.0], "middle", priority=30)
        rig.follow(rig.plan())
        lowest = rig.running([Task(0, 1)], [100.0], "lowest", priority=0)
        rig.follow(rig.plan())
        rival(rig, 90, tests=1)
        (recall,) = rig.plan().recalls
        assert [recall.lease] == lowest.leases
        assert middle.leases

    def test_a_lease_that_has_not_begun_keeps_lower_runs_away_and_makes_itself_room(self, rig: Rig) -> None:
        rig.worker("a", slots=1)
        high = rival(rig, 90, tests=1, preempt="now")
        rig.estimates[high.id] = Estimates([0.1])
        rig.follow(rig.plan())
        low = rig.running([Task(0, 40)], [0.1] * 40, "low", priority=10)
        assert rig.plan().grants == (), "its processes may still start"

        begun = rig.accept(Grant(low.id, PeerId("a"), 1, (Task(0, 1),))).lease
        assert begun is not None
        rig.see("a", slots=1, running=((begun, TestIndex(0), 0.5),))
        assert rig.plan().recalls == (Recall(begun, high.id, 0.0),), "it came first, since it was ready"

        rig.see("a", slots=1, running=((high.leases[0], TestIndex(0), 0.5),))
        assert rig.plan().recalls == ()
        assert [grant.run for grant in rig.plan().grants] == [low.id]

    def test_only_on_workers_that_can_do_it(self, rig: Rig) -> None:
        start(rig)
        rival(rig, 90, requires="gpu")
        assert rig.plan().recalls == ()

    def test_who_has_aged_into_the_takers_band_keeps_what_it_has(self, rig: Rig) -> None:
        start(rig)
        rig.now += 80 * AGEING_SECONDS
        rival(rig, 90)
        assert rig.plan().recalls == ()

    def test_a_log_that_cannot_hold_it_is_spared_it(self) -> None:
        rig = Rig(log_format=LOG_FORMAT_MIN - 1)
        start(rig)
        rival(rig, 90)
        assert {recall.grace for recall in rig.plan().recalls} == {None}

    def test_fat_leases_come_back_for_an_equal_that_has_less(self, rig: Rig) -> None:
        rig.worker("a", slots=1)
        first = rig.running([Task(i, 1) for i in range(500)], [0.5] * 500, "1")
        rig.follow(rig.plan())
        assert rig.plan().recalls == ()
        second = rig.running([Task(i, 1) for i in range(500)], [0.5] * 500, "2", submitter=PeerId("y"))
        assert rig.plan().recalls == (Recall(first.leases[0], second.id, None),)
        lease = rig.state.leases[first.leases[0]]
        rig.accept(Return(lease.id, tuple(map(TestIndex, members(lease.open)[1:]))))
        rig.follow(rig.plan())
        assert second.leased
        assert rig.plan().recalls == (), f"what is left is below {FAT_SECONDS} s"


class TestTaking:
    def test_the_taker_gets_the_slots_and_the_rest_goes_on_after_it(self, rig: Rig) -> None:
        low = start(rig)
        high = rival(rig, 90)
        for recall in rig.plan().recalls:
            rig.accept(Preempt(recall.lease, recall.run))
        rig.follow(rig.plan())
        assert (low.leased, high.leased) == (0, 2)
        assert rig.plan().recalls == ()
        while not over(low):
            rig.finish_leases()
            rig.follow(rig.plan())
        assert (low.done, high.done) == (low.tests, high.tests)
        assert rig.state.workers[PeerId("a")].losses == 0

    def test_a_worn_test_is_spared(self, rig: Rig) -> None:
        low = start(rig, slots=1)
        high = rival(rig, 90)
        low.preempted[members(rig.state.leases[low.leases[0]].open)[0]] = PREEMPTIONS_MAX
        assert rig.plan().recalls == (Recall(low.leases[0], high.id, None),)


class TestTimers:
    def test_asked_at_once_again_after_a_while_and_taken_after_the_grace(self) -> None:
        timers = Recalls()
        recall = Recall(LeaseId(7), RunId(1), 10.0)
        assert timers.due([recall], 100.0) == ([7], [])
        assert timers.due([recall], 100.1) == ([], [])
        assert timers.due([recall], 100.0 + ASK_SECONDS) == ([7], [])
        assert timers.due([recall], 110.0) == ([], [Preempt(LeaseId(7), RunId(1))])

    def test_the_grace_begins_anew_once_nobody_asks(self) -> None:
        timers = Recalls()
        recall = Recall(LeaseId(7), RunId(1), 10.0)
        timers.due([recall], 0.0)
        timers.due([], 5.0)
        assert timers.due([recall], 9.0) == ([7], [])
        assert timers.due([recall], 12.0) == ([7], [])
        assert timers.due([recall], 19.0)[1]

    def test_without_grace_at_once_and_without_a_limit_never(self) -> None:
        timers = Recalls()
        assert timers.due([Recall(LeaseId(7), RunId(1), 0.0)], 0.0) == ([], [Preempt(LeaseId(7), RunId(1))])
        forever = Recall(LeaseId(8), RunId(1), None)
        assert timers.due([forever], 0.0) == ([8], [])
        assert timers.due([forever], 1e6) == ([8], [])

    def test_another_coordinator_grants_every_grace_anew(self) -> None:
        timers = Recalls()
        recall = Recall(LeaseId(7), RunId(1), 10.0)
        timers.due([recall], 0.0)
        timers.restart()
        assert timers.due([recall], 100.0) == ([7], [])


@settings(max_examples=examples(20), deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 60), st.integers(0, 100), st.integers(1, 6), st.sampled_from(["now", "grace"])),
        max_size=12,
    ),
    st.integers(1, 3),
)
def test_no_ping_pong(arrivals: list[tuple[int, int, int, str]], slots: int) -> None:
    """Runs of all priorities come one after another, age, and take from each other as hard as they may: no test is
    taken more than `PREEMPTIONS_MAX` times, only ever by a run that was submitted above it, and every run ends."""
    rig, timers = Rig(), Recalls()
    rig.worker("a", slots=slots)
    taken: Counter[tuple[int, int]] = Counter()
    due = sorted(arrivals, key=lambda arrival: arrival[0])
    runs = [rival(rig, 20, "first", tests=5)]
    left: dict[tuple[int, int], int] = {}
    for minute in range(2_000):
        while due and due[0][0] <= minute:
            _, priority, tests, mode = due.pop(0)
            runs.append(
                rival(rig, priority, f"{len(runs)}", tests, submitter=PeerId(f"s{len(runs) % 3}"), preempt=mode)
            )
        while True:
            plan = rig.plan()
            _, takes = timers.due(plan.recalls, rig.now)
            for take in takes:
                lease = rig.state.leases[take.lease]
                low, high = rig.state.runs[lease.run], rig.state.runs[take.run]
                assert high.spec.priority - low.spec.priority >= TAKE_POINTS
                taken.update((low.id, test) for test in members(lease.open))
                rig.accept(take)
            if not rig.follow(rig.plan()) and not takes:
                break
        for lease in list(rig.state.leases.values()):
            for test in members(lease.open):
                key = (lease.id, test)
                left[key] = left.get(key, 3) - 1
                if not left[key]:
                    rig.complete(lease.id, [test], 180_000_000)
        rig.now += 60
        if not due and all(over(run) for run in runs):
            break
    assert all(run.done == run.tests for run in runs)
    assert max(taken.values(), default=0) <= PREEMPTIONS_MAX

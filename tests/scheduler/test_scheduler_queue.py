"""Who is served next: bands, fair shares, ageing, deadlines; by a model that serves slots, and as plans."""

from collections import Counter
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scheduler_rig import Rig, members, over

from mesh.scheduler.plan import DEADLINE_SLACK, GRANT_SECONDS_SHARED_MAX
from mesh.scheduler.queue import AGEING_SECONDS, BAND_POINTS, URGENT_PARTS, Claim, TaskQueue, band, standings
from mesh.state.model import Run, RunPhase, Task
from protocols.commands import Cancel, Return
from protocols.errors import MeshFailed
from protocols.ids import PeerId, RunId, TestIndex
from tests.properties import examples


def claim(run: int, submitter: str = "s", project: str = "p", priority: int = 50, **fields: object) -> Claim:
    return Claim(RunId(run), PeerId(submitter), project, priority, **fields)  # type: ignore[arg-type]


def fill(claims: Iterable[Claim], slots: int) -> Counter[int]:
    """Slots by run, of so many that are handed out one by one to runs that could use all of them."""
    queue = TaskQueue(claims)
    given: Counter[int] = Counter()
    for _ in range(slots):
        one = queue.next()
        assert one is not None
        queue.serve(one, 1.0)
        given[one.run] += 1
    return given


class TestOrder:
    def test_bands_then_who_holds_least_then_priority_then_age(self) -> None:
        claims = [
            claim(1, "a", priority=10, held=0.0), claim(2, "b", held=3.0), claim(3, "c", held=1.0),
            claim(4, "d", held=1.0), claim(5, "e", priority=90, held=9.0), claim(6, "f", priority=51, held=1.1),
        ]  # fmt: skip
        assert [one.run for one in standings(reversed(claims))] == [5, 6, 3, 4, 2, 1]

    def test_a_higher_band_is_served_first_whatever_it_holds(self) -> None:
        assert fill([claim(1, priority=49), claim(2, "t", priority=50, held=99.0)], 7) == {2: 7}

    def test_equals_share_equally(self) -> None:
        assert fill([claim(1, "a"), claim(2, "b"), claim(3, "c")], 9) == {1: 3, 2: 3, 3: 3}

    def test_more_runs_and_projects_do_not_mean_more_slots(self) -> None:
        crowd = [claim(i, "crowd", f"p{i % 2}") for i in range(10, 20)]
        given = fill([claim(1, "alone"), *crowd], 40)
        assert given[1] == 20
        assert [given[run] for run in range(10, 20)] == [2] * 10

    def test_projects_of_a_submitter_share_its_part(self) -> None:
        given = fill([claim(1, "a", "x"), claim(2, "a", "y"), claim(3, "a", "y"), claim(4, "b", "x")], 16)
        assert given == {1: 4, 2: 2, 3: 2, 4: 8}

    def test_shares_are_weights(self) -> None:
        assert fill([claim(1, "a", share=3), claim(2, "b")], 12) == {1: 9, 2: 3}

    def test_priority_within_the_band_is_a_weight(self) -> None:
        assert fill([claim(1, "a", priority=55), claim(2, "b", priority=50)], 25) == {1: 15, 2: 10}
        assert fill([claim(1, "a", priority=100), claim(2, "b", priority=90)], 30) == {1: 20, 2: 10}

    def test_what_is_held_counts(self) -> None:
        assert fill([claim(1, "a", held=4.0), claim(2, "b")], 6) == {1: 1, 2: 5}

    def test_who_leaves_leaves_the_rest_to_the_others(self) -> None:
        queue = TaskQueue([claim(1, "a"), claim(2, "b", "x"), claim(3, "b", "y"), claim(4, "c", priority=0)])
        served = []
        for limit in (1, 2, 3, 4):
            one = queue.next()
            assert one is not None
            served.append(one.run)
            assert limit == one.run
            queue.leave(one)
        assert served == [1, 2, 3, 4]
        assert queue.next() is None


class TestAgeing:
    def test_a_run_rises_by_waiting_and_joins_the_highest(self) -> None:
        age = (90 - 20) * AGEING_SECONDS
        young = [claim(1, "a", priority=20, age=age - 1.0), claim(2, "b", priority=95)]
        assert fill(young, 10) == {2: 10}
        old = [claim(1, "a", priority=20, age=age), claim(2, "b", priority=90)]
        assert fill(old, 10) == {1: 5, 2: 5}

    def test_nobody_rises_over_what_was_submitted(self) -> None:
        ages = [claim(1, "a", age=1e9), claim(2, "b", priority=55, age=0.0)]
        assert fill(ages, 10)[2] > 5
        assert claim(1, age=1e9).aged(5) == 5

    def test_standings_tell_place_and_part(self) -> None:
        age = 40 * AGEING_SECONDS
        found = {one.run: one for one in standings([
            claim(1, "a", priority=10, age=age, held=2.0), claim(2, "b", held=1.0), claim(3, "b", "q", priority=0),
        ])}  # fmt: skip
        assert [(one.place, one.of, one.band, one.own) for one in found.values()] == [
            (1, 3, 5, 5),
            (2, 3, 5, 1),
            (3, 3, 0, 0),
        ]
        assert (found[RunId(1)].part, found[RunId(3)].part) == (0.5, 1.0)

    @settings(max_examples=examples(25), deadline=None)
    @given(st.data())
    def test_nothing_starves(self, data: st.DataObject) -> None:
        """A stream of submitters of any priority; whatever comes, who has waited `AGEING_SECONDS * (100 - priority)`
        gets its part of the slots that come free: with at most n submitters at a time, one of n, and one of four times
        n while runs are urgent (weights are within a factor of two)."""
        priority = data.draw(st.integers(0, 100))
        urgent = data.draw(st.booleans())
        others = data.draw(st.integers(1, 4))
        bound = AGEING_SECONDS * (100 - priority)
        patient = claim(1, "patient", priority=priority, age=bound)
        rivals = [
            claim(
                10 + i, f"rival{i}", priority=data.draw(st.integers(0, 100)), age=data.draw(st.floats(0, 10_000)),
                held=float(data.draw(st.integers(0, 50))),
                due=data.draw(st.sampled_from([None, 5.0 + i])) if urgent else None,
            )
            for i in range(others)
        ]  # fmt: skip
        slots = 400
        got = fill([patient, *rivals], slots)[1]
        floor = slots / (1 + 2 * others) / (1 + URGENT_PARTS if urgent else 1)
        assert got >= int(floor) - 1, f"{got} of {slots} beside {rivals}"


class TestUrgency:
    def test_the_earliest_deadline_first_and_three_quarters_at_most(self) -> None:
        given = fill([claim(1, "a"), claim(2, "b", due=20.0), claim(3, "c", due=10.0)], 40)
        assert given == {1: 10, 3: 30}

    def test_alone_it_has_all(self) -> None:
        assert fill([claim(2, "b", due=20.0)], 8) == {2: 8}

    def test_only_within_its_band(self) -> None:
        assert fill([claim(1, "a", priority=60), claim(2, "b", due=1.0)], 8) == {1: 8}


def test_bands_cover_all_priorities() -> None:
    assert [band(priority) for priority in (0, 9, 10, 50, 59, 60, 89, 90, 99, 100)] == [0, 0, 1, 5, 5, 6, 8, 9, 9, 9]
    assert BAND_POINTS == 10


# Plans


@pytest.fixture
def rig() -> Rig:
    return Rig()


def slots_of(rig: Rig, run: Run) -> int:
    return sum(len(members(rig.state.leases[lease].open)) for lease in run.leases)


def settle(rig: Rig) -> None:
    """Plans until there is nothing more to grant."""
    while rig.follow(rig.plan()):
        pass


class TestPlans:
    def test_runs_share_the_workers_at_the_same_time(self, rig: Rig) -> None:
        for name in ("a", "b", "c"):
            rig.worker(name, slots=4)
        one = rig.running([Task(0, 100)], [60.0] * 100, "1", submitter=PeerId("x"))
        two = rig.running([Task(0, 100)], [60.0] * 100, "2", submitter=PeerId("y"))
        rig.follow(rig.plan())
        assert (slots_of(rig, one), slots_of(rig, two)) == (6, 6)

    def test_who_comes_later_gets_what_comes_free_until_it_is_even(self, rig: Rig) -> None:
        rig.worker("a", slots=8)
        one = rig.running([Task(0, 100)], [60.0] * 100, "1", submitter=PeerId("x"))
        settle(rig)
        assert slots_of(rig, one) == 8
        two = rig.running([Task(0, 100)], [60.0] * 100, "2", submitter=PeerId("y"))
        assert rig.plan().grants == ()
        for slots in (1, 2, 3, 4):
            lease = rig.state.leases[one.leases[0]]
            rig.complete(lease.id, members(lease.open)[:1], 60_000_000)
            settle(rig)
            assert (slots_of(rig, one), slots_of(rig, two)) == (8 - slots, slots)

    @pytest.mark.parametrize("tests", [1, 6])
    @pytest.mark.parametrize("known", [True, False])
    @pytest.mark.parametrize("seconds", [0.001, 0.1])
    def test_a_short_run_finds_room_beside_a_long_one(self, rig: Rig, tests: int, known: bool, seconds: float) -> None:
        rig.worker("a", slots=1)
        rig.worker("b", slots=1)
        rig.running([Task(0, 50_000)], [seconds] * 50_000, "1")
        settle(rig)
        short = rig.running([Task(0, tests)], [seconds] * tests if known else None, "2", submitter=PeerId("y"))
        rounds = 0
        while short.done < tests:
            for recall in rig.plan().recalls:
                back = members(rig.state.leases[recall.lease].open)[1:]
                rig.accept(Return(recall.lease, tuple(map(TestIndex, back))))
            settle(rig)
            rounds += 1
            for worker in rig.state.workers.values():  # a tenth of a second's work, the oldest first
                left = max(1, round(0.1 / seconds))
                for lease in list(worker.leases):
                    now = members(rig.state.leases[lease].open)[:left]
                    left -= len(now)
                    if now:
                        rig.complete(lease, now, round(seconds * 1e6))
            assert rounds < 60, "it waits for no more than six seconds"

    def test_grants_are_small_while_another_run_waits(self, rig: Rig) -> None:
        rig.worker("a", slots=2)
        rig.running([Task(0, 10_000)], [0.1] * 10_000, "1")
        rig.running([Task(0, 10_000)], [0.1] * 10_000, "2", submitter=PeerId("y"))
        grants = rig.plan().grants
        assert len({grant.run for grant in grants}) == 2
        assert sum(len(members(grant.tasks)) for grant in grants) <= (2 + 1) * GRANT_SECONDS_SHARED_MAX / 0.1

    def test_a_run_that_nobody_can_do_leaves_its_part(self, rig: Rig) -> None:
        rig.worker("a", slots=4)
        rig.running([Task(0, 9)], [60.0] * 9, "1", requires="gpu")
        two = rig.running([Task(0, 9)], [60.0] * 9, "2", submitter=PeerId("y"))
        rig.follow(rig.plan())
        assert slots_of(rig, two) == 4

    def test_collections_go_by_band(self, rig: Rig) -> None:
        rig.worker("a")
        low, high = rig.submit("1", priority=10), rig.submit("2", priority=60)
        assert [grant.run for grant in rig.plan().grants] == [high.id, low.id]
        rig.now += (70 - 10) * AGEING_SECONDS
        newer = rig.submit("3", priority=60)
        assert [grant.run for grant in rig.plan().grants] == [high.id, low.id, newer.id]

    @settings(max_examples=examples(15), deadline=None)
    @given(
        st.lists(st.tuples(st.sampled_from("xyz"), st.integers(0, 100), st.integers(1, 40)), min_size=1, max_size=6),
        st.integers(1, 4),
    )
    def test_every_run_ends_and_no_slot_idles_while_tests_wait(
        self, runs: list[tuple[str, int, int]], slots: int
    ) -> None:
        rig = Rig()
        for name in ("a", "b"):
            rig.worker(name, slots=slots)
        everything = [
            rig.running([Task(0, count)], [60.0] * count, f"{i}", submitter=PeerId(who), priority=priority)
            for i, (who, priority, count) in enumerate(runs)
        ]
        for _ in range(sum(count for _, _, count in runs) + 1):
            settle(rig)
            pending = sum(run.pending_tests for run in everything)
            leased = sum(run.leased for run in everything)
            assert leased >= 2 * slots or not pending, "a slot has nothing to do, and tests wait"
            rig.finish_leases(60_000_000)
            rig.now += 60
            if all(over(run) for run in everything):
                break
        assert all(run.done == run.tests for run in everything)


class TestDeadlines:
    def test_at_risk_it_goes_first(self, rig: Rig) -> None:
        rig.worker("a", slots=4)
        rig.running([Task(0, 99)], [10.0] * 99, "1", submitter=PeerId("x"))
        late = rig.running([Task(0, 40)], [10.0] * 40, "2", submitter=PeerId("y"), deadline=1000.0)
        assert [one.due for one in rig.plan().claims] == [None, None], "100 s of work on 4 slots, 1000 s left"
        rig.now += 1000 - DEADLINE_SLACK * 100
        assert [one.due for one in rig.plan().claims] == [None, late.submitted_at + 1000]
        rig.follow(rig.plan())
        assert slots_of(rig, late) == 3

    def test_a_missed_one_ends_the_run_in_words(self, rig: Rig) -> None:
        rig.worker("a", slots=2)
        run = rig.running([Task(0, 40)], [10.0] * 40, deadline=60.0)
        (lease,) = rig.follow(rig.plan())
        rig.complete(lease.id, members(lease.open)[:2])
        rig.now += 59
        assert rig.plan().cancels == ()
        rig.now += 1
        end = Cancel(run.id, "the deadline of 60 s passed: 2 of 40 tests had their verdict", MeshFailed.exit_code)
        assert rig.plan().cancels == (end,)
        rig.accept(end)
        assert (run.phase, run.leases, rig.plan().cancels) == (RunPhase.REPORTING, [], ())

    def test_one_that_is_not_even_collected_ends_too(self, rig: Rig) -> None:
        run = rig.submit(deadline=5.0)
        rig.now += 5
        assert rig.plan().cancels == (
            Cancel(run.id, "the deadline of 5 s passed: nothing was collected", MeshFailed.exit_code),
        )

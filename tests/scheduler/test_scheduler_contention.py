"""Tests that slow each other down: how they are found out, and that plans keep them apart."""

import math

import pytest
from scheduler_rig import Rig, members

from mesh.scheduler import contention as module
from mesh.scheduler.contention import (
    LONG_SECONDS,
    QUICK_RUNS,
    RUNS_REMEMBERED,
    SLOW_RUNS,
    Contention,
    Stretch,
    beside,
)
from mesh.scheduler.durations import Estimates
from mesh.scheduler.plan import Plan
from mesh.scheduler.tasks import shard
from mesh.state.model import Run, Task
from protocols.ids import Cid, PeerId, RunId
from protocols.manifests import CollectedTest, Manifest

A, B = PeerId("a"), PeerId("b")
OTHERS = tuple((f"o{n}", 50.0 + n, 0.8) for n in range(4))


class Lab:
    """Runs one after another on workers that a test says."""

    def __init__(self) -> None:
        self.contention = Contention()
        self.runs = 0

    def run(self, *ran: tuple[str, float, float], worker: PeerId = A, project: str = "p") -> frozenset[str]:
        """Each test with its start and its seconds; what is known to contend afterwards."""
        self.runs += 1
        for test, started, seconds in ran:
            self.contention.note(RunId(self.runs), worker, Stretch(test, started, seconds))
        self.contention.end(RunId(self.runs), project)
        return self.contention.contending(project)

    def apart(self) -> frozenset[str]:
        return self.run(("x", 0, 2.0), ("y", 10, 3.0), *OTHERS)

    def together(self) -> frozenset[str]:
        """The others at their usual pace, x and y beside each other at less than half of theirs."""
        return self.run(("x", 0, 5.0), ("y", 0, 7.0), *OTHERS)


@pytest.fixture
def lab() -> Lab:
    return Lab()


class TestLearning:
    def test_time_beside_others(self) -> None:
        ran = [Stretch("a", 0, 10), Stretch("b", 2, 3), Stretch("c", 4, 2), Stretch("d", 9, 3), Stretch("e", 20, 1)]
        assert beside(ran) == [5, 3, 2, 1, 0]
        assert beside([]) == []

    def test_who_is_slow_beside_others_again_and_again_contends(self, lab: Lab) -> None:
        for _ in range(QUICK_RUNS):
            assert lab.apart() == frozenset()
        for _ in range(SLOW_RUNS - 1):
            assert lab.together() == frozenset()
        assert lab.together() == {"x", "y"}
        assert lab.contention.contending("other") == frozenset()

    def test_who_was_never_quick_is_just_long(self, lab: Lab) -> None:
        for _ in range(9):
            assert lab.together() == frozenset()

    def test_who_is_slow_alone_does_not_contend(self, lab: Lab) -> None:
        for _ in range(QUICK_RUNS):
            lab.apart()
        for _ in range(9):
            assert lab.run(("x", 0, 5.0), ("y", 10, 7.0), *OTHERS) == frozenset()

    def test_neither_a_busy_hour_nor_a_slow_host_makes_tests_contend(self, lab: Lab) -> None:
        """All that runs there takes three times as long, beside others as it happens."""
        quick = [(f"t{n}", n, 1.0) for n in range(9)]
        for _ in range(QUICK_RUNS):
            lab.run(*quick)
        for _ in range(9):
            assert lab.run(*((test, start, 3.0) for test, start, _ in quick), worker=B) == frozenset()

    def test_who_is_not_slow_any_more_is_forgiven(self, lab: Lab) -> None:
        for _ in range(QUICK_RUNS):
            lab.apart()
        for _ in range(SLOW_RUNS):
            lab.together()
        found = [lab.apart() for _ in range(RUNS_REMEMBERED)]
        assert found[0] == {"x", "y"}
        assert found[-1] == frozenset()

    def test_short_tests_and_nonsense_are_not_looked_at(self, lab: Lab) -> None:
        short = LONG_SECONDS / 2
        for started, seconds in ((0.0, short), (math.nan, 1.0), (0.0, math.nan), (0.0, math.inf), (math.inf, 1.0)):
            lab.run(("x", started, seconds))
        assert not lab.contention._projects["p"]
        lab.run(("x", 1e300, 1.0), ("y", -1e300, 1.0))
        assert set(lab.contention._projects["p"]) == {"x", "y"}

    def test_what_was_told_twice_did_not_run_beside_itself(self, lab: Lab) -> None:
        for _ in range(QUICK_RUNS):
            lab.apart()
        for _ in range(9):
            assert lab.run(*[("x", 0, 5.0)] * 2, *OTHERS) == frozenset()

    def test_all_that_is_kept_is_bounded(self, lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("TESTS_MAX", "PROJECTS_MAX", "OPEN_RUNS_MAX", "NOTED_MAX"):
            monkeypatch.setattr(module, name, 3)
        for n in range(5):
            lab.run(*((f"t{n}-{m}", m, 1.0) for m in range(9)), project=f"p{n}")
        kept = lab.contention._projects
        assert list(kept) == ["p2", "p3", "p4"]
        assert [len(known) for known in kept.values()] == [3, 3, 3]
        for run in range(9):
            lab.contention.note(RunId(run), A, Stretch("x", 0, 1))
        assert list(lab.contention._noted) == [6, 7, 8]


class TestPlans:
    @pytest.fixture
    def rig(self) -> Rig:
        made = Rig()
        for name in "ab":
            made.worker(name, slots=2)
        return made

    @staticmethod
    def running(rig: Rig, seconds: list[float], contending: set[int]) -> Run:
        run = rig.running([Task(n, 1) for n in range(len(seconds))], seconds)
        rig.estimates[run.id] = Estimates(seconds, contending=frozenset(contending))
        return run

    @staticmethod
    def placed(plan: Plan, contending: set[int]) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for grant in plan.grants:
            found.setdefault(grant.worker, []).extend(test for test in members(grant.tasks) if test in contending)
        return found

    def test_they_go_to_different_workers(self, rig: Rig) -> None:
        self.running(rig, [4.0, 4.0, *[1.0] * 92], {0, 1})
        placed = self.placed(rig.plan(), {0, 1})
        assert sorted(map(len, placed.values())) == [1, 1]

    def test_without_that_knowledge_they_would_not(self, rig: Rig) -> None:
        self.running(rig, [4.0, 4.0, *[1.0] * 92], set())
        assert sorted(map(len, self.placed(rig.plan(), {0, 1}).values())) == [0, 2]

    def test_one_waits_while_there_is_something_else_to_do(self, rig: Rig) -> None:
        contending = {0, 1, 2, 3}
        run = self.running(rig, [*[4.0] * 4, *[1.0] * 60], contending)
        at_once = []
        while run.done < run.tests:
            rig.follow(rig.plan())
            leases = list(rig.state.leases.values())
            held: dict[str, set[int]] = {}
            for lease in leases:
                held.setdefault(lease.worker, set()).update(members(lease.open))
            left = {test for task in run.pending for test in members([task])}
            at_once += [len(tests & contending) for tests in held.values() if left - contending]
            lease = leases[0]
            rig.complete(lease.id, members(lease.open)[:1], micros=1_000_000)
        assert max(at_once) == 1

    def test_no_slot_is_idle_for_it(self, rig: Rig) -> None:
        run = self.running(rig, [4.0] * 8, set(range(8)))
        while rig.follow(rig.plan()):
            pass
        held = [
            sum(len(members(lease.open)) for lease in rig.state.leases.values() if lease.worker == w) for w in (A, B)
        ]
        assert held == [2, 2]
        for _ in range(8):
            lease = next(iter(rig.state.leases.values()))
            rig.complete(lease.id, members(lease.open)[:1])
            rig.follow(rig.plan())
        assert run.done == run.tests == 8

    def test_each_stands_alone_in_its_task(self) -> None:
        manifest = Manifest(Cid("b"), tuple(CollectedTest(str(n), "m") for n in range(6)))
        made = shard(manifest, Estimates([0.01] * 6, contending=frozenset({2, 3})))
        assert made == (Task(0, 2), Task(2, 1), Task(3, 1), Task(4, 2))

"""Durations, sharding, the queue, expiry and feasibility: small pure functions, by their values."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scheduler_rig import GPU, Rig, members

from mesh.scheduler import feasibility
from mesh.scheduler.durations import DURATION_MIN, Estimates
from mesh.scheduler.feasibility import Need, Reason
from mesh.scheduler.fleet import WorkerView
from mesh.scheduler.leases import expired
from mesh.scheduler.tasks import TASK_SECONDS_MAX, TASK_TESTS_MIN, shard
from mesh.state import ranges
from mesh.state.model import Task
from protocols.commands import Expire
from protocols.ids import Cid, PeerId
from protocols.manifests import CollectedTest, Manifest


class TestDurations:
    def test_never_nothing(self) -> None:
        assert list(Estimates([0.0, -1.0])) == pytest.approx([DURATION_MIN] * 2)

    def test_sequence(self) -> None:
        made = Estimates([1.0, 2.0, 3.0])
        assert (len(made), made[1], made[-1], made[1:]) == (3, 2.0, 3.0, [2.0, 3.0])
        assert Estimates.of(made) is made
        assert list(Estimates.of([1.0])) == [1.0]
        with pytest.raises(IndexError):
            made[3]

    @given(st.lists(st.integers(1, 9), min_size=1, max_size=30), st.data())
    def test_sums(self, values: list[int], data: st.DataObject) -> None:
        made = Estimates(map(float, values))
        first = data.draw(st.integers(0, len(values) - 1))
        count = data.draw(st.integers(0, len(values) - first))
        seconds = float(data.draw(st.integers(0, 60)))
        assert made.total(first, count) == sum(values[first : first + count])
        best = max(n for n in range(count + 1) if sum(values[first : first + n]) <= seconds)
        assert made.fitting(first, count, seconds) == best


def manifest(scopes: str, requirements: str = "") -> Manifest:
    tests = zip(scopes, requirements or "0" * len(scopes), strict=True)
    return Manifest(Cid("b"), tuple(CollectedTest(str(i), s, int(r)) for i, (s, r) in enumerate(tests)))


class TestSharding:
    def test_by_scope_and_requirement(self) -> None:
        made = shard(manifest("aabbba", "001110"), Estimates([0.01] * 6))
        assert made == (Task(0, 2), Task(2, 3, 1), Task(5, 1))

    def test_requirement_within_a_scope(self) -> None:
        assert shard(manifest("aaaa", "0110"), Estimates([0.01] * 4)) == (Task(0, 1), Task(1, 2, 1), Task(3, 1))

    def test_long_tests_stand_alone(self) -> None:
        made = shard(manifest("aaaaa"), Estimates([0.5, 0.5, 20.0, 0.5, 1.5]))
        assert made == (Task(0, 2), Task(2, 1), Task(3, 2))

    def test_guesses_do_not_split(self) -> None:
        assert shard(manifest("a" * 50), Estimates.unknown(50)) == (Task(0, 50),)

    def test_empty(self) -> None:
        assert shard(manifest(""), Estimates([])) == ()

    def test_large_manifests_have_larger_tasks(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("mesh.scheduler.tasks.TASKS_AIM", 4)
        tests = 8 * TASK_TESTS_MIN
        assert [task.count for task in shard(manifest("a" * tests), Estimates.unknown(tests))] == [128] * 4

    @given(st.text("ab", max_size=200), st.data())
    def test_a_partition_within_bounds(self, scopes: str, data: st.DataObject) -> None:
        seconds = data.draw(st.lists(st.floats(0, 3), min_size=len(scopes), max_size=len(scopes)))
        estimates = Estimates(seconds)
        made = shard(manifest(scopes), estimates)
        assert ranges.partitions(made, len(scopes))
        for task in made:
            assert len({scopes[test] for test in members([task])}) == 1
            assert task.count == 1 or estimates.total(task.first, task.count) <= TASK_SECONDS_MAX + 1e-6
            assert task.count <= TASK_TESTS_MIN


def test_expiry() -> None:
    rig = Rig()
    for name in ("a", "b", "c", "d"):
        rig.worker(name)
    run = rig.running([Task(0, 4)])
    leases = {}
    for i, name in enumerate(("d", "c", "b", "a")):
        leases[name] = rig.accept(type(rig.plan().grants[0])(run.id, PeerId(name), 1, (Task(i, 1),))).lease
    rig.fleet[PeerId("a")] = WorkerView(PeerId("a"), 1, alive=False)
    rig.fleet[PeerId("b")] = WorkerView(PeerId("b"), 1, alive=False, lost=True)
    rig.fleet[PeerId("c")] = WorkerView(PeerId("c"), 2, alive=True)
    del rig.fleet[PeerId("d")]
    assert expired(rig.state, rig.fleet) == (
        Expire(leases["c"], "its worker has restarted"),
        Expire(leases["b"], "its worker is lost"),
    )


class TestFeasibility:
    def test_needs_are_joined(self) -> None:
        both = feasibility.need(("a", "x"), ("b or c", "x"))
        assert both == Need(("a", "b or c"), ("x",))
        assert str(both) == "(a) and (b or c)"
        assert str(feasibility.need(("a", ""), (" ", ""))) == "a"

    def test_reasons(self) -> None:
        rig = Rig()
        rig.worker("a", capabilities=GPU)
        rig.worker("b")
        rig.worker("c", draining=True)
        rig.worker("d", alive=False)
        rig.worker("e", alive=False, lost=True)
        rig.worker("f", slots=0)
        rig.fleet[PeerId("g")] = WorkerView(PeerId("g"), 1, alive=True, name="g")
        rig.worker("h")
        rig.fleet[PeerId("h")] = WorkerView(PeerId("h"), 2, alive=True, name="h")
        capable, reasons = feasibility.split(rig.state, rig.fleet.values(), Need(("gpu.memory >= 8GiB",)))
        assert [view.peer for view in capable] == ["a"]
        assert [(reason.name, reason.text) for reason in reasons] == [
            ("b", "has no gpu"),
            ("c", "is draining"),
            ("d", "does not answer"),
            ("e", "is lost"),
            ("f", "has no slots"),
            ("g", "is not registered yet"),
            ("h", "is not registered yet"),
        ]

    def test_what_cannot_be_read_is_met_by_nobody(self) -> None:
        rig = Rig()
        rig.worker("a")
        capable, reasons = feasibility.split(rig.state, rig.fleet.values(), Need(("gpu >=",)))
        assert capable == []
        assert isinstance(reasons[0], Reason)
        assert reasons[0].text.startswith("can't judge it: requirement 'gpu >=': expected a value")

    def test_preference_counts(self) -> None:
        view = WorkerView(PeerId("a"), 1, alive=True, capabilities=GPU)
        assert feasibility.preference(Need((), ("gpu", "os == linux", "tpu", "gpu >=")), view) == 2

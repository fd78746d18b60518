"""What the coordinator learns of durations from the log's finished runs and their manifests."""

import dataclasses
from collections.abc import Sequence

import pytest
import trio

from mesh.coordinator import history as module
from mesh.coordinator.history import HINT_SECONDS, Error, History
from mesh.manifests import Manifests
from mesh.state.apply import apply
from mesh.state.model import CoordinatorState
from mesh.state.results import Applied
from protocols.codec import encode
from protocols.commands import Collected, Command, Complete, Finish, Grant, Register, Submit, TaskRange
from protocols.ids import Cid, PeerId, RunId, TestIndex
from protocols.manifests import CollectedTest, Manifest, RunSpec
from tests.fakes.content import FakeContent, Shelves
from tests.fakes.network import FakeNetwork, Lan

HERE, SLOW, FAST = PeerId("coordinator"), PeerId("slow"), PeerId("fast")
SPEC = RunSpec(Cid("bafybundle"), "suite", "suite", PeerId("client"))


class Lab:
    """A log, and content, without a mesh."""

    def __init__(self) -> None:
        shelves = Shelves(Lan())
        shelves.lan.nodes[HERE] = FakeNetwork(HERE, shelves.lan, None)
        self.content = FakeContent(shelves, HERE)
        self.state = CoordinatorState()
        for peer in (SLOW, FAST):
            self.do(Register(peer, peer, 1, 2))

    def do(self, command: Command) -> Applied:
        result = apply(self.state, self.state.applied + 1, command)
        assert isinstance(result, Applied), result
        return result

    async def run(
        self, seconds: dict[str, float], slow: Sequence[str] = (), project: str = "suite", kept: bool = True
    ) -> RunId:
        """A finished run; `slow`: its tests that the slow worker ran. Not `kept`: nobody has its manifest."""
        manifest = encode(Manifest(SPEC.bundle, tuple(CollectedTest(test, "m") for test in seconds)))
        cid = await self.content.put(manifest) if kept else Cid(f"gone-{self.state.applied}")
        run = self.do(Submit(b"%d" % self.state.applied, dataclasses.replace(SPEC, project=project), 100.0)).run
        assert run is not None
        lease = self.do(Grant(run, FAST, 1, ())).lease
        assert lease is not None
        self.do(Collected(lease, cid, len(seconds), tuple(TaskRange(n, 1) for n in range(len(seconds)))))
        for index, (test, took) in enumerate(seconds.items()):
            lease = self.do(Grant(run, SLOW if test in slow else FAST, 1, (TaskRange(index, 1),))).lease
            assert lease is not None
            self.do(Complete(lease, Cid("chunk"), (TestIndex(index),), bytes(1), (round(took * 1e6),)))
        self.do(Finish(run, None, 0, 200.0))
        return run

    async def expected(self, history: History, *tests: str, project: str = "suite") -> list[float]:
        manifest = Manifest(SPEC.bundle, tuple(CollectedTest(test, "m") for test in tests))
        return list(await history.estimates(self.state, project, manifest))


async def test_several_runs_are_learnt_from_and_each_project_from_its_own() -> None:
    lab = Lab()
    history = History(Manifests(lab.content))
    await lab.run({"a::x": 3.0, "a::y": 8.0})
    assert await lab.expected(history, "a::x", "a::y") == pytest.approx([3.0, 8.0])
    await lab.run({"a::x": 1.0})
    x, y = await lab.expected(history, "a::x", "a::y")
    assert 1.0 < x < 3.0
    assert y == pytest.approx(8.0, rel=0.1), "the newest run is not all that is known"
    await lab.run({"a::x": 60.0}, project="other")
    assert await lab.expected(history, "a::x", project="other") == pytest.approx([60.0])
    assert (await lab.expected(history, "a::x"))[0] == x


async def test_the_same_is_not_learnt_twice(monkeypatch) -> None:
    lab = Lab()
    history = History(Manifests(lab.content))
    learnt = []
    monkeypatch.setattr(
        module, "Learning", lambda records, real=module.Learning: learnt.append(len(records)) or real(records)
    )
    await lab.run({"a::x": 3.0})
    first = await history.learn(lab.state, "suite")
    assert await history.learn(lab.state, "suite") is first
    await lab.run({"a::x": 3.0})
    assert await history.learn(lab.state, "suite") is not first
    assert learnt == [1, 2]


async def test_who_ran_a_test_is_told_from_the_log() -> None:
    lab = Lab()
    tests = {f"a::t{n}": 0.1 + n / 50 for n in range(60)}
    for half in range(4):
        slow = [test for n, test in enumerate(tests) if (n >> half) & 1]
        await lab.run({test: took * (3 if test in slow else 1) for test, took in tests.items()}, slow)
    made = (await History(Manifests(lab.content)).learn(lab.state, "suite")).estimates(list(tests))
    assert made.factor(SLOW) / made.factor(FAST) == pytest.approx(3.0, rel=0.5)


async def test_the_error_is_that_of_the_newest_run_by_those_before_it() -> None:
    lab = Lab()
    history = History(Manifests(lab.content))
    assert await history.error(lab.state, "suite") is None
    await lab.run({"a::x": 2.0, "a::y": 5.0, "a::z": 1.0})
    assert await history.error(lab.state, "suite") is None, "nothing was before it"
    newest = await lab.run({"a::x": 4.0, "a::y": 4.0, "a::z": 1.0})
    error = await history.error(lab.state, "suite")
    assert error == Error(
        newest, pytest.approx(0.25), 3, pytest.approx(2 / 3), pytest.approx(9 / 8), pytest.approx(0.40625)
    )
    assert await history.error(lab.state, "suite") is error


async def test_what_is_learnt_from_is_bounded_and_the_newest_run_always_is(monkeypatch) -> None:
    lab = Lab()
    for seconds in (1.0, 2.0, 4.0, 8.0):
        await lab.run({"a::x": seconds, "a::y": seconds})
    counted = []
    monkeypatch.setattr(
        module, "Learning", lambda records, real=module.Learning: counted.append(len(records)) or real(records)
    )
    for runs_max, tests_max, expected in ((3, 99, 3), (9, 5, 2), (9, 1, 1)):
        monkeypatch.setattr(module, "RUNS_MAX", runs_max)
        monkeypatch.setattr(module, "TESTS_MAX", tests_max)
        counted.clear()
        await History(Manifests(lab.content)).learn(lab.state, "suite")
        assert counted == [expected]


async def test_only_so_many_models_are_kept(monkeypatch) -> None:
    monkeypatch.setattr(module, "MODELS_MAX", 2)
    lab = Lab()
    history = History(Manifests(lab.content))
    for project in ("a", "b", "c"):
        await lab.run({"x": 1.0}, project=project)
    first = await history.learn(lab.state, "a")
    for project in ("b", "a", "c"):
        await history.learn(lab.state, project)
    assert await history.learn(lab.state, "a") is first
    assert list(history._models) == ["c", "a"]


async def test_manifests_that_nobody_has_cost_their_time_once_and_together(autojump_clock) -> None:
    """Of a mesh that was restored without its content."""
    lab = Lab()
    history = History(Manifests(lab.content))
    for _ in range(3):
        await lab.run({"a::x": 3.0}, kept=False)
    start = trio.current_time()
    assert not (await history.learn(lab.state, "suite")).estimates(["a::x"]).known
    assert trio.current_time() - start <= HINT_SECONDS
    start = trio.current_time()
    await history.learn(lab.state, "suite")
    assert trio.current_time() == start
    await lab.run({"a::x": 3.0})
    assert await lab.expected(history, "a::x") == pytest.approx([3.0])

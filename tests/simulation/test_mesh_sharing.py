"""Runs that share a mesh, by real services on fake ports and simulated time: fair shares, preemption, deadlines."""

import pytest
import trio

from mesh.scheduler.preemption import GRACE_SECONDS
from mesh.state import admission
from mesh.state.invariants import check
from protocols.errors import MeshError
from protocols.ids import RunId
from tests.fakes.runner import suite_of
from tests.fakes.waiting import until
from tests.simulation.mesh_rig import Node, Rig, mesh, verdicts


async def ends_whole(rig: Rig, via: Node, run: RunId, tests: int, state: str = "passed") -> None:
    """One verdict for each test, and every member's state sound."""
    with trio.fail_after(2000):
        events = await rig.follow(via, run)
    assert len(verdicts(events)) == tests
    assert events[-1]["state"] == state
    for node in rig.nodes.values():
        check(node.log.state)


async def test_a_run_of_much_higher_priority_takes_the_slots_at_once_if_it_may(tmp_path, autojump_clock):
    suite = suite_of(12)
    suite.seconds = lambda test: 30.0
    async with mesh(tmp_path, suite) as rig:
        node = await rig.leader()
        low = await rig.submit(node, priority=10)
        state = node.log.state
        await until(lambda: len(suite.ran) == 6)
        await trio.sleep(20)
        high = await rig.submit(node, priority=90, preempt="now")
        await until(lambda: len(suite.ran) == 12)
        assert (state.runs[low].leased, state.runs[high].leased) == (0, 6)
        assert set(state.runs[low].preempted.values()) == {1}
        await ends_whole(rig, node, high, 12)
        assert trio.current_time() < 20 + 2 * 30 + 10, "two rounds, from almost at once on"
        assert state.runs[low].done == 0
        await ends_whole(rig, node, low, 12)
        assert all(worker.losses == 0 for worker in state.workers.values())
        assert set(state.runs[low].attempts) == {0}


async def test_too_many_shared_names_are_an_error_of_the_test_at_once(tmp_path, autojump_clock, monkeypatch):
    monkeypatch.setattr("mesh.state.shared.NAMES_MAX", 2)
    suite = suite_of(6)
    suite.seconds = lambda test: 60.0
    async with mesh(tmp_path, suite) as rig:
        node = await rig.leader()
        run = await rig.submit(node)
        await until(lambda: len(suite.ran) == 6)
        for name in "xy":
            assert (await node.agent.claim(run, name, 1)).mine
        before = node.log.applied
        with pytest.raises(MeshError, match="2 names are in use already"), trio.fail_after(1):
            await node.agent.claim(run, "z", 1)
        assert node.log.applied <= before + 1


async def test_running_tests_have_a_grace(tmp_path, autojump_clock):
    suite = suite_of(9)
    suite.seconds = lambda test: 20.0 if test.endswith("_0") else 90.0
    async with mesh(tmp_path, suite) as rig:
        node = await rig.leader()
        state = node.log.state
        low = await rig.submit(node, priority=10)
        await until(lambda: state.runs[low].leased == 6)
        start = trio.current_time()
        high = await rig.submit(node, priority=90)
        await until(lambda: state.runs[high].leased == 6)
        assert GRACE_SECONDS <= trio.current_time() - start < GRACE_SECONDS + 5
        assert state.runs[low].done == 1, "one ended meanwhile, and its verdict stays"
        assert len(state.runs[low].preempted) == 5
        await ends_whole(rig, node, high, 9)
        await ends_whole(rig, node, low, 9)


async def test_tests_that_only_wait_come_back_without_a_loss(tmp_path, autojump_clock):
    """A run alone is granted much at once; what it has not started is free for others soon after they come."""
    suite = suite_of(150)
    suite.seconds = lambda test: 1.0
    async with mesh(tmp_path, suite) as rig:
        node = await rig.leader()
        state = node.log.state
        low = await rig.submit(node, priority=50)
        await until(lambda: state.runs[low].leased > 40)
        high = await rig.submit(node, priority=80, preempt="waiting")
        await until(lambda: state.runs[high].leased > 0)
        start = trio.current_time()
        await until(lambda: state.runs[high].done > 0)
        assert trio.current_time() - start < 5
        await ends_whole(rig, node, high, 150)
        assert not state.runs[low].preempted
        await ends_whole(rig, node, low, 150)
        assert len(suite.ran) == 300, "nothing ran twice"


async def test_two_submitters_share_fairly(tmp_path, autojump_clock):
    suite = suite_of(150)
    suite.seconds = lambda test: 0.5
    async with mesh(tmp_path, suite) as rig:
        node = await rig.leader()
        other = next(one for one in rig.nodes.values() if one is not node)
        state = node.log.state
        first = await rig.submit(node)
        await until(lambda: state.runs[first].done > 20)
        second, third = await rig.submit(other), await rig.submit(other)
        await until(lambda: min(state.runs[second].done, state.runs[third].done) > 0)
        before = {run: state.runs[run].done for run in (first, second, third)}
        await until(lambda: state.runs[first].done >= 120)
        mine, *theirs = (state.runs[run].done - before[run] for run in before)
        assert (mine + sum(theirs)) ** 2 / (2 * (mine**2 + sum(theirs) ** 2)) > 0.95, "Jain's index of the submitters"
        assert min(theirs) / max(theirs) > 0.6, f"and of the runs of one: {theirs}"
        why = await node.backend.why(str(second))
        assert any("is its by right" in line for line in why["explanation"])
        for run in (first, second, third):
            await ends_whole(rig, node, run, 150)


async def test_a_deadline_that_passes_ends_the_run_in_words(tmp_path, autojump_clock):
    suite = suite_of(60)
    suite.seconds = lambda test: 10.0
    async with mesh(tmp_path, suite) as rig:
        node = await rig.leader()
        run = await rig.submit(node, deadline=45.0)
        with trio.fail_after(60):
            events = await rig.follow(node, run)
        assert (events[-1]["state"], events[-1]["exit_code"]) == ("error", 12)
        done = node.log.state.runs[run].done
        assert 12 <= done < 60
        assert node.log.state.runs[run].reason == f"the deadline of 45 s passed: {done} of 60 tests had their verdict"


async def test_a_submission_over_a_limit_is_refused_in_words(tmp_path, autojump_clock, monkeypatch):
    monkeypatch.setattr(admission, "RUNS_OPEN_PER_SUBMITTER_MAX", 1)
    async with mesh(tmp_path, suite_of(60)) as rig:
        node = await rig.leader()
        run = await rig.submit(node)
        with pytest.raises(MeshError, match="not accepted: this submitter has 1 unfinished runs") as refused:
            await rig.submit(node)
        assert refused.value.exit_code == 4
        await ends_whole(rig, node, run, 60)
        await rig.submit(node)

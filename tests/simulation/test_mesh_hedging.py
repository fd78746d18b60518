"""A test that hangs on one worker, by real services on fake ports and simulated time: who runs it too, and what becomes
of both when one of them, or the coordinator, dies."""

import pytest
import trio

from mesh.state.invariants import check
from protocols.ids import PeerId, RunId
from protocols.manifests import Outcome
from tests.fakes.runner import Suite, suite_of
from tests.fakes.waiting import until
from tests.simulation import mesh_rig
from tests.simulation.mesh_rig import Node, Rig, mesh, verdicts

SLOW = "test_0.py::test_0"
LONG = 10_000.0
HEDGED_SECONDS = 9.0
"""It straggles after 5 s, which the next heartbeats and plans see."""


def straggling(tests: int, second: float, others: float = 0.1) -> Suite:
    """The slow test takes for ever where it starts first, and `second` seconds elsewhere."""
    suite = suite_of(tests, modules=1)

    def seconds(test: str) -> float:
        if test != SLOW:
            return others
        return LONG if tries(suite)[-1] == tries(suite)[0] else second

    suite.seconds = seconds
    return suite


def tries(suite: Suite, test: str = SLOW) -> list[PeerId]:
    """The workers that it was begun on, in that order."""
    return [worker for worker, ran in suite.ran if ran == test]


async def ends(rig: Rig, run: RunId, tests: int) -> None:
    node = await rig.leader()
    with trio.fail_after(120):
        events = await rig.follow(node, run)
    assert verdicts(events) == dict.fromkeys((test.id for test in rig.suite.tests), "passed")
    assert len(verdicts(events)) == tests
    for member in rig.nodes.values():
        if member.up:
            check(member.log.state)
    with trio.fail_after(30):
        await until(lambda: not any(other.agent.busy for other in rig.nodes.values() if other.up))


async def hedged(rig: Rig, run: RunId, suite: Suite) -> Node:
    """The coordinator, once the slow test runs on two workers."""
    await until(lambda: len(tries(suite)) == 2, 60)
    node = await rig.leader()
    assert list(node.log.state.runs[run].hedges) == [0]
    assert len(set(tries(suite))) == 2
    return node


async def test_it_is_run_elsewhere_too_and_the_first_is_stopped(tmp_path, autojump_clock):
    suite = straggling(8, 0.1)
    async with mesh(tmp_path, suite, {"a": 1, "b": 1, "c": 1}) as rig:
        node = await rig.leader()
        start = trio.current_time()
        run = await rig.submit(node, hedge=True)
        await ends(rig, run, 8)
        assert trio.current_time() - start < HEDGED_SECONDS + 5
        assert len(tries(suite)) == len(set(tries(suite))) == 2
        assert len(suite.ran) == 9, "what waited behind it ran elsewhere, once"


async def test_it_is_not_unless_the_run_asks_for_it(tmp_path, autojump_clock):
    suite = straggling(3, 0.1)
    async with mesh(tmp_path, suite) as rig:
        node = await rig.leader()
        run = await rig.submit(node)
        await trio.sleep(10 * HEDGED_SECONDS)
        assert (len(tries(suite)), node.log.state.runs[run].done) == (1, 2)


async def test_a_log_that_older_nodes_read_is_told_nothing_of_it(tmp_path, autojump_clock, monkeypatch):
    monkeypatch.setattr(mesh_rig, "LOG_FORMAT_NEWEST", 2)
    async with mesh(tmp_path, suite_of(3)) as rig:
        node = await rig.leader()
        run = await rig.submit(node, hedge=True)
        assert not node.log.state.runs[run].spec.hedge
        await ends(rig, run, 3)


@pytest.mark.parametrize("who", ["holder", "hedge", "coordinator"])
async def test_whoever_dies_the_test_gets_its_one_verdict(tmp_path, autojump_clock, who):
    suite = straggling(4, 20.0)
    async with mesh(tmp_path, suite, dict.fromkeys("abcde", 1)) as rig:
        run = await rig.submit(await rig.leader(), hedge=True)
        node = await hedged(rig, run, suite)
        holder, hedge = tries(suite)
        dying = {"holder": holder, "hedge": hedge, "coordinator": node.peer}[who]
        rig.nodes[dying].crash()
        await until(lambda: not rig.nodes[dying].up)
        await ends(rig, run, 4)
        state = (await rig.leader()).log.state
        (verdict,) = [done for done in state.runs[run].chunks if 0 in done.tests]
        assert verdict.worker != holder, "there it hangs"


async def test_a_bad_test_goes_elsewhere_and_the_state_names_where_it_was_bad(tmp_path, autojump_clock):
    suite = suite_of(20)

    def outcome(test: str) -> Outcome:
        bad = test == SLOW and tries(suite)[-1] == tries(suite)[0]
        return Outcome.FAILED if bad else Outcome.PASSED

    suite.outcome = outcome
    async with mesh(tmp_path, suite) as rig:
        node = await rig.leader()
        run = await rig.submit(node, retries=3)
        await ends(rig, run, 20)
        first, second = tries(suite)
        assert first != second
        assert node.log.state.runs[run].failed_on == {0: (first,)}

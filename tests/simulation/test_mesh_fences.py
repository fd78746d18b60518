"""Fences of the services that a run without trouble does not need: outbox, second copies, a new leader's timers."""

from collections import Counter

import trio

from protocols.codec import decode
from protocols.work import Result
from tests.fakes.runner import Suite, suite_of
from tests.fakes.waiting import until
from tests.simulation.mesh_rig import Node, mesh, verdicts


async def test_what_lies_in_the_outbox_is_not_run_again(tmp_path, autojump_clock):
    """A worker that nobody acknowledged dies; its next process offers what is there before it registers."""
    suite = suite_of(200)
    async with mesh(tmp_path, suite) as rig:
        leader = await rig.leader()
        run = await rig.submit(leader)
        worker = next(node for node in rig.nodes.values() if node is not leader)
        await until(lambda: sum(peer == worker.peer for peer, _ in suite.ran) > 10)
        rig.lan.cut([worker.peer], [node.peer for node in rig.nodes.values() if node is not worker])
        await trio.sleep(1.0)
        kept = [decode(payload, Result) for _, payload in worker.outbox.items()]
        worker.crash()
        rig.lan.heal()
        await rig.restart(worker.peer)
        events = await rig.follow(leader, run)
        assert set(verdicts(events)) == {test.id for test in suite.tests}
        tests = [suite.tests[index].id for result in kept for index in result.tests]
        assert tests, "it had something to offer"
        ran = Counter(test for _, test in suite.ran)
        assert {test for test in tests if ran[test] != 1} == set()


async def test_a_recorded_chunk_lies_on_two_nodes(tmp_path, autojump_clock):
    """At the moment when the log names it, whoever worked on it."""
    suite = suite_of(120)
    async with mesh(tmp_path, suite) as rig:
        leader = await rig.leader()
        run = await rig.submit(leader)
        workers = set()
        while leader.log.state.runs[run].exit_code is None:
            for done in leader.log.state.runs[run].chunks:
                holders = [peer for peer, blocks in rig.shelves.blocks.items() if done.chunk in blocks]
                assert len(holders) >= 2, f"{done.chunk} of {done.worker} is on {holders} only"
                workers.add(done.worker)
            await trio.sleep(0.01)
        assert leader.peer in workers, "its own chunks need another's disk"


async def test_a_coordinator_that_returns_waits_in_full(tmp_path, autojump_clock):
    """What it last heard of the workers, when it led before, is no reason to take their leases."""
    suite = Suite(suite_of(6).tests, seconds=lambda test: 1000.0)
    async with mesh(tmp_path, suite) as rig:
        first = await rig.leader()
        await rig.submit(first)
        await until(lambda: len(suite.ran) == 6)
        second = next(node for node in rig.nodes.values() if node is not first)
        await _hand_over(first, second)
        await trio.sleep(60)
        await _hand_over(second, first)
        await trio.sleep(5)
        assert await rig.leader() is first
        assert [worker.losses for worker in first.log.state.workers.values()] == [0, 0, 0]
        assert len(suite.ran) == 6


async def _hand_over(giver: Node, taker: Node) -> None:
    assert await giver.log.transfer(taker.peer)
    await until(lambda: taker.log.is_leader)

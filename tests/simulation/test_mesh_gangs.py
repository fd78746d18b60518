"""A test that needs several hosts at once, by real services on fake ports and simulated time: what becomes of it, and
of its hosts, when one of them drains or dies, or the coordinator does."""

import dataclasses
from collections.abc import Callable

import pytest
import trio

from mesh.state.invariants import check
from mesh.state.model import Lease
from protocols.ids import RunId
from protocols.manifests import NOTHING, Needs
from tests.fakes.runner import Suite, suite_of
from tests.fakes.waiting import until
from tests.simulation.mesh_rig import Node, Rig, mesh, verdicts

GANG = "test_0.py::test_0"
LONG = 10_000.0


def with_gang(plain: int, seconds: Callable[[int], float], hosts: int = 2) -> Suite:
    """A test of so many hosts, which takes `seconds` of its so-manieth try, and plain ones of 50 ms."""
    suite = suite_of(plain + 1, modules=1)
    suite.tests[0] = dataclasses.replace(suite.tests[0], requirement=1)
    suite.requirements, suite.needs = (("", ""),) * 2, (NOTHING, Needs(hosts=hosts))
    suite.seconds = lambda test: seconds(tries(suite)) if test == GANG else 0.05
    return suite


def tries(suite: Suite) -> int:
    return sum(test == GANG for _, test in suite.ran)


async def begun(rig: Rig, suite: Suite, again: int = 1) -> Lease:
    """The gang's lease, once it runs for the so-manieth time."""
    await until(lambda: tries(suite) == again, 60)
    node = await rig.leader()
    (lease,) = (lease for lease in node.log.state.leases.values() if lease.companions)
    return lease


async def ends(rig: Rig, run: RunId, via: Node) -> None:
    with trio.fail_after(60):
        events = await rig.follow(via, run)
    assert verdicts(events) == dict.fromkeys((test.id for test in rig.suite.tests), "passed")
    for node in rig.nodes.values():
        if node.up:
            check(node.log.state)


async def test_nothing_runs_in_what_is_kept(tmp_path, autojump_clock):
    suite = with_gang(400, lambda _: 4.0)
    async with mesh(tmp_path, suite) as rig:
        leader = await rig.leader()
        run = await rig.submit(leader)
        companion = rig.nodes[(await begun(rig, suite)).hosts[1]]
        seen = set()
        while any(lease.companions for lease in leader.log.state.leases.values()):
            seen.add(companion.agent.busy)
            await trio.sleep(0.01)
        assert seen == {0, 1}, "of two slots"
        await ends(rig, run, leader)


async def test_a_companion_that_drains_waits_for_it(tmp_path, autojump_clock):
    suite = with_gang(10, lambda _: 5.0)
    async with mesh(tmp_path, suite) as rig:
        leader = await rig.leader()
        run = await rig.submit(leader)
        companion = rig.nodes[(await begun(rig, suite)).hosts[1]]
        await trio.sleep(1.5)
        start = trio.current_time()
        with trio.fail_after(30):
            await companion.agent.drain()
        assert trio.current_time() - start > 3.0
        assert not leader.log.state.workers[companion.peer].hosted
        await ends(rig, run, leader)
        assert tries(suite) == 1


@pytest.mark.parametrize("seed", range(4))
async def test_a_companion_that_dies_ends_it_on_its_worker_at_once(tmp_path, autojump_clock, seed):
    """Not with its next heartbeat, which may be a second away; and it goes on when there are enough hosts again."""
    suite = with_gang(0, lambda number: LONG if number == 1 else 0.5, hosts=3)
    async with mesh(tmp_path, suite, seed=seed) as rig:
        run = await rig.submit(await rig.leader())
        lease = await begun(rig, suite)
        worker, companion = (rig.nodes[peer] for peer in lease.hosts[:2])
        await trio.sleep(0.5)
        companion.crash()
        await until(lambda: not companion.up)
        coordinator = await rig.leader()
        await until(lambda: lease.id not in coordinator.log.state.leases)
        await until(lambda: not worker.agent.busy, 0.1)
        await rig.restart(companion.peer)
        await ends(rig, run, worker)
        assert tries(suite) == 2


@pytest.mark.parametrize("seed", range(4))
async def test_the_coordinator_may_die_meanwhile(tmp_path, autojump_clock, seed):
    """Whatever it is of the three: the test ends once."""
    suite = with_gang(100, lambda _: 4.0)
    async with mesh(tmp_path, suite, seed=seed) as rig:
        coordinator = await rig.leader()
        other = next(node for node in rig.nodes.values() if node is not coordinator)
        run = await rig.submit(other)
        hosts = (await begun(rig, suite)).hosts
        await trio.sleep(0.5)
        coordinator.crash()
        await ends(rig, run, other)
        assert tries(suite) == 1 + (coordinator.peer in hosts)

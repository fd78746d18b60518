"""Who prepares a run while another worker collects it; by real services on fake ports, too."""

import trio

from mesh.coordinator.ahead import told
from protocols.commands import Grant
from protocols.ids import PeerId
from tests.fakes.runner import suite_of
from tests.fakes.waiting import until
from tests.scheduler.scheduler_rig import BUNDLE, GPU, PLAIN, Rig
from tests.simulation.mesh_rig import mesh, verdicts


def test_idle_workers_that_may_get_a_part_of_it_are_told_those_with_the_bundle_first() -> None:
    rig = Rig()
    for name in ("busy", "collects", "gone", "plain"):
        rig.worker(name, capabilities=GPU if name != "plain" else PLAIN, alive=name != "gone")
    rig.worker("a", capabilities=GPU, load=0.5)
    rig.worker("b", capabilities=GPU)
    rig.worker("warm", capabilities=GPU, load=1.0, bundles=frozenset({BUNDLE}))
    other = rig.submit("other")
    rig.accept(Grant(other.id, PeerId("busy"), 1, ()))
    for count, expected in ((0, ("warm", "b", "a")), (1, ()), (3, ("warm", "b"))):
        run = rig.submit(f"counted {count}", requires="gpu.cuda >= 12", worker_count=count)
        lease = rig.accept(Grant(run.id, PeerId("collects"), 1, ())).lease
        assert lease is not None
        assert told(rig.state, rig.fleet, rig.state.leases[lease]) == expected


async def test_all_collect_at_once_and_begin_together(tmp_path, autojump_clock):
    suite = suite_of(60)
    suite.seconds = lambda test: 1.0
    async with mesh(tmp_path, suite) as rig:
        node = await rig.leader()
        await until(lambda: len(node.log.state.workers) == 3)
        for _ in range(2):
            suite.collected.clear()
            suite.ran.clear()
            run = await rig.submit(node)
            await until(lambda: len(suite.ran) == 6)
            assert sorted(suite.collected) == sorted(rig.nodes), "each once, and none after the first test"
            with trio.fail_after(60):
                assert len(verdicts(await rig.follow(node, run))) == 60

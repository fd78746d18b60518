"""Deaths, cuts, returns and goodbyes of whole simulated nodes."""

import trio

from protocols.presence import NodeState, Role
from tests.fakes.waiting import until
from tests.membership.mesh_rig import Rig, rig


async def of(mesh: Rig, peers: str, grace: float = 60.0, voters: int = 3) -> None:
    for peer in peers:
        await mesh.start(peer, knows=peers[0], grace=grace)
    await mesh.formed()
    await until(lambda: len(mesh.voters()) == voters, 15)


async def test_a_killed_coordinator_is_replaced_within_three_seconds(autojump_clock: object) -> None:
    async with rig() as mesh:
        await of(mesh, "abc")
        for _ in range(5):
            victim = mesh.coordinator().peer
            await mesh.crash(victim)
            assert await mesh.formed(within=5) < 3
            await mesh.start(victim, knows="abc")
            await mesh.formed(within=5)
        terms = [(name, term) for _, name, term in mesh.led]
        assert len(set(terms)) == len(terms), "at most one coordinator in a term"
        assert mesh.voters() == {"a", "b", "c"}


async def test_all_restart_at_once_and_are_what_they_were(autojump_clock: object) -> None:
    async with rig() as mesh:
        await of(mesh, "abc")
        name = mesh.nodes["a"].membership.mesh
        for peer in "abc":
            await mesh.crash(peer)
        for peer in "cba":
            await mesh.start(peer, knows="abc")
        await mesh.formed(within=5)
        assert mesh.nodes["a"].membership.mesh == name
        assert mesh.voters() == {"a", "b", "c"}


async def test_a_cut_off_coordinator_stops_coordinating_and_comes_back_by_itself(autojump_clock: object) -> None:
    async with rig() as mesh:
        await of(mesh, "abc")
        stale = mesh.coordinator()
        others = [peer for peer in "abc" if peer != stale.peer]
        mesh.lan.cut([stale.peer], others)
        await until(lambda: mesh.nodes[others[0]].membership.coordinator in others, 5)
        await mesh.formed(*others, within=5)
        await until(lambda: not stale.log.is_leader, 1)
        await trio.sleep(20)
        mesh.lan.heal()
        await mesh.formed(within=5)
        assert mesh.coordinator().peer in others


async def test_a_voter_that_stays_dead_is_replaced_by_the_spare(autojump_clock: object) -> None:
    async with rig() as mesh:
        await of(mesh, "abcd", grace=30.0)
        voters = mesh.voters()
        victim = next(peer for peer in sorted(voters) if peer != mesh.coordinator().peer)
        await mesh.crash(victim)
        await trio.sleep(20)
        assert mesh.voters() == voters, "a restart takes less than the grace"
        await until(lambda: victim not in mesh.voters() and len(mesh.voters()) == 3, 40)
        await mesh.start(victim, knows="abcd")
        await mesh.formed(within=10)
        await until(lambda: victim in mesh.coordinator().log.configuration.learners, 15)
        assert not mesh.disks[victim].aside, "it kept its log"


async def test_a_node_that_lost_its_disk_comes_as_another(autojump_clock: object) -> None:
    async with rig() as mesh:
        await of(mesh, "abc", grace=10.0)
        await mesh.crash("b")
        await mesh.start("e", knows="ac", grace=10.0)
        await until(lambda: mesh.voters() == {"a", "c", "e"}, 60)


async def test_five_nodes_have_five_voters_and_lose_two_of_them(autojump_clock: object) -> None:
    async with rig() as mesh:
        await of(mesh, "abcde", grace=20.0, voters=5)
        await mesh.crash("b")
        await mesh.crash("d")
        await mesh.formed(within=5)
        await until(lambda: mesh.voters() == {"a", "c", "e"}, 60)


async def test_a_leaving_coordinator_hands_over(autojump_clock: object) -> None:
    async with rig() as mesh:
        await of(mesh, "abc")
        leaver = mesh.coordinator().peer
        start = trio.current_time()
        assert await mesh.stop(leaver)
        assert trio.current_time() - start < 3
        await mesh.formed(within=2)
        await until(lambda: len(mesh.voters()) == 1, 10)
        assert len(mesh.disks[leaver].aside) == 1
        await mesh.start(leaver, knows="abc")
        await mesh.formed(within=5)
        await until(lambda: mesh.voters() == {"a", "b", "c"}, 10)


async def test_all_leave_at_once_and_the_last_keeps_the_log(autojump_clock: object) -> None:
    async with rig() as mesh:
        await of(mesh, "abc")
        name = mesh.nodes["a"].membership.mesh
        start = trio.current_time()
        async with trio.open_nursery() as nursery:
            for peer in "abc":
                nursery.start_soon(mesh.stop, peer)
        assert trio.current_time() - start < 6
        keepers = [peer for peer in "abc" if mesh.disks[peer].snapshot is not None]
        assert keepers
        for peer in "abc":
            await mesh.start(peer, knows="abc")
        await mesh.formed(within=10)
        assert mesh.nodes["a"].membership.mesh == name


async def test_a_single_node_keeps_its_log_when_it_stops(autojump_clock: object) -> None:
    async with rig() as mesh:
        await mesh.start("a")
        await mesh.formed()
        name = mesh.nodes["a"].membership.mesh
        start = trio.current_time()
        assert not await mesh.stop("a")
        assert trio.current_time() - start < 1
        await mesh.start("a")
        await mesh.formed()
        assert mesh.nodes["a"].membership.mesh == name


async def test_two_nodes_hand_over_when_the_voter_leaves(autojump_clock: object) -> None:
    async with rig() as mesh:
        await of(mesh, "ab", voters=1)
        await until(lambda: mesh.nodes["b"].log.applied == mesh.nodes["a"].log.applied)
        assert await mesh.stop("a")
        await mesh.formed(within=3)
        assert mesh.voters() == {"b"}


async def test_nodes_see_each_others_states(autojump_clock: object) -> None:
    async with rig() as mesh:
        await of(mesh, "abc")
        await mesh.start("w", Role.WORKER, knows="a")
        await until(lambda: all(len(node.table.nodes()) == 4 for node in mesh.nodes.values()))
        await until(lambda: all(len(node.network.links()) == 3 for node in mesh.nodes.values()))
        table = mesh.nodes["a"].table
        await mesh.crash("w")
        await until(lambda: table.nodes()["w"].state is NodeState.SUSPECT, 1)
        await until(lambda: table.nodes()["w"].state is NodeState.DEAD, 12)
        await mesh.start("w", Role.WORKER, knows="a")
        await until(lambda: table.nodes()["w"].state is NodeState.ALIVE, 1)
        mesh.nodes["w"].table.update(draining=True)
        await until(lambda: table.nodes()["w"].state is NodeState.DRAINING, 1)

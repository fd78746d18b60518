"""Births, joins and yields of whole simulated nodes."""

import pytest
import trio

from protocols.commands import Submit
from protocols.ids import Cid, PeerId
from protocols.manifests import RunSpec
from protocols.presence import Role
from tests.fakes.waiting import until
from tests.membership.mesh_rig import Rig, rig


def submission(nonce: bytes) -> Submit:
    return Submit(nonce, RunSpec(Cid("bafy"), "suite", "suite", PeerId("a")), 0.0)


async def three(mesh: Rig) -> None:
    for peer in "abc":
        await mesh.start(peer, knows="a")
    await mesh.formed()
    await until(lambda: mesh.voters() == {"a", "b", "c"})


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("order", ["abc", "cba", "bca"])
async def test_three_fresh_nodes_form_one_mesh_wherever_they_heard_of_each_other(
    autojump_clock: object, seed: int, order: str
) -> None:
    async with rig(seed) as mesh:
        for peer in order:
            await mesh.start(peer, knows=order[0])
            await trio.sleep(mesh.lan.rng.uniform(0, 0.5))
        await mesh.formed(within=5)
        await until(lambda: len(mesh.voters()) == 3, 5)
        assert len({mesh_name for _, mesh_name, _ in mesh.led}) == 1, "one was born and no other"


async def test_a_single_node_founds_soon(autojump_clock: object) -> None:
    async with rig() as mesh:
        await mesh.start("a")
        assert await mesh.formed(within=3) < 2.5
        assert mesh.voters() == {"a"}


async def test_staggered_starts_form_one_mesh(autojump_clock: object) -> None:
    async with rig() as mesh:
        for peer in "cab":
            await mesh.start(peer, targets="c")
            await trio.sleep(1.0)
        await mesh.formed(within=5)
        await until(lambda: len(mesh.voters()) == 3, 5)


async def test_two_nodes_have_one_voter(autojump_clock: object) -> None:
    async with rig() as mesh:
        await mesh.start("a")
        await mesh.start("b", knows="a")
        await mesh.formed()
        await trio.sleep(5)
        assert mesh.voters() == {"a"}
        assert mesh.nodes["b"].log.configuration.learners == ("b",)


async def test_a_node_that_expects_others_waits_for_them(autojump_clock: object) -> None:
    async with rig() as mesh:
        await mesh.start("a", expect=3)
        await trio.sleep(20)
        await mesh.start("b", expect=3, knows="a")
        await trio.sleep(20)
        assert mesh.nodes["a"].membership.mesh == ""
        await mesh.start("c", expect=3, knows="a")
        await mesh.formed()


async def test_workers_and_clients_follow_without_a_log(autojump_clock: object) -> None:
    async with rig() as mesh:
        await mesh.start("a", Role.CLIENT)
        await mesh.start("b", Role.WORKER, knows="a")
        await trio.sleep(5)
        assert not any(node.membership.mesh for node in mesh.nodes.values())
        await mesh.start("c", knows="a")
        await mesh.formed()
        assert mesh.coordinator().peer == "c"
        assert mesh.nodes["b"].group is None
        assert mesh.nodes["b"].membership.coordinator == "c"


async def test_a_target_out_of_reach_is_waited_for_and_joined_later(autojump_clock: object) -> None:
    async with rig() as mesh:
        await mesh.start("a")
        await mesh.formed()
        elder = mesh.nodes["a"].membership.mesh
        mesh.lan.cut(["a"], ["b"])
        await mesh.start("b", targets="a")
        await trio.sleep(2.5)
        assert mesh.nodes["b"].membership.mesh == ""
        await until(lambda: mesh.nodes["b"].group is not None and mesh.nodes["b"].log.is_leader, 3)
        mesh.lan.heal()
        await mesh.formed(within=10)
        assert mesh.nodes["b"].membership.mesh == elder
        assert [saved.snapshot is not None for saved in mesh.disks["b"].aside] == [True]


async def test_the_mesh_without_runs_gives_way_though_it_is_the_elder(autojump_clock: object) -> None:
    async with rig() as mesh:
        await three(mesh)
        mesh.lan.cut("abc", "def")
        await trio.sleep(5)
        for peer in "def":
            await mesh.start(peer, knows="da")
        await mesh.formed("d", "e", "f")
        younger = mesh.nodes["d"].membership.mesh
        await mesh.nodes[mesh.nodes["d"].membership.coordinator].log.propose(submission(b"1"))
        mesh.lan.heal()
        await mesh.formed(within=15)
        assert mesh.nodes["a"].membership.mesh == younger
        assert len(mesh.nodes["a"].log.state.runs) <= 1
        await until(lambda: all(len(node.log.state.runs) == 1 for node in mesh.nodes.values()))
        assert not mesh.nodes["a"].membership.conflicts
        await until(lambda: len(mesh.voters()) == 5, 20)


async def test_two_meshes_with_runs_go_on_and_say_so(autojump_clock: object, caplog: pytest.LogCaptureFixture) -> None:
    async with rig() as mesh:
        mesh.lan.cut("a", "b")
        for peer in "ab":
            await mesh.start(peer, knows="ab")
        await until(lambda: all(node.group is not None and node.group.is_leader for node in mesh.nodes.values()))
        for node in mesh.nodes.values():
            await node.log.propose(submission(node.peer.encode()))
        names = {peer: mesh.nodes[peer].membership.mesh for peer in "ab"}
        mesh.lan.heal()
        await trio.sleep(15)
        assert {peer: mesh.nodes[peer].membership.mesh for peer in "ab"} == names
        assert mesh.nodes["a"].membership.conflicts == (names["b"],)
        assert mesh.nodes["b"].membership.conflicts == (names["a"],)
        assert caplog.text.count("both have runs") == 2


async def test_a_member_that_was_away_follows_its_mesh_into_another(autojump_clock: object) -> None:
    async with rig() as mesh:
        await mesh.start("z")
        await mesh.formed()
        elder = mesh.nodes["z"].membership.mesh
        mesh.lan.cut("z", "abc")
        for peer in "abc":
            await mesh.start(peer, knows="a")
        await mesh.formed("a", "b", "c")
        await trio.sleep(5)
        await mesh.crash("c")
        mesh.lan.heal()
        mesh.nodes["a"].network.know(PeerId("z"), ())
        await mesh.formed("a", "b", "z", within=20)
        assert mesh.nodes["a"].membership.mesh == elder
        await mesh.start("c", knows="a")
        await mesh.formed(within=15)
        assert mesh.nodes["c"].membership.mesh == elder
        assert len(mesh.disks["c"].aside) == 1


async def test_a_cut_during_birth_heals_into_one_mesh(autojump_clock: object) -> None:
    async with rig(3) as mesh:
        mesh.lan.cut("ab", "cd")
        for peer in "abcd":
            await mesh.start(peer, knows="abcd")
        await trio.sleep(4)
        assert mesh.nodes["a"].membership.mesh != mesh.nodes["c"].membership.mesh
        mesh.lan.heal()
        await mesh.formed(within=15)
        await until(lambda: len(mesh.voters()) == 3)

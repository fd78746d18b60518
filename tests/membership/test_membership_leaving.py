"""Who may leave, and when: never so that those who stay are no majority of the group that is left."""

from tests.fakes.waiting import until
from tests.membership.mesh_rig import rig


async def test_a_voter_stays_in_the_group_while_another_one_is_away(autojump_clock: object) -> None:
    """Otherwise a group of two would be left, one of them dead: nothing could ever be committed again, not even that
    the leaver is taken back."""
    async with rig() as mesh:
        for peer in "abc":
            await mesh.start(peer, knows="abc", expect=3)
        await mesh.formed("a", "b", "c")
        await until(lambda: mesh.voters() == {"a", "b", "c"})
        coordinator = mesh.coordinator().peer
        dead, leaver = sorted({"a", "b", "c"} - {coordinator})
        await mesh.crash(dead)
        await until(lambda: not mesh.coordinator().log.status().peers[dead].active)
        assert not await mesh.stop(leaver)
        await mesh.start(leaver, knows="abc")
        await mesh.formed(coordinator, leaver, within=10.0)
        assert mesh.voters() == {"a", "b", "c"}


async def test_with_a_spare_the_voter_may_go(autojump_clock: object) -> None:
    async with rig() as mesh:
        for peer in "abcd":
            await mesh.start(peer, knows="abcd", expect=4)
        await mesh.formed("a", "b", "c", "d")
        await until(lambda: len(mesh.voters()) == 3)
        voters = mesh.voters()
        coordinator = mesh.coordinator().peer
        dead, leaver = sorted(voters - {coordinator})
        await mesh.crash(dead)
        await until(lambda: not mesh.coordinator().log.status().peers[dead].active)
        assert await mesh.stop(leaver)
        assert mesh.voters() == {"a", "b", "c", "d"} - {leaver}

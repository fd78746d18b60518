"""The second copy of content: where it goes, and when a coordinator may do without."""

import pytest
import trio

from mesh.coordinator.replicas import Replicas
from mesh.ports import NodeView
from protocols.codec import encode
from protocols.errors import MeshFailed
from protocols.ids import PeerId
from protocols.presence import NodeState, Presence, Role
from protocols.work import PROTOCOL, Ack
from tests.fakes.content import Shelves
from tests.fakes.network import Lan

ME, OTHER = PeerId("me"), PeerId("other")


def view(peer: PeerId, state: NodeState, connected: bool, role: Role = Role.AUTO) -> NodeView:
    presence = Presence(peer, f"name-{peer}", role, 1, 0, (), 1, 0, False, {}, {}, (), ())
    return NodeView(presence, state, 0.0, 0.0, connected)


async def secured(voters: tuple[PeerId, ...], *views: NodeView) -> tuple[PeerId, ...]:
    """Who holds what comes from the coordinator's own node."""
    lan = Lan()
    async with trio.open_nursery() as nursery, lan.node(ME) as network, lan.node(OTHER) as other:
        await nursery.start(lan.run)

        async def take(peer: PeerId, payload: bytes) -> bytes:
            return encode(Ack())

        other.on_call(PROTOCOL, take)
        network.know(OTHER, ())
        await trio.sleep(1)
        content = Shelves(lan).of(ME)
        replicas = Replicas(network, content, lambda: voters)
        holders = await replicas.secure(await content.put(b"a chunk"), ME, {each.presence.peer: each for each in views})
        nursery.cancel_scope.cancel()
    return holders


ITSELF = view(ME, NodeState.ALIVE, True)


async def test_a_second_node_takes_a_copy(autojump_clock):
    assert await secured((ME,), ITSELF, view(OTHER, NodeState.ALIVE, True)) == (ME, OTHER)


async def test_a_leaving_node_is_better_than_none(autojump_clock):
    assert await secured((ME,), ITSELF, view(OTHER, NodeState.DRAINING, True)) == (ME, OTHER)


@pytest.mark.parametrize(
    "others", [(), (view(OTHER, NodeState.DEAD, False),), (view(OTHER, NodeState.ALIVE, True, Role.CLIENT),)]
)
async def test_who_is_alone_needs_no_second_copy(autojump_clock, others):
    assert await secured((ME,), ITSELF, *others) == (ME,)


@pytest.mark.parametrize(
    ("voters", "others"),
    [
        ((ME,), (view(OTHER, NodeState.SUSPECT, False),)),
        ((ME, OTHER, PeerId("third")), ()),
        ((ME, OTHER, PeerId("third")), (view(OTHER, NodeState.DEAD, False),)),
    ],
    ids=["its connection just broke", "nobody is known yet", "a voter counts as dead"],
)
async def test_who_is_out_of_touch_waits(autojump_clock, voters, others):
    with pytest.raises(MeshFailed, match="no other node could take a copy"):
        await alone(voters, ITSELF, *others)


async def alone(voters: tuple[PeerId, ...], *views: NodeView) -> tuple[PeerId, ...]:
    """The same on a node that reaches nobody."""
    content = Shelves(lan := Lan()).of(ME)
    root = await content.put(b"a chunk")
    async with lan.node(ME) as network:
        try:
            return await Replicas(network, content, lambda: voters).secure(
                root, ME, {v.presence.peer: v for v in views}
            )
        except MeshFailed as error:
            failed = error
    raise failed

"""The same on the real network and disk: three nodes in this process, on loopback."""

import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import trio

from mesh.consensus import Consensus
from mesh.disk.log import RaftDisk
from mesh.log_home import LogHome
from mesh.membership import Membership
from mesh.net.host import open_network
from mesh.net.identity import open_identity
from mesh.presence import PresenceTable
from protocols.commands import Register
from protocols.ids import PeerId
from tests.membership.mesh_rig import presence_of

KEY = bytes(range(32))
LOOPBACK = ("/ip4/127.0.0.1/tcp/0",)


class WallClock:
    def now(self) -> float:
        return time.time()


class RealNode:
    """A node in this process; leaving its context is its death."""

    def __init__(self, peer: PeerId, addresses: tuple[str, ...], table: PresenceTable, membership: Membership) -> None:
        self.peer, self.addresses, self.table, self.membership = peer, addresses, table, membership

    @property
    def log(self) -> Consensus:
        assert isinstance(self.membership.group, Consensus)
        return self.membership.group


@asynccontextmanager
async def real_node(home: Path, join: tuple[PeerId, tuple[str, ...]] | None = None) -> AsyncIterator[RealNode]:
    with open_identity(home) as identity, RaftDisk(home / "raft.db") as disk:
        async with open_network(identity=identity, swarm_key=KEY, listen=LOOPBACK, mdns=False) as network:
            rng = random.Random(identity.peer_id)
            own = replace(presence_of(identity.peer_id), incarnation=time.time_ns())
            table = PresenceTable(network=network, own=own, rng=rng)
            membership = Membership(
                network=network,
                nodes=table,
                logs=LogHome(network=network, disk=disk, rng=rng),
                clock=WallClock(),
                member=idle,
            )
            async with trio.open_nursery() as nursery:
                nursery.start_soon(table.run)
                nursery.start_soon(membership.run)
                if join is not None:
                    network.know(*join)
                yield RealNode(identity.peer_id, network.addresses(), table, membership)
                nursery.cancel_scope.cancel()


async def idle(log: Consensus) -> None:
    await trio.sleep_forever()


async def poll(condition: Callable[[], bool], timeout: float) -> None:
    """Wait for what nothing announces."""
    with trio.fail_after(timeout):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.01)


def agreed(*nodes: RealNode) -> bool:
    settled = {(node.membership.mesh, node.membership.coordinator) for node in nodes}
    return len(settled) == 1 and any(node.membership.group is not None and node.log.is_leader for node in nodes)


async def test_three_real_nodes_form_a_mesh_and_survive_the_coordinator(tmp_path: Path) -> None:
    async with real_node(tmp_path / "a") as a:
        ticket = (a.peer, a.addresses)
        async with real_node(tmp_path / "b", ticket) as b:
            async with real_node(tmp_path / "c", ticket) as c:
                await poll(lambda: agreed(a, b, c), 30)
                leader = next(node for node in (a, b, c) if node.log.is_leader)
                await poll(lambda: len(leader.log.configuration.voters) == 3, 30)
                await poll(lambda: leader.log.status().configuration_committed, 10)
                applied = await leader.log.propose(Register(PeerId("worker 1"), "first", 1, 1))
                await poll(lambda: all(node.log.applied >= applied.index for node in (a, b, c)), 10)
            await poll(lambda: agreed(a, b), 30)
            survivor = next(node for node in (a, b) if node.log.is_leader)
            await survivor.log.propose(Register(PeerId("worker 2"), "second", 1, 1))
            mesh = survivor.membership.mesh
            ticket = (a.peer, a.addresses)
            async with real_node(tmp_path / "c", ticket) as c:
                await poll(lambda: agreed(a, b, c) and c.log.applied >= survivor.log.applied, 30)
                assert {worker.name for worker in c.log.state.workers.values()} == {"first", "second"}
                assert c.membership.mesh == mesh

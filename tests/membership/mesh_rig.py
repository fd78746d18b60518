"""Whole nodes, less their work: presence and membership over a simulated network and disks in memory."""

import random
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from mesh.consensus import Consensus
from mesh.log_home import LogHome
from mesh.membership import Membership
from mesh.presence import PresenceTable
from protocols.ids import PeerId
from protocols.presence import Presence, Role
from tests.fakes.disk import FakeDisk
from tests.fakes.network import FakeNetwork, Lan
from tests.fakes.waiting import until

EPOCH = 1_700_000_000


class TrioClock:
    def now(self) -> float:
        return EPOCH + trio.current_time()


def presence_of(peer: str, role: Role = Role.AUTO, incarnation: int = 1, host: str = "") -> Presence:
    return Presence(
        PeerId(peer),
        f"name-{peer}",
        role,
        incarnation,
        0,
        (),
        1,
        0,
        False,
        {"hostname": host or f"host-{peer}"},
        {},
        (),
        (),
    )


@dataclass
class Node:
    peer: PeerId
    network: FakeNetwork
    table: PresenceTable
    membership: Membership
    scope: trio.CancelScope
    gone: trio.Event

    @property
    def group(self) -> Consensus | None:
        group = self.membership.group
        assert group is None or isinstance(group, Consensus)
        return group

    @property
    def log(self) -> Consensus:
        assert self.group is not None
        return self.group

    @property
    def settled(self) -> tuple[str, PeerId | None]:
        return self.membership.mesh, self.membership.coordinator


class Rig:
    """Nodes by name. A node's disk outlives it."""

    def __init__(self, lan: Lan, nursery: trio.Nursery) -> None:
        self.lan = lan
        self.nodes: dict[str, Node] = {}
        self.disks: dict[str, FakeDisk] = {}
        self.led: list[tuple[str, str, int]] = []
        """(peer, mesh, term) of each time that a node began to coordinate."""
        self._nursery = nursery
        self._starts = 0

    async def start(
        self,
        peer: str,
        role: Role = Role.AUTO,
        knows: Iterable[str] = (),
        expect: int = 1,
        targets: Iterable[str] = (),
        host: str = "",
        grace: float = 60.0,
    ) -> Node:
        """Returns at once, before the node is in a mesh."""
        self._starts += 1
        started = trio.Event()
        presence = presence_of(peer, role, self._starts, host)
        options = {"expect": expect, "targets": tuple(map(PeerId, targets)), "grace": grace}
        self._nursery.start_soon(self._run, presence, (*knows, *targets), options, started)
        await started.wait()
        return self.nodes[peer]

    async def _run(self, own: Presence, knows: tuple[str, ...], options: dict, started: trio.Event) -> None:
        gone = trio.Event()
        disk = self.disks.setdefault(own.peer, FakeDisk(seed=self._starts))
        with trio.CancelScope() as scope:
            async with self.lan.node(own.peer) as network, trio.open_nursery() as nursery:
                rng = random.Random(f"{own.peer}{self._starts}")
                table = PresenceTable(network=network, own=own, rng=rng)
                membership = Membership(
                    network=network,
                    nodes=table,
                    logs=LogHome(network=network, disk=disk, rng=rng) if own.role.votes else None,
                    clock=TrioClock(),
                    member=self._member,
                    **options,
                )
                self.nodes[own.peer] = Node(own.peer, network, table, membership, scope, gone)
                for other in knows:
                    network.know(PeerId(other), (f"/memory/{other}",))
                nursery.start_soon(table.run)
                nursery.start_soon(membership.run)
                started.set()
        del self.nodes[own.peer]
        gone.set()

    async def _member(self, log: Consensus) -> None:
        async def services() -> None:
            self.led.append((log.status().peer, log.mesh, log.term))
            await trio.sleep_forever()

        await log.lead(services)

    async def crash(self, peer: str) -> None:
        node = self.nodes[peer]
        node.scope.cancel()
        await node.gone.wait()

    async def stop(self, peer: str) -> bool:
        """As on SIGTERM."""
        left = await self.nodes[peer].membership.leave()
        await self.crash(peer)
        return left

    def one_mesh(self, *peers: str) -> bool:
        """Whether these nodes (all, if none are named) are in one mesh and agree on its coordinator."""
        nodes = [self.nodes[peer] for peer in peers] if peers else list(self.nodes.values())
        settled = {node.settled for node in nodes}
        if len(settled) != 1:
            return False
        mesh, coordinator = settled.pop()
        return bool(mesh) and coordinator in self.nodes and self.nodes[coordinator].log.is_leader

    def coordinator(self) -> Node:
        (node,) = [node for node in self.nodes.values() if node.group is not None and node.group.is_leader]
        return node

    def voters(self) -> set[str]:
        """By a committed configuration; nobody while it changes."""
        status = self.coordinator().log.status()
        settled = status.configuration_committed and not status.configuration.outgoing
        return set(status.configuration.voters) if settled else set()

    async def formed(self, *peers: str, within: float = 5.0) -> float:
        """Seconds until `one_mesh`."""
        start = trio.current_time()
        await until(lambda: self.one_mesh(*peers), within)
        return trio.current_time() - start


@asynccontextmanager
async def rig(seed: int = 0) -> AsyncIterator[Rig]:
    lan = Lan(seed)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lan.run)
        yield Rig(lan, nursery)
        nursery.cancel_scope.cancel()

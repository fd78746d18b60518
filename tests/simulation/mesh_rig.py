"""A whole mesh of real services on fake ports: one seed, trio's mock clock, no processes and no sockets.

Each node has consensus, coordinator, worker agent and backend, wired as `mesh/node.py` wires them; network, disk,
content and runner are the fakes. A crash ends a node's tasks and loses what its disk had not synced; a restart gives it
the same disk, blocks and outbox.
"""

import itertools
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import trio
from trio._core import _run as scheduler

from mesh.backend import MeshBackend
from mesh.consensus import Consensus
from mesh.coordinator import TestCoordinator
from mesh.duties import Duties
from mesh.manifests import Manifests
from mesh.pins import Keeping
from mesh.ports import NodeView
from mesh.state.apply import apply
from mesh.state.model import CoordinatorState
from mesh.state.snapshot import encode_state
from mesh.views.render import draw_overview
from mesh.worker.agent import WorkerAgent
from mesh.worker.environments import Environments
from mesh.worker.sessions import Workshop
from protocols.commands import Found
from protocols.ids import Cid, PeerId, RunId
from protocols.manifests import RunSpec
from protocols.presence import NodeState, Presence, Role
from protocols.raft import LOG_FORMAT_CAPABILITY, LOG_FORMAT_NEWEST, Configuration, Snapshot
from tests.fakes.content import Shelves
from tests.fakes.disk import FakeDisk
from tests.fakes.network import FakeNetwork, Lan
from tests.fakes.outbox import FakeOutbox
from tests.fakes.runner import FakeRunner, Suite
from tests.fakes.threads import no_threads
from tests.fakes.waiting import until

MESH = "1000.a"


class FakeNodes:
    """Presence without gossip: who lives on the `Lan`, and whom it links to this node."""

    def __init__(self, rig: "Rig", network: FakeNetwork) -> None:
        self._rig = rig
        self._network = network
        self._version = 0
        self._changed = trio.Event()
        network.watch(lambda peer, connected: self._bump())

    def nodes(self) -> Mapping[PeerId, NodeView]:
        links = self._network.links()
        now = trio.current_time()
        return {
            peer: NodeView(node.presence(), NodeState.ALIVE if up else NodeState.SUSPECT, now, now, up)
            for peer, node in sorted(self._rig.nodes.items())
            for up in [peer in links or peer == self._network.peer_id]
        }

    @property
    def version(self) -> int:
        return self._version

    async def wait_changed(self, since: int) -> int:
        while self._version <= since:
            await self._changed.wait()
        return self._version

    def update(self, **fields: Any) -> None:
        self._bump()

    def _bump(self) -> None:
        self._version += 1
        self._changed.set()
        self._changed = trio.Event()


class WallClock:
    def now(self) -> float:
        return 1_700_000_000.0 + trio.current_time()


class Node:
    """One node; `incarnation` counts its starts."""

    def __init__(self, rig: "Rig", peer: PeerId, slots: int, capabilities: Mapping[str, Any]) -> None:
        self.peer = peer
        self.slots = slots
        self.capabilities = capabilities
        self.incarnation = 0
        self.log: Consensus
        self.backend: MeshBackend
        self.agent: WorkerAgent
        self.keeping: Keeping
        self.coordinator: TestCoordinator
        self._rig = rig
        self._disk = rig.disk(peer)
        self.outbox = FakeOutbox()
        self._scope = trio.CancelScope()
        self.up = False

    def presence(self) -> Presence:
        return Presence(
            self.peer, f"host-{self.peer}", Role.AUTO, self.incarnation, 0, (), self.slots, 0, False,
            {**self.capabilities, LOG_FORMAT_CAPABILITY: LOG_FORMAT_NEWEST}, {}, (), (), MESH, "voter",
        )  # fmt: skip

    def crash(self) -> None:
        self._scope.cancel()

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        self.incarnation += 1
        with trio.CancelScope() as self._scope:
            async with self._rig.lan.node(self.peer) as network, trio.open_nursery() as nursery:
                for other in self._rig.nodes:
                    network.know(other, ())
                self._wire(network)
                nursery.start_soon(self.log.run)
                nursery.start_soon(self.log.lead, self.coordinator.lead)
                nursery.start_soon(self.agent.run)
                nursery.start_soon(self.keeping.run)
                nursery.start_soon(self.backend.feed.run)
                self.up = True
                task_status.started()
        self.up = False

    def _wire(self, network: FakeNetwork) -> None:
        rig = self._rig
        content = rig.shelves.of(self.peer)
        manifests = Manifests(content)
        nodes = FakeNodes(rig, network)
        self.log = Consensus(
            mesh=MESH, network=network, disk=self._disk, rng=random.Random(f"{rig.seed}{self.peer}{self.incarnation}")
        )
        network.watch(lambda peer, connected: None if connected else self.log.suspect(peer))
        folder = rig.folder / f"{self.peer}"
        self.coordinator = TestCoordinator(
            network=network, content=content, manifests=manifests, log=self.log, nodes=nodes, clock=WallClock(),
            worker_timeout=10.0, scratch=folder / "scratch", name=self.peer, draw=draw_overview,
            replica_grace=rig.replica_grace,
        )  # fmt: skip
        workshop = Workshop(
            content=content, manifests=manifests, runner=FakeRunner(rig.suite), folder=folder / "bundles",
            peer=self.peer, slots=self.slots,
            environments=Environments(folder / "environments", dict, lambda: None),
            hardware=lambda: "linux x86_64",
        )  # fmt: skip
        self.agent = WorkerAgent(
            network=network, content=content, workshop=workshop, outbox=self.outbox, name=f"host-{self.peer}",
            incarnation=lambda: self.incarnation, slots=self.slots, coordinator=lambda: self.log.leader,
            changed=lambda: None, heartbeat_interval=1.0,
        )  # fmt: skip
        self.backend = MeshBackend(
            network=network, content=content, nodes=nodes, replica=lambda: self.log,
            coordinator=lambda: self.log.leader, mesh_name=lambda: MESH, conflicts=lambda: (), ticket=lambda: "",
            home=folder,
        )  # fmt: skip
        self.keeping = Keeping(network=network, content=content, coordinator=lambda: self.log.leader)
        Duties(
            network=network, content=content, coordinator=lambda: self.coordinator, agent=self.agent,
            known_coordinator=lambda: self.log.leader, feed=self.backend.feed, obey=lambda verb: None,
        )  # fmt: skip


class Rig:
    """The mesh of one test."""

    def __init__(self, folder: Path, suite: Suite, nursery: trio.Nursery, seed: int = 0) -> None:
        self.folder = folder
        self.suite = suite
        self.seed = seed
        self.lan = Lan(seed)
        self.shelves = Shelves(self.lan)
        self.nodes: dict[PeerId, Node] = {}
        self._nursery = nursery
        self._voters: tuple[PeerId, ...] = ()
        self._nonces = itertools.count()
        self.replica_grace = 60.0

    def disk(self, peer: PeerId) -> FakeDisk:
        disk = FakeDisk(seed=self.seed + ord(peer[0]))
        state = CoordinatorState(format=LOG_FORMAT_NEWEST)
        apply(state, 1, Found(MESH))
        disk.snapshot = Snapshot(1, 1, Configuration(voters=self._voters), encode_state(state))
        return disk

    async def start(self, slots: Mapping[str, int], capabilities: Mapping[str, Mapping[str, Any]]) -> None:
        await self._nursery.start(self.lan.run)
        self._voters = tuple(PeerId(name) for name in slots)
        for name, number in slots.items():
            self.nodes[PeerId(name)] = Node(self, PeerId(name), number, capabilities.get(name, {}))
        for node in self.nodes.values():
            await self._nursery.start(node.run)

    async def restart(self, peer: PeerId) -> None:
        await until(lambda: not self.nodes[peer].up)
        await self._nursery.start(self.nodes[peer].run)

    async def restart_after(self, node: Node, suite: Suite, starts: int) -> None:
        await until(lambda: len(suite.ran) >= starts)
        await self.restart(node.peer)

    async def leader(self) -> Node:
        """The node that coordinates, once there is one."""
        while True:
            for node in self.nodes.values():
                if node.up and node.log.is_leader:
                    return node
            await trio.sleep(0.05)

    async def submit(self, via: Node, **fields: Any) -> RunId:
        bundle = await self.shelves.of(via.peer).put(b"bundle")
        spec = RunSpec(bundle, "suite", "suite", via.peer, **fields)
        return await via.backend.submit(f"nonce-{next(self._nonces)}".encode(), spec)

    async def follow(self, via: Node, run: RunId) -> list[dict[str, Any]]:
        return [event async for event in via.backend.follow(run)]


@asynccontextmanager
async def mesh(
    folder: Path,
    suite: Suite,
    slots: Mapping[str, int] | None = None,
    capabilities: Mapping[str, Mapping[str, Any]] | None = None,
    seed: int = 0,
    replica_grace: float = 60.0,
) -> AsyncIterator[Rig]:
    """A running mesh of voters "a", "b", "c", with two slots each unless told otherwise; trio's order is the seed's."""
    with (
        no_threads(),
        patch.object(scheduler, "_ALLOW_DETERMINISTIC_SCHEDULING", True),
        patch.object(scheduler, "_r", random.Random(seed)),
    ):
        async with trio.open_nursery() as nursery:
            rig = Rig(folder, suite, nursery, seed)
            rig.replica_grace = replica_grace
            await rig.start(slots or {"a": 2, "b": 2, "c": 2}, capabilities or {})
            yield rig
            nursery.cancel_scope.cancel()


def verdicts(events: list[dict[str, Any]]) -> dict[str, str]:
    """Outcome by test; asserts that no test has two."""
    found: dict[str, str] = {}
    for event in events:
        if event["event"] == "verdict":
            assert event["test"] not in found, f"{event['test']} has two verdicts"
            found[event["test"]] = event["outcome"]
    return found


__all__ = ["Cid", "Node", "Rig", "mesh", "verdicts"]

"""A whole mesh of real services on fake ports, wired as `mesh/node.py` wires them: membership with its autopilot,
presence, consensus, coordinator, worker and backend; network, disks, content, outbox, runner and clocks are fakes.

`World` owns what outlives a node. A crash cuts the node off at once and ends its tasks wherever they are; what its
disks had not synced is lost, or there in part. A node whose disk fails stops by itself, with a `StorageError`.
"""

import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import trio

from mesh.backend import MeshBackend
from mesh.consensus import Consensus
from mesh.coordinator import TestCoordinator
from mesh.duties import Duties
from mesh.log_home import LogHome
from mesh.manifests import Manifests
from mesh.membership import Membership
from mesh.net.identity import Identity
from mesh.pins import Keeping
from mesh.ports import CollectionFailed, Job
from mesh.presence import PresenceTable
from mesh.worker.agent import WorkerAgent
from mesh.worker.environments import Environments
from mesh.worker.sessions import Workshop
from protocols.codec import decode
from protocols.errors import MeshError, NodeUnavailable, StorageError
from protocols.ids import PeerId
from protocols.manifests import Manifest
from protocols.presence import Presence, Role
from protocols.raft import Configuration, EntryKind
from protocols.work import CommandVerb
from tests.fakes.content import Shelves
from tests.fakes.disk import FakeDisk
from tests.fakes.network import FakeNetwork, Lan
from tests.fakes.outbox import FakeOutbox
from tests.fakes.runner import FakeRunner, FakeSession, Suite
from tests.simulation.mesh_ledger import Ledger, WatchedConsensus

EPOCH = 1_700_000_000.0
DRAIN_SECONDS = 30.0
SENT_MAX = 200_000
"""Messages and calls of one life of a mesh: more are a storm."""
NEVER_ALONE = 99
"""Nodes that one expects which must not found a mesh."""

T = TypeVar("T")


class SimClock:
    """A node's wall clock, which may run fast or slow, and jump."""

    def __init__(self) -> None:
        self.offset = 0.0
        self.rate = 1.0

    def now(self) -> float:
        return EPOCH + self.rate * trio.current_time() + self.offset


class SuiteRunner:
    """Runs whichever suite a job's argument names. Implements the Runner port."""

    def __init__(self, suites: Mapping[str, Suite]) -> None:
        self._suites = suites

    async def collect(self, job: Job) -> Manifest | CollectionFailed:
        return await FakeRunner(self._suites[job.arguments[0]]).collect(job)

    @asynccontextmanager
    async def session(self, job: Job) -> AsyncIterator[FakeSession]:
        async with FakeRunner(self._suites[job.arguments[0]]).session(job) as session:
            yield session


class SimLogs(LogHome):
    """Opens members that the ledger watches."""

    def __init__(self, node: "SimNode", network: FakeNetwork, rng: random.Random) -> None:
        super().__init__(network=network, disk=node.disk, rng=rng)
        self._node = node

    async def set_aside(self) -> None:
        await super().set_aside()
        for book in self._node.world.ledger.books.values():
            book.terms.pop(self._node.peer, None)

    def open(self, mesh: str) -> Consensus:
        world = self._node.world
        return WatchedConsensus(
            world.ledger, self._node.peer, self._node.disk,
            mesh=mesh, network=self._network, rng=self._rng, snapshot_entries=world.snapshot_entries,
        )  # fmt: skip


class SimNode:
    """One node, over all its lives."""

    def __init__(self, world: "World", peer: PeerId, role: Role, slots: int, expect: int) -> None:
        self.world = world
        self.peer = peer
        self.role = role
        self.slots = slots
        self.expect = expect
        self.clock = SimClock()
        self.disk = FakeDisk(seed=world.rng.getrandbits(32), faults=world.faults)
        self.outbox = FakeOutbox(world.rng.getrandbits(32), world.ledger.removing)
        self.lives = 0
        self.up = False
        self.gone = False
        """For ever: its disk is lost."""
        self.ended = trio.Event()
        self.ended.set()
        self.nursery: trio.Nursery
        self.table: PresenceTable
        self.membership: Membership
        self.agent: WorkerAgent
        self.keeping: Keeping
        self.backend: MeshBackend
        self._coordinator: TestCoordinator | None = None
        self._scope = trio.CancelScope()

    # Living

    def start(self) -> None:
        assert self.ended.is_set(), "one life at a time"
        self.ended = trio.Event()
        self.lives += 1
        self.world.tell(f"{self.peer} starts, life {self.lives}")
        self.world.nursery.start_soon(self._live)

    def crash(self) -> None:
        """At once: nobody hears of it any more, and no write is begun."""
        self.up = False
        self.world.lan.kill(self.peer)
        self._scope.cancel()

    async def _live(self) -> None:
        self.disk.open()
        self._scope = trio.CancelScope()
        try:
            with self._scope:
                async with self.world.lan.node(self.peer) as network:
                    await self._serve(network)
        except* StorageError as group:
            self.world.faults["node stopped by its disk"] += 1
            self.world.tell(f"{self.peer} stops: {_first(group)}")
        self.world.tell(f"{self.peer} is down")
        self.ended.set()

    async def _serve(self, network: FakeNetwork) -> None:
        try:
            async with trio.open_nursery() as self.nursery:
                self._wire(network)
                self.nursery.start_soon(self.table.run)
                self.nursery.start_soon(self.membership.run)
                self.nursery.start_soon(self.keeping.run)
                self.nursery.start_soon(self.backend.feed.run)
                if self.role.works:
                    self.nursery.start_soon(self.agent.run)
                self.up = True
        finally:
            self.up = False

    def _wire(self, network: FakeNetwork) -> None:
        world, folder = self.world, self.world.folder / self.peer
        rng = random.Random(f"{world.seed} {self.peer} {self.lives}")
        self.content = world.shelves.of(self.peer)
        self.table = PresenceTable(network=network, own=self._presence(), rng=rng)
        self.membership = Membership(
            network=network, nodes=self.table, logs=SimLogs(self, network, rng) if self.role.votes else None,
            clock=self.clock, member=self._member, expect=self.expect, grace=world.grace,
        )  # fmt: skip
        workshop = Workshop(
            content=self.content, manifests=Manifests(self.content), runner=SuiteRunner(world.suites),
            folder=folder / "bundles", peer=self.peer, slots=self.slots,
            environments=Environments(folder / "environments", dict, lambda: None),
            hardware=lambda: "linux x86_64",
        )  # fmt: skip
        self.agent = WorkerAgent(
            network=network, content=self.content, workshop=workshop, outbox=self.outbox, name=f"host-{self.peer}",
            incarnation=lambda: self.table.own.incarnation, slots=self.slots,
            coordinator=lambda: self.membership.coordinator, changed=self._worker_changed, heartbeat_interval=1.0,
        )  # fmt: skip
        self.backend = MeshBackend(
            network=network, content=self.content, nodes=self.table, replica=lambda: self.membership.group,
            coordinator=lambda: self.membership.coordinator, mesh_name=lambda: self.membership.mesh,
            conflicts=lambda: self.membership.conflicts, ticket=lambda: "", home=world.folder / self.peer,
        )  # fmt: skip
        self.keeping = Keeping(network=network, content=self.content, coordinator=lambda: self.membership.coordinator)
        Duties(
            network=network, content=self.content, coordinator=lambda: self._coordinator,
            agent=self.agent if self.role.works else None, known_coordinator=lambda: self.membership.coordinator,
            feed=self.backend.feed, obey=self.obey,
        )  # fmt: skip
        self._network = network
        for other in sorted(world.nodes):
            network.know(other, (f"/memory/{other}",))

    def _presence(self) -> Presence:
        home = self.world.folder / self.peer
        home.mkdir(exist_ok=True)
        incarnation = Identity(home, b"", self.peer).next_incarnation(int(self.clock.now() * 1e9))
        return Presence(
            self.peer, f"host-{self.peer}", self.role, incarnation, 0, (), self.slots, 0, False,
            {"hostname": f"host-{self.peer}"}, {}, (), (),
        )  # fmt: skip

    def _worker_changed(self) -> None:
        self.table.update(busy=self.agent.busy, bundles=self.agent.bundles())

    async def _member(self, group: Consensus) -> None:
        self._coordinator = TestCoordinator(
            network=self._network, content=self.content, log=group, nodes=self.table, clock=self.clock,
            worker_timeout=10.0, scratch=self.world.folder / self.peer / "scratch", name=self.peer,
            draw=lambda document, path: None, manifests=self.backend.manifests,
        )  # fmt: skip
        try:
            await group.lead(self._coordinator.lead)
        finally:
            self._coordinator = None

    # Orders

    def obey(self, verb: CommandVerb) -> None:
        if verb is CommandVerb.DRAIN:
            self.table.update(draining=True)
            self.nursery.start_soon(self.agent.drain)
        else:
            self.nursery.start_soon(self._leave)

    async def _leave(self) -> None:
        self.table.update(draining=True)
        if self.role.works:
            with trio.move_on_after(DRAIN_SECONDS):
                await self.agent.drain()
        left = await self.membership.leave()
        self.world.faults["clean leave" if left else "leave that was refused"] += 1
        self.world.tell(f"{self.peer} {'has left' if left else 'could not leave, and stops'}")
        self.crash()

    async def ask(self, request: Callable[[MeshBackend], Awaitable[T]]) -> T:
        """As a client of this node, who is cut off when it dies: `NodeUnavailable`."""
        answers: list[T] = []
        errors: list[MeshError] = []
        done, scope = trio.Event(), trio.CancelScope()

        async def serve() -> None:
            try:
                with scope:
                    answers.append(await request(self.backend))
            except MeshError as error:
                errors.append(error)
            finally:
                done.set()

        if not self.up:
            raise NodeUnavailable(f"{self.peer} is down")
        self.nursery.start_soon(serve)
        try:
            await done.wait()
        finally:
            scope.cancel()
        if answers:
            return answers[0]
        raise errors[0] if errors else NodeUnavailable(f"{self.peer} went down")

    # What is so

    @property
    def leads(self) -> bool:
        group = self.membership.group if self.up else None
        return group is not None and group.is_leader

    def configurations(self) -> list[Configuration]:
        """All that its disk may come back with."""
        found = [self.disk.snapshot.configuration] if self.disk.snapshot else []
        found += [
            decode(entry.data, Configuration) for entry in self.disk.entries if entry.kind is EntryKind.CONFIGURATION
        ]
        return found


class World:
    """What outlives the nodes of one simulation."""

    def __init__(self, seed: int, folder: Path, nursery: trio.Nursery) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.folder = folder
        self.nursery = nursery
        self.lan = Lan(self.rng.getrandbits(32))
        self.lan.sent_max = SENT_MAX
        self.faults: Counter[str] = self.lan.faults
        self.shelves = Shelves(self.lan)
        self.story: list[str] = []
        self.ledger = Ledger(self.shelves, self.tell)
        self.suites: dict[str, Suite] = {}
        self.nodes: dict[PeerId, SimNode] = {}
        self.snapshot_entries = self.rng.choice((30, 100, 400))
        self.grace = self.rng.choice((6.0, 15.0))
        self.node_seconds = 0.0

    def tell(self, text: str) -> None:
        self.story.append(f"{trio.current_time():8.3f} {text}")

    def add(self, role: Role, expect: int = NEVER_ALONE) -> SimNode:
        peer = PeerId(f"{'w' if role is Role.WORKER else 'n'}{len(self.nodes)}")
        node = self.nodes[peer] = SimNode(self, peer, role, self.rng.choice((1, 2, 2, 4)), expect)
        node.start()
        return node

    def up(self) -> list[SimNode]:
        return [node for node in self.nodes.values() if node.up]

    def leader(self) -> SimNode | None:
        """Of the highest term, if there are several."""
        leading = [node for node in self.up() if node.leads]
        return max(leading, key=lambda node: node.membership.group.term, default=None)  # type: ignore[union-attr]

    async def count_time(self) -> None:
        """Adds up how long nodes were up."""
        while True:
            await trio.sleep(1.0)
            self.node_seconds += len(self.up())


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error

"""Composition: the adapters of one node, handed to its services, in one nursery.

The order is the order of dependence: home (identity and lock), network, content, presence, membership and log, then
worker, coordinator and API. Nothing outlives `serve`; whatever was opened is closed in the reverse order.
"""

import mesh.net.lean  # noqa: F401  before anything of libp2p

# isort: split
import logging
import os
import platform
import random
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import trio

from mesh import hardware, joining
from mesh.alerting.service import Alerting
from mesh.api.lasting import lasting_token
from mesh.api.server import serve_api
from mesh.backend import MeshBackend
from mesh.consensus import Consensus
from mesh.content.store import open_content
from mesh.coordinator import TestCoordinator
from mesh.disk.history import open_history
from mesh.disk.log import LOG_FILE, RaftDisk
from mesh.disk.neighbours import NeighbourFile
from mesh.disk.outbox import Outbox
from mesh.duties import Duties
from mesh.hardware.python import installed
from mesh.hardware.uv import find_uv
from mesh.log_home import LogHome
from mesh.measures import Measures, Traffic
from mesh.membership import Membership
from mesh.monitoring.metrics import NodeMetrics
from mesh.monitoring.traces import tracing_of
from mesh.net.host import MeshNetwork, open_network
from mesh.net.identity import Identity, open_identity
from mesh.net.multiaddrs import check_peer_id
from mesh.net.ticket import format_ticket, is_ticket, parse_ticket
from mesh.options import NodeOptions
from mesh.past import PastDesk, PastKeeper, Rebuilding
from mesh.pins import Keeping
from mesh.ports import Content
from mesh.presence import PresenceTable
from mesh.scheduler.hardware import hardware_class
from mesh.scheduler.hopeless import PROBING
from mesh.worker.agent import WorkerAgent
from mesh.worker.environments import Environments
from mesh.worker.runner import PytestRunner
from mesh.worker.sessions import HASH_SEED, Workshop
from protocols.ids import PeerId
from protocols.presence import NodeState, Presence
from protocols.work import CommandVerb

log = logging.getLogger(__name__)

Announce = Callable[[str, str], None]
"""Takes a key ("peer", "listen", "home", "ticket", "dashboard", "coordinator") and what became true of it."""

LOAD_SECONDS = 5.0
"""How often the host's load is measured."""

PROBE_SECONDS = 300.0
"""How often its hardware is."""

SAME_STROKE_SECONDS = 0.5
"""Signals that come this close together are one: a terminal, or `timeout`, tells the process and its group."""

DRAIN_SECONDS = 30.0
"""How long a stopping worker waits for its running tests; what is left goes to others."""


class WallClock:
    """`mesh.ports.Clock`."""

    def now(self) -> float:
        return time.time()


async def serve(options: NodeOptions, announce: Announce) -> int:
    """Run a node until SIGTERM, SIGINT, a `stop`, or cancellation; the exit code.

    SIGTERM drains: leases are finished or given back, the leadership handed over, the group left. A second one ends it
    at once. Errors of the start are `MeshError`s with one sentence.
    """
    with ExitStack() as stack:
        identity = stack.enter_context(open_identity(options.home))
        code = await _serve(options, identity, announce)
    if code is None:
        sys.stdout.flush()
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    return code


async def _serve(options: NodeOptions, identity: Identity, announce: Announce) -> int | None:
    """The exit code, or None for a restart."""
    measures = Measures()
    tickets = [parse_ticket(text) for text in options.join if is_ticket(text)]
    swarm_key = joining.swarm_key(options, tickets)
    announce("peer", identity.peer_id)
    async with AsyncExitStack() as stack:
        network = await stack.enter_async_context(
            open_network(identity=identity, swarm_key=swarm_key, listen=options.listen, mdns=options.mdns)
        )
        content = await stack.enter_async_context(_open_content(options, network, measures.traffic))
        targets = joining.know(network, options, tickets)
        neighbours = NeighbourFile(options.home / "neighbours")
        if not options.solitary:
            for peer, addresses in neighbours.load().items():
                network.know(peer, addresses)
        runner = await stack.enter_async_context(PytestRunner())
        for address in network.addresses():
            announce("listen", address)
        announce("home", str(options.home))
        announce("ticket", format_ticket(swarm_key, network.addresses()))
        incarnation = identity.next_incarnation(time.time_ns())
        node = Node(options, network, content, runner, neighbours, swarm_key, targets, announce, incarnation, measures)
        return await node.run()


def _draw(document: dict[str, Any], path: Path) -> None:
    from mesh.views.render import draw_overview  # matplotlib takes long to load, and few ask a node for pictures

    draw_overview(document, path)


def _open_content(options: NodeOptions, network: MeshNetwork, traffic: Traffic) -> AbstractAsyncContextManager[Content]:
    if options.ipfs == "embedded":
        return open_content(options.home, network.host, traffic=traffic)
    from mesh.content.kubo import open_kubo_content  # its client takes long to load

    return open_kubo_content(options.ipfs, network.host, options.home / "pins.sqlite", traffic)


@dataclass(slots=True)
class _Stop:
    """How the node is to end."""

    scope: trio.CancelScope
    restart: bool = False
    asked: bool = False


class Node:
    """The services of one node."""

    def __init__(
        self,
        options: NodeOptions,
        network: MeshNetwork,
        content: Content,
        runner: PytestRunner,
        neighbours: NeighbourFile,
        swarm_key: bytes,
        targets: tuple[PeerId, ...],
        announce: Announce,
        incarnation: int,
        measures: Measures,
    ) -> None:
        self._options = options
        self._network = network
        self._content = content
        self._runner = runner
        self._neighbours = neighbours
        self._announce = announce
        self._incarnation = incarnation
        self._measures = measures
        self._tracing = tracing_of(options.otlp, content, network.peer_id)
        self._rng = random.Random(secrets.randbits(64))
        self._clock = WallClock()
        self._coordinator: TestCoordinator | None = None
        self._agent: WorkerAgent | None = None
        self._outbox: Outbox | None = None
        self._stop = _Stop(trio.CancelScope())
        self._essentials = hardware.essentials(options.home)
        self._slots = (options.slots or self._essentials.get("cpu.cores", 1)) if options.role.works else 0
        self._name = options.labels.get("name") or f"{socket.gethostname()}-{network.peer_id[-4:]}"
        self._nodes = PresenceTable(
            network=network,
            own=self._presence(),
            rng=self._rng,
            worker_timeout=options.worker_timeout,
            check_peer=check_peer_id,
        )
        self._disk = RaftDisk(options.home / LOG_FILE, network.peer_id) if options.role.votes else None
        self._history = open_history(options.home) if options.role.votes else None
        self._past = PastDesk(self._history).look if self._history else None
        self._membership = Membership(
            network=network,
            nodes=self._nodes,
            logs=LogHome(network, self._disk, self._rng, measures.log) if self._disk else None,
            clock=self._clock,
            member=self._member,
            expect=options.expect,
            targets=targets,
            solitary=options.solitary,
        )
        self._alerting = Alerting(
            options.alerts,
            options.home,
            nodes=self._nodes,
            clock=self._clock,
            history=self._history,
            replica=lambda: self._membership.group,
            coordinator=lambda: self._membership.coordinator,
            mesh_name=lambda: self._membership.mesh,
        )
        self._keeping = Keeping(network=network, content=content, coordinator=lambda: self._membership.coordinator)
        self._backend = MeshBackend(
            network=network,
            content=content,
            nodes=self._nodes,
            replica=lambda: self._membership.group,
            coordinator=lambda: self._membership.coordinator,
            mesh_name=lambda: self._membership.mesh,
            conflicts=lambda: self._membership.conflicts,
            ticket=lambda: format_ticket(swarm_key, network.addresses()),
            home=self._options.home,
            past=self._past,
            rebuild=Rebuilding(self._history, content, self._clock).rebuild if self._history else None,
            own_alerts=self._alerting.own,
        )

    def _presence(self) -> Presence:
        labels = {f"label.{key}": text for key, text in self._options.labels.items()}
        return Presence(
            peer=self._network.peer_id,
            name=self._name,
            role=self._options.role,
            incarnation=self._incarnation,
            sequence=0,
            addresses=(),
            slots=self._slots,
            busy=0,
            draining=False,
            capabilities={**self._essentials, "python": platform.python_version(), PROBING: True, **labels},
            load={},
            bundles=(),
            links=(),
        )

    async def run(self) -> int | None:
        """Until told to stop; None to restart."""
        with ExitStack() as stack:
            if self._disk is not None:
                stack.enter_context(self._disk)
            if self._history is not None:
                stack.enter_context(self._history)
            if self._options.role.works:
                self._outbox = stack.enter_context(Outbox(self._options.home / "outbox.sqlite"))
                self._agent = self._make_agent(self._outbox)
            Duties(
                network=self._network,
                content=self._content,
                coordinator=lambda: self._coordinator,
                agent=self._agent,
                known_coordinator=lambda: self._membership.coordinator,
                feed=self._backend.feed,
                obey=self._obey,
            )
            with self._stop.scope:
                async with trio.open_nursery() as nursery:
                    await self._start(nursery)
        return None if self._stop.restart else 0

    async def _start(self, nursery: trio.Nursery) -> None:
        self._nursery = nursery  # first: a signal or an order may come before the last of this is up
        nursery.start_soon(self._nodes.run)
        nursery.start_soon(self._membership.run)
        nursery.start_soon(self._measure)
        nursery.start_soon(self._watch_signals)
        nursery.start_soon(self._tell_coordinator)
        nursery.start_soon(self._keeping.run)
        nursery.start_soon(self._alerting.run)
        nursery.start_soon(self._backend.feed.run)
        nursery.start_soon(self._backend.loads.run)
        if self._agent is not None:
            nursery.start_soon(self._agent.run)
        if self._options.api != "off":
            url = await nursery.start(
                serve_api,
                self._options.api,
                lasting_token(self._options.home),
                self._backend,
                self._content,
                self._network.peer_id,
                self._options.home,
                self._metrics(),
            )
            self._announce("dashboard", url)

    def _make_agent(self, outbox: Outbox) -> WorkerAgent:
        workshop = Workshop(
            content=self._content,
            manifests=self._backend.manifests,
            runner=self._runner,
            folder=self._options.home / "bundles",
            peer=self._network.peer_id,
            slots=self._slots,
            environments=Environments(self._options.home / "environments", installed, find_uv),
            hardware=lambda: hardware_class(self._nodes.own.capabilities),
            hash_seed=os.environ.get(HASH_SEED, ""),
        )
        return WorkerAgent(
            network=self._network,
            content=self._content,
            workshop=workshop,
            outbox=outbox,
            name=self._name,
            incarnation=lambda: self._nodes.own.incarnation,
            slots=self._slots,
            coordinator=lambda: self._membership.coordinator,
            changed=self._worker_changed,
            heartbeat_interval=self._options.heartbeat_interval,
        )

    def _metrics(self) -> NodeMetrics:
        return NodeMetrics(
            measures=self._measures,
            network=self._network,
            content=self._content,
            nodes=self._nodes,
            group=lambda: self._membership.group,
            coordination=lambda: self._coordinator.measuring.families() if self._coordinator else [],
            worker=lambda: self._agent,
            outbox=lambda: self._outbox,
            processes=lambda: self._runner.processes,
            syncs=self._disk.writes if self._disk else None,
        )

    def _worker_changed(self) -> None:
        if self._agent is not None:
            self._nodes.update(busy=self._agent.busy, bundles=self._agent.bundles())

    async def _member(self, group: Consensus) -> None:
        """For as long as this node is a member of `group`: coordinate whenever it leads."""
        coordinator = TestCoordinator(
            network=self._network,
            content=self._content,
            manifests=self._backend.manifests,
            log=group,
            nodes=self._nodes,
            clock=self._clock,
            worker_timeout=self._options.worker_timeout,
            scratch=self._options.home / "scratch",
            name=self._name,
            draw=_draw,
            measures=self._measures.coordination,
            replica_grace=self._options.replica_grace,
            past=self._past,
        )
        self._coordinator = coordinator
        try:
            async with trio.open_nursery() as nursery:
                if self._history is not None:
                    keeper = PastKeeper(self._history, self._content, self._backend.manifests, self._clock)
                    nursery.start_soon(keeper.keep, group)
                if self._tracing is not None:
                    nursery.start_soon(self._tracing.follow, group)
                await group.lead(partial(self._alerting.lead, group, coordinator.lead))
        finally:
            self._coordinator = None

    async def _tell_coordinator(self) -> None:
        told: PeerId | None = None
        while True:
            version = self._nodes.version
            coordinator = self._membership.coordinator
            if coordinator is not None and coordinator != told:
                told = coordinator
                self._announce("coordinator", coordinator)
            await self._nodes.wait_changed(version)

    async def _measure(self) -> None:
        """Hardware now and then, load all the time; in a thread, since probes block."""
        in_thread = partial(trio.to_thread.run_sync, abandon_on_cancel=True)
        labels = self._options.labels
        soon = await in_thread(hardware.soon, self._options.home)
        self._nodes.update(capabilities={**self._nodes.own.capabilities, **soon})
        probed = -PROBE_SECONDS
        while True:
            found: dict[str, Any] = {}
            if trio.current_time() - probed >= PROBE_SECONDS:
                probed = trio.current_time()
                found["capabilities"] = await in_thread(hardware.probe, self._options.home, labels)
            found["load"] = await in_thread(hardware.load, self._options.home)
            self._nodes.update(**found)  # at once: who knows all that a node has knows what is free of it, too
            await in_thread(self._neighbours.save, self._others())
            await trio.sleep(LOAD_SECONDS)

    def _others(self) -> dict[PeerId, tuple[str, ...]]:
        """Where the other nodes are that are not known to be gone."""
        return {
            peer: view.presence.addresses
            for peer, view in self._nodes.nodes().items()
            if peer != self._network.peer_id and view.state is not NodeState.DEAD
        }

    # Stopping

    async def _watch_signals(self) -> None:
        try:
            receiver = trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT)
        except ValueError:  # not in the main thread: whoever runs us there stops us by cancellation
            return
        asked = -SAME_STROKE_SECONDS
        with receiver as signals:
            async for _ in signals:
                again = trio.current_time() - asked >= SAME_STROKE_SECONDS
                asked = trio.current_time()
                if self._stop.asked and again:
                    self._stop.scope.cancel()
                    return
                self._obey(CommandVerb.STOP)

    def _obey(self, verb: CommandVerb) -> None:
        """An operator's order, or a signal."""
        if verb is CommandVerb.DRAIN:
            self._nodes.update(draining=True)
            if self._agent is not None:
                self._nursery.start_soon(self._agent.drain)
        elif not self._stop.asked:
            self._stop.asked = True
            self._stop.restart = verb is not CommandVerb.STOP
            self._nursery.start_soon(self._leave)

    async def _leave(self) -> None:
        """Drain, hand over, leave, end."""
        self._nodes.update(draining=True)
        if self._agent is not None:
            with trio.move_on_after(DRAIN_SECONDS):
                await self._agent.drain()
        if self._stop.restart:
            log.info("restarting")
        else:
            await self._membership.leave()
        self._stop.scope.cancel()

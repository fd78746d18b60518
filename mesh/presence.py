"""Who is here: publishes this node's presence, and keeps those of all others.

Soft state, a hint: nothing that must be right rests on it. Three ways bring a presence, and the newest wins:
gossip, every few seconds (slower as the mesh grows, so that the total stays constant); directly to every connected peer
when something changes that others act upon; and anti-entropy, an exchange of version numbers on every new connection
and with a random peer every few seconds, which heals whatever gossip lost.

Liveness comes from connections, which the network watches: a node that lost its connection is suspect at once, and
dead when nothing was heard of it for `worker_timeout`. Nodes too many to be connected to are judged by gossip alone.
Dead nodes are not passed on, or two nodes could keep a third one in memory for ever.
"""

import logging
import random
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

import trio

from mesh.ports import Network, NodeView
from protocols.codec import Value, decode, encode
from protocols.errors import MeshError, RemoteProtocolError
from protocols.ids import PeerId
from protocols.presence import (
    PRESENCES_PER_MESSAGE_MAX,
    PROTOCOL,
    TOPIC,
    Exchange,
    Newer,
    NodeState,
    Presence,
    Version,
)
from protocols.raft import LOG_FORMAT_CAPABILITY, LOG_FORMAT_NEWEST

NODES_MAX = 1024
NEIGHBOURS_MAX = 50
"""Nodes to which a connection is kept; voters count in, and are kept beyond it."""

BEAT_SECONDS_MIN = 3.0
BEAT_SECONDS_PER_NODE = 0.25
"""Between two gossiped presences of one node: four a second in all, in a mesh of any size over twelve."""

DEBOUNCE_SECONDS = 0.05
SWEEP_SECONDS = 0.5
EXCHANGE_SECONDS = 10.0
DEAD_SECONDS_MAX = 3600.0
"""How long a dead node stays in the table."""

INCARNATION_MAX = 2**62
"""Nanoseconds since the epoch, in 2116. What claims to come from later is made up: its node could only outdo it by
numbers that end, at 2**63, before its clock gets there."""

PRESENCE_BYTES_MAX = 64 * 1024
ANSWER_BYTES_MAX = 512 * 1024
GREETINGS_MAX = 256
LINKS_MAX = 64

URGENT = frozenset(
    {"name", "role", "slots", "draining", "capabilities", "mesh", "raft", "term", "coordinator", "runs", "addresses"}
)
"""Fields that others act upon; the rest goes with the next beat."""

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Node:
    presence: Presence
    heard: float
    state: NodeState
    since: float


class PresenceTable:
    """Implements `mesh.ports.Nodes`. `own` is this node's presence; the table numbers it and fills in addresses and
    links. `check_peer` raises a `MeshError` for a name that no peer of this network has: presences of such are
    dropped, and so not passed on."""

    def __init__(
        self,
        *,
        network: Network,
        own: Presence,
        rng: random.Random,
        worker_timeout: float = 10.0,
        check_peer: Callable[[str], object] = PeerId,
    ) -> None:
        self._network = network
        self._check_peer = check_peer
        self._rng = rng
        self._worker_timeout = worker_timeout
        self._own = replace(own, addresses=network.addresses(), links=(), capabilities=_with_format(own.capabilities))
        now = trio.current_time()
        self._nodes: dict[PeerId, _Node] = {}
        self._neighbours: dict[PeerId, tuple[str, ...]] = {}
        self._views: Mapping[PeerId, NodeView] = {}
        self._started = now
        self._version = 0
        self._changed = trio.Event()
        self._urgent = trio.Event()
        self._greet: deque[PeerId] = deque(maxlen=GREETINGS_MAX)
        self._greeting = trio.Event()
        network.watch(self._connection)
        network.subscribe(TOPIC, self._received)
        network.on_message(PROTOCOL, self._received)
        network.on_call(PROTOCOL, self._exchanged)
        self._sweep()

    # What is so

    @property
    def own(self) -> Presence:
        return self._own

    @property
    def version(self) -> int:
        return self._version

    def nodes(self) -> Mapping[PeerId, NodeView]:
        return self._views

    @property
    def addresses(self) -> Mapping[PeerId, tuple[str, ...]]:
        """Of the nodes that a connection is kept to: worth keeping in the home, for a start when nobody tells."""
        return MappingProxyType(self._neighbours)

    async def wait_changed(self, since: int) -> int:
        while self._version <= since:
            await self._changed.wait()
        return self._version

    def update(self, **fields: Any) -> None:
        if "capabilities" in fields:
            fields["capabilities"] = _with_format(fields["capabilities"])
        changed = {name: value for name, value in fields.items() if getattr(self._own, name) != value}
        if not changed:
            return
        self._own = replace(self._own, sequence=self._own.sequence + 1, **changed)
        self._sweep()
        if changed.keys() & URGENT:
            self._urgent.set()

    # Running

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._beat)
            nursery.start_soon(self._watch_time)
            nursery.start_soon(self._heal)
            nursery.start_soon(self._welcome, nursery)

    async def _beat(self) -> None:
        """Gossip at every beat; what is urgent goes directly to all that are connected, and as gossip to the others."""
        while True:
            urgent = self._urgent.is_set()
            self._urgent = trio.Event()
            self._refresh()
            payload = encode(self._own)
            links = self._network.links()
            if urgent:
                for peer in links:
                    self._network.send(peer, PROTOCOL, payload)
            if not urgent or len(links) + 1 < len(self._nodes):
                await self._network.publish(TOPIC, payload)
            pause = max(BEAT_SECONDS_MIN, BEAT_SECONDS_PER_NODE * len(self._nodes))
            with trio.move_on_after(pause * self._rng.uniform(0.8, 1.2)):
                await self._urgent.wait()
                await trio.sleep(DEBOUNCE_SECONDS)

    def _refresh(self) -> None:
        links = tuple(sorted(self._network.links().values(), key=lambda link: link.peer)[:LINKS_MAX])
        self._own = replace(
            self._own, sequence=self._own.sequence + 1, links=links, addresses=self._network.addresses()
        )
        self._sweep()

    async def _watch_time(self) -> None:
        while True:
            await trio.sleep(SWEEP_SECONDS)
            self._sweep()

    async def _heal(self) -> None:
        while True:
            await trio.sleep(EXCHANGE_SECONDS * self._rng.uniform(0.8, 1.2))
            peers = sorted(self._network.links())
            if peers:
                await self._exchange(self._rng.choice(peers))

    async def _welcome(self, nursery: trio.Nursery) -> None:
        """Exchange with everyone who connects, those included who did before this began."""
        self._greet.extend(sorted(self._network.links()))
        while True:
            while self._greet:
                nursery.start_soon(self._exchange, self._greet.popleft())
            self._greeting = trio.Event()
            await self._greeting.wait()

    # Exchanging

    async def _exchange(self, peer: PeerId) -> None:
        """Tell this peer what I hold, take what it has newer, and give what it lacks."""
        try:
            asked = Exchange(self._held(), (self._own,))
            answer = decode(await self._network.call(peer, PROTOCOL, encode(asked)), Newer)
        except MeshError as error:
            log.debug("no exchange of presences with %s: %s", peer, error)
            return
        self._take(peer, answer.presences)
        for wanted in answer.wanted[:PRESENCES_PER_MESSAGE_MAX]:
            node = self._nodes.get(wanted)
            if node is not None:
                self._network.send(peer, PROTOCOL, encode(node.presence))

    async def _exchanged(self, peer: PeerId, payload: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        asked = decode(payload, Exchange)
        self._take(peer, asked.presences)
        theirs = {version.peer: (version.incarnation, version.sequence) for version in asked.held}
        newer: list[Presence] = []
        size = 0
        for presence in [self._own, *(node.presence for node in self._nodes.values() if _living(node))]:
            if theirs.get(presence.peer, (-1, -1)) < _newness(presence):
                size += len(encode(presence))
                if size > ANSWER_BYTES_MAX or len(newer) == PRESENCES_PER_MESSAGE_MAX:
                    break
                newer.append(presence)
        wanted = [
            version.peer
            for version in asked.held
            if version.peer != self._own.peer and self._lacks(version.peer, (version.incarnation, version.sequence))
        ]
        return encode(Newer(tuple(newer), tuple(wanted[:PRESENCES_PER_MESSAGE_MAX])))

    def _held(self) -> tuple[Version, ...]:
        living = [node.presence for _, node in sorted(self._nodes.items()) if _living(node)]
        return tuple(Version(each.peer, each.incarnation, each.sequence) for each in [self._own, *living])

    def _lacks(self, peer: PeerId, newness: tuple[int, int]) -> bool:
        node = self._nodes.get(peer)
        return node is None or _newness(node.presence) < newness

    # Taking in

    def _received(self, peer: PeerId, payload: bytes) -> None:
        try:
            if len(payload) > PRESENCE_BYTES_MAX:
                raise RemoteProtocolError(f"a presence of {len(payload)} bytes")
            self._take(peer, [decode(payload, Presence)])
        except RemoteProtocolError as error:
            log.warning("dropped a presence from %s: %s", peer, error)

    def _take(self, sender: PeerId, presences: Sequence[Presence]) -> None:
        news = False
        for presence in presences:
            if not self._plausible(sender, presence):
                continue
            if presence.peer == self._own.peer:
                self._outdo(presence)
            elif self._lacks(presence.peer, _newness(presence)):
                if presence.peer == sender and sender not in self._nodes:
                    self._introduce(presence)
                news |= self._keep(presence)
        if news:
            self._sweep()
            self._bump()

    def _plausible(self, sender: PeerId, presence: Presence) -> bool:
        try:
            self._check_peer(presence.peer)
            if presence.incarnation > INCARNATION_MAX:
                raise RemoteProtocolError(f"incarnation {presence.incarnation} of {presence.peer} is none")
        except MeshError as error:
            log.debug("dropped a presence from %s: %s", sender, error)
            return False
        return True

    def _introduce(self, newcomer: Presence) -> None:
        """Tell the others of a newcomer who came here first: they connect to him, and need not wait for his gossip."""
        for peer in self._network.links():
            if peer != newcomer.peer:
                self._network.send(peer, PROTOCOL, encode(newcomer))

    def _outdo(self, echo: Presence) -> None:
        """Others hold a presence of this node from the future: the clock went back since. Go on from there."""
        if _newness(echo) > _newness(self._own):
            self._own = replace(self._own, incarnation=min(echo.incarnation + 1, INCARNATION_MAX))
            self._urgent.set()

    def _keep(self, presence: Presence) -> bool:
        now = trio.current_time()
        node = self._nodes.get(presence.peer)
        if node is not None:
            node.presence, node.heard = presence, now
        else:
            if len(self._nodes) >= NODES_MAX - 1 and not self._make_room():
                return False
            self._nodes[presence.peer] = _Node(presence, now, NodeState.SUSPECT, now)
        self._stay_connected(presence)
        return True

    def _make_room(self) -> bool:
        """Forget who is dead for longest."""
        dead = [(node.since, peer) for peer, node in self._nodes.items() if node.state is NodeState.DEAD]
        if not dead:
            return False
        self._forget(min(dead)[1])
        return True

    def _forget(self, peer: PeerId) -> None:
        del self._nodes[peer]
        if self._neighbours.pop(peer, None) is not None:
            self._network.forget(peer)

    def _stay_connected(self, presence: Presence) -> None:
        peer = presence.peer
        wanted = peer in self._neighbours or len(self._neighbours) < NEIGHBOURS_MAX or presence.raft == "voter"
        if wanted and presence.addresses and self._neighbours.get(peer) != presence.addresses:
            self._neighbours[peer] = presence.addresses
            self._network.know(peer, presence.addresses)

    # States

    def _connection(self, peer: PeerId, connected: bool) -> None:
        if connected:
            self._greet.append(peer)
            self._greeting.set()
        self._sweep()

    def _sweep(self) -> None:
        """See every node anew. Tells those who wait if a state or a connection changed."""
        now = trio.current_time()
        links = self._network.links()
        patience = max(self._worker_timeout, 3 * BEAT_SECONDS_PER_NODE * len(self._nodes))
        expired = []
        for peer, node in self._nodes.items():
            if peer in links:
                node.heard = now
            state = self._judge(node, peer in links, now, patience)
            if state is not node.state:
                node.state, node.since = state, now
            if state is NodeState.DEAD and now - node.since > DEAD_SECONDS_MAX:
                expired.append(peer)
        for peer in expired:
            self._forget(peer)
        own_state = NodeState.DRAINING if self._own.draining else NodeState.ALIVE
        views = {self._own.peer: NodeView(self._own, own_state, self._started, now, True)}
        for peer, node in self._nodes.items():
            views[peer] = NodeView(node.presence, node.state, node.since, node.heard, peer in links)
        before = self._views
        self._views = MappingProxyType(views)
        if before.keys() != views.keys() or any(_differs(before[peer], view) for peer, view in views.items()):
            self._bump()

    def _judge(self, node: _Node, connected: bool, now: float, patience: float) -> NodeState:
        if connected:
            return NodeState.DRAINING if node.presence.draining else NodeState.ALIVE
        if now - node.heard > patience:
            return NodeState.DEAD
        return NodeState.SUSPECT if node.presence.peer in self._neighbours else NodeState.ALIVE

    def _bump(self) -> None:
        self._version += 1
        self._changed.set()
        self._changed = trio.Event()


def _newness(presence: Presence) -> tuple[int, int]:
    return presence.incarnation, presence.sequence


def _living(node: _Node) -> bool:
    return node.state is not NodeState.DEAD


def _differs(one: NodeView, other: NodeView) -> bool:
    return one.state is not other.state or one.connected != other.connected or one.presence != other.presence


def _with_format(capabilities: Mapping[str, Value]) -> Mapping[str, Value]:
    """Every node tells which format of the log it reads: as a capability, which an older node passes over."""
    return {**capabilities, LOG_FORMAT_CAPABILITY: LOG_FORMAT_NEWEST}

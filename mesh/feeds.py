"""The feed of events at one node: from the log, or from a member that has it, to whoever listens at the node's API.

Any node serves the same events under the same IDs (`mesh/state/feed.py`). A member takes them from its own log as it
applies it; another node asks the coordinator, or a member it knows, by a `Watch` that waits, and goes on with the next
one by the same ID when that one dies. What a member's memory does not reach back to is had from others.

One hub serves all listeners, and sleeps while there are none: each event is serialised once, and a burst of a run's
progress is merged, so that ten open pages cost about what one does. Invariants: a listener gets every event after the
ID that it named, in order, or is told with `hello` that it must load all anew; what waits for it is bounded, and who is
too slow is cut off, to come back with the last ID that it has.
"""

import itertools
import json
import logging
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import trio

from mesh.listening import Listener, block, blocks
from mesh.ports import Network, Nodes, ReplicatedLog
from mesh.state.feed import Ring, merged
from protocols.client import FOLLOW_SECONDS_MAX, FROM_NOW_ON, PROTOCOL, FeedEvent, Watch, Watched
from protocols.codec import decode, encode
from protocols.errors import MeshError, MeshFailed
from protocols.ids import PeerId
from protocols.presence import NodeState
from protocols.work import Refused

log = logging.getLogger(__name__)

LISTENERS_MAX = 64
EVENTS_PER_ANSWER_MAX = 2_000
EVENT_BYTES_PER_ANSWER_MAX = 256 * 1024

MERGE_SECONDS = 0.2
"""After a burst of events, how long the next ones are gathered."""

MESH_SECONDS = 0.5
"""Between two looks at the mesh's state."""
MESH_BYTES_PER_SECOND = 100_000
"""Of that state, to each listener, as far as only loads have changed."""

WAIT_SECONDS = FOLLOW_SECONDS_MAX
"""How long one `Watch` may wait for news."""
GRACE_SECONDS = 2.0
"""And how much longer for its answer."""
GROUP_SECONDS = 1.0
"""How long one look at the own log lasts: the node may have left it."""
RETRY_SECONDS = 0.3
"""Before the next member is asked."""

KEEP_ALIVE_SECONDS = 10.0

PARTS_THAT_MATTER = ("peer", "state", "role", "raft", "slots")
"""Of a node's document: a change of these is told at once."""

READY_SECONDS = 5.0
"""A node that heard of a coordinator within these is ready."""

HELLO_SECONDS = 3.0
"""How long a new listener waits for this node to know where the log is: a member that has just started is behind."""


class Feeds:
    """Answers `Watch`, and serves this node's listeners."""

    def __init__(
        self,
        *,
        network: Network,
        nodes: Nodes,
        group: Callable[[], ReplicatedLog | None],
        coordinator: Callable[[], PeerId | None],
        mesh_name: Callable[[], str],
        conflicts: Callable[[], tuple[str, ...]],
        documents: Callable[[], list[dict[str, Any]]],
        now: Callable[[], float] = time.time,
    ) -> None:
        """`documents`: of the nodes, as in the status."""
        self._network = network
        self._nodes = nodes
        self._group = group
        self._coordinator = coordinator
        self._mesh_name = mesh_name
        self._conflicts = conflicts
        self._documents = documents
        self._now = now
        self._listeners: list[Listener] = []
        self._wanted = trio.Event()
        self._unwanted = trio.Event()
        self._moved = trio.Event()
        self._own = Ring()
        """Of a node without a log: what it was told."""
        self._told: Watched | None = None
        """By whom it asks, last; None when nobody answers."""
        self._as_of = 0.0
        self._source: PeerId | None = None
        self._mesh = ""
        self._cursor = FROM_NOW_ON
        """Up to which index the listeners have got all; `FROM_NOW_ON`: not known yet."""
        self._seen: tuple[int, PeerId | None] = (-1, None)
        """As of which the next two are: the version of the nodes, and who coordinates."""
        self._who: tuple[Any, ...] = ()
        self._shown = b"[]"

    # For other nodes

    async def answer(self, request: Watch) -> bytes:
        """What happened since; only a member knows."""
        group = self._group()
        if group is None:
            return encode(Refused("this node holds no log", self._coordinator()))
        ring: Ring = group.feed.ring
        found: Sequence[FeedEvent] | None = ()
        if request.after != FROM_NOW_ON:
            with trio.move_on_after(min(max(request.wait, 0.0), FOLLOW_SECONDS_MAX)):
                version = group.version
                while ring.since(request.after, 1, 1) == ():
                    version = await group.wait_changed(version)
            found = ring.since(request.after, EVENTS_PER_ANSWER_MAX, EVENT_BYTES_PER_ANSWER_MAX)
        head = found[-1].index if found and ring.since(found[-1].index, 1, 1) else ring.head
        voters = tuple(sorted(group.configuration.voters))
        return encode(Watched(tuple(found or ()), head, found is None, group.applied, group.term, group.leader, voters))

    # For this node's listeners

    @property
    def as_of(self) -> float | None:
        """When what this node knows of the mesh was last known to be agreed on, seconds since the epoch."""
        group = self._group()
        if group is not None and group.leader is not None:
            return self._now()
        known = max(group.feed.led_until or group.feed.at, self._as_of) if group is not None else self._as_of
        return known or None

    def dated(self, agreed: bool) -> dict[str, Any]:
        """What a document says of itself: whether a coordinator backs it, and when it was last the mesh's."""
        return {"agreed": agreed, "as_of": self._now() if agreed else self.as_of}

    @property
    def is_fresh(self) -> bool:
        """Whether this node heard of a coordinator lately."""
        as_of = self.as_of
        return as_of is not None and self._now() - as_of < READY_SECONDS

    def heard(self) -> None:
        """A coordinator answered this node just now."""
        self._as_of = self._now()

    async def ready(self) -> list[str]:
        """What keeps this node from being of use now, in sentences; nothing, if it follows a coordinator."""
        if self.is_fresh:
            return []
        coordinator = self._coordinator()
        if coordinator is None:
            return ["this node knows of no coordinator"]
        watched = await self._ask(coordinator, Watch(FROM_NOW_ON, 0.0)) if self._group() is None else None
        if watched is None or watched.leader is None:
            return [f"the coordinator {coordinator} does not answer this node"]
        self.heard()
        return []

    async def run(self) -> None:
        """Until cancelled; at work while somebody listens."""
        while True:
            await self._wanted.wait()
            self._unwanted = trio.Event()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._pump)
                nursery.start_soon(self._tell_mesh)
                await self._unwanted.wait()
                nursery.cancel_scope.cancel()
            if not self._listeners:  # else there is one already that goes on from here
                self._cursor = FROM_NOW_ON
                self._told = None

    async def listen(self, after: int | None) -> AsyncGenerator[bytes, None]:
        """Server-sent events, as many in a piece as there are: first `hello` and `mesh`, then all events after the one
        with that ID (None: from now on), and `mesh` when it changes. Ends when this node's place in the mesh changes,
        or the listener is too slow. `MeshFailed`: too many listen already."""
        if len(self._listeners) >= LISTENERS_MAX:
            raise MeshFailed(f"{LISTENERS_MAX} listen to the events of this node already: ask another one")
        listener = Listener()
        with self._served(listener):
            known = await self._caught_up(after)
            start, listener.live = self._cursor, True  # with this, no event comes twice, and none is left out
            backlog = await self._backlog(after, start) if after is not None and known else None
            reset = after is not None and backlog is None
            head = max(start, 0)
            hello = {"peer": self._network.peer_id, "mesh": self._mesh_name(), "head": head, "reset": reset}
            yield block("hello", json.dumps(hello).encode()) + self._mesh_block()
            if backlog:
                yield blocks(backlog)
            while not listener.cut:
                piece = b":\n\n"  # a comment, which says that the node still lives
                with trio.move_on_after(KEEP_ALIVE_SECONDS):
                    piece = await listener.take()
                yield piece

    @contextmanager
    def _served(self, listener: Listener) -> Iterator[None]:
        self._listeners.append(listener)
        self._wanted.set()
        try:
            yield
        finally:
            self._listeners.remove(listener)
            if not self._listeners:
                self._wanted = trio.Event()
                self._unwanted.set()

    async def _caught_up(self, after: int | None) -> bool:
        """Whether the hub is as far as the listener was."""
        least = 0 if after is None else after
        with trio.move_on_after(HELLO_SECONDS):
            while self._cursor < least:
                await self._moved.wait()
        return self._cursor >= least

    async def _backlog(self, after: int, upto: int) -> list[FeedEvent] | None:
        """The events between; None if nobody in reach knows them all."""
        found: list[FeedEvent] = []
        cursor = after
        while cursor < upto:
            more = self._ring.since(cursor, EVENTS_PER_ANSWER_MAX, EVENT_BYTES_PER_ANSWER_MAX)
            if more is None:
                watched = await self._from_any(cursor)
                if watched is None:
                    return None
                more, cursor = watched.events, watched.head
            elif not more:
                break
            found += [event for event in more if event.index <= upto]
            cursor = max(cursor, more[-1].index) if more else cursor
        return merged(found)

    async def _from_any(self, after: int) -> Watched | None:
        for peer in self._members():
            watched = await self._ask(peer, Watch(after, 0.0))
            if watched is not None and not watched.reset and watched.head > after:
                return watched
        return None

    # The hub

    @property
    def _ring(self) -> Ring:
        group = self._group()
        ring: Ring = group.feed.ring if group is not None else self._own
        return ring

    async def _pump(self) -> None:
        while True:
            if self._mesh_name() != self._mesh:
                self._mesh = self._mesh_name()
                self._restart(FROM_NOW_ON)
                self._own.restart(0)
            group = self._group()
            version = group.version if group is not None else 0
            told = group is not None or await self._bring()
            ring = self._ring
            if self._cursor == FROM_NOW_ON and told:
                self._move(ring.head)
            found = ring.since(self._cursor, EVENTS_PER_ANSWER_MAX, EVENT_BYTES_PER_ANSWER_MAX) if told else ()
            if found is None:  # another member's state replaced what this one had
                self._restart(ring.head)
            elif found:
                self._fan_out(blocks(merged(found)))
                self._move(found[-1].index)
                await trio.sleep(MERGE_SECONDS)
            elif group is not None:
                self._move(ring.head)
                with trio.move_on_after(GROUP_SECONDS):
                    await group.wait_changed(version)
            elif told:
                self._move(ring.head)

    def _move(self, cursor: int) -> None:
        if cursor != self._cursor:
            self._cursor = cursor
            self._moved.set()
            self._moved = trio.Event()

    def _restart(self, cursor: int) -> None:
        """Whoever listens comes back, and is told anew where this node stands."""
        for listener in self._listeners:
            if listener.live:
                listener.stop()
        self._move(cursor)

    def _fan_out(self, piece: bytes) -> None:
        for listener in self._listeners:
            if listener.live and not listener.cut:
                listener.put(piece)

    async def _bring(self) -> bool:
        """Ask a member for what came since; whether one answered."""
        fresh = self._cursor == FROM_NOW_ON
        since = FROM_NOW_ON if fresh and not self._own.head else self._own.head
        if self._source is None:
            self._source = next(iter(self._members()), None)
        watched = None
        if self._source is not None:
            watched = await self._ask(self._source, Watch(since, 0.0 if fresh else WAIT_SECONDS))
        self._told = watched
        if watched is None:
            members = self._members()
            later = [peer for peer in members if self._source is not None and peer > self._source]
            self._source = next(iter([*later, *members]), None)
            await trio.sleep(RETRY_SECONDS)
            return False
        if watched.leader is not None:
            self.heard()
        if since == FROM_NOW_ON or watched.reset:
            self._own.restart(watched.head)
            if not fresh:
                self._restart(watched.head)
            return True
        for index, events in itertools.groupby(watched.events, key=lambda event: event.index):
            if index > self._own.head:
                self._own.enter(index, list(events))
        self._own.advance(watched.head)
        return True

    async def _ask(self, peer: PeerId, request: Watch) -> Watched | None:
        """None: it does not answer, or holds no log, or is of a version that has no feed."""
        try:
            answer = await self._network.call(peer, PROTOCOL, encode(request), request.wait + GRACE_SECONDS)
            watched = decode(answer, Watched, Refused)
        except MeshError as error:
            log.info("%s tells no events: %s", peer, error)
            return None
        return watched if isinstance(watched, Watched) else None

    def _members(self) -> list[PeerId]:
        """Others that hold this mesh's log, as far as they are here; the coordinator first."""
        mesh, leader, views = self._mesh_name(), self._coordinator(), self._nodes.nodes()
        found = [
            peer
            for peer, view in sorted(views.items())
            if view.presence.raft and view.presence.mesh == mesh and view.state is not NodeState.DEAD
        ]
        ordered = dict.fromkeys([leader] if leader is not None else [])
        ordered.update(dict.fromkeys(found))
        ordered.pop(self._network.peer_id, None)
        return list(ordered)

    # The mesh's state

    async def _tell_mesh(self) -> None:
        state = self._mesh_state()
        due = 0.0
        while True:
            await trio.sleep(MESH_SECONDS)
            now = self._mesh_state()
            if now.matters != state.matters or (now.nodes != state.nodes and trio.current_time() >= due):
                state, piece = now, self._mesh_block(now)
                due = trio.current_time() + len(piece) / MESH_BYTES_PER_SECOND
                self._fan_out(piece)

    def _mesh_state(self) -> "_MeshState":
        group, told = self._group(), self._told
        if group is not None:
            voters = tuple(sorted(group.configuration.voters))
            where = _Where(group.leader is not None, group.term, voters, group.applied)
        elif told is not None:
            where = _Where(told.leader is not None, told.term, told.voters, told.commit)
        else:
            where = _Where(False, 0, (), 0)
        coordinator, conflicts = self._coordinator(), self._conflicts()
        seen = (self._nodes.version, coordinator)
        if seen != self._seen:
            documents = self._documents()
            who = tuple(tuple(node.get(part) for part in PARTS_THAT_MATTER) for node in documents)
            self._seen, self._who = seen, who
            self._shown = json.dumps(documents, separators=(",", ":")).encode()
        matters = (coordinator, where.agreed, where.term, where.voters, conflicts, self._who)
        stated = {
            "coordinator": coordinator,
            "term": where.term,
            "voters": list(where.voters),
            "agreed": where.agreed,
            "commit_index": where.commit,
            "conflicts": list(conflicts),
        }
        return _MeshState(matters, stated, self._shown)

    def _mesh_block(self, state: "_MeshState | None" = None) -> bytes:
        state = state or self._mesh_state()
        stated = json.dumps({**state.stated, "as_of": self.as_of}, separators=(",", ":")).encode()
        return block("mesh", stated[:-1] + b',"nodes":' + state.nodes + b"}")


@dataclass(frozen=True, slots=True)
class _Where:
    """Where the log stands."""

    agreed: bool
    term: int
    voters: tuple[PeerId, ...]
    commit: int


@dataclass(frozen=True, slots=True)
class _MeshState:
    """What `mesh` tells: what of it is told at once when it changes, and the whole of it, the nodes as JSON."""

    matters: tuple[Any, ...]
    stated: dict[str, Any]
    nodes: bytes

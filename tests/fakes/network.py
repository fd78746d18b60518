"""An in-memory network: seeded delays, crashes, cuts. Implements the Network port on trio's clock.

`Lan` owns the wires; `async with lan.node(peer)` is one node's adapter, and leaving it is that node's crash. A node
connects to whom it `know`s, as the real adapter does. Messages keep their order in each direction and protocol; a cut
loses them at once, while the two ends notice only `notice` seconds later.
"""

import heapq
import itertools
import random
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from mesh.ports import CALL_SECONDS_DEFAULT, MESSAGE_BYTES_MAX, CallHandler, MessageHandler
from protocols.errors import LocalProtocolError, MeshError, NodeUnavailable, RemoteCallError
from protocols.ids import PeerId
from protocols.presence import Link

DIAL_SECONDS = 0.2
"""How often a node dials whom it knows and is not connected to."""


class Lan:
    """All wires between the nodes of one test. Delays in seconds."""

    def __init__(self, seed: int = 0, delay: tuple[float, float] = (0.0005, 0.002), notice: float = 2.0) -> None:
        self.rng = random.Random(seed)
        self.delay = delay
        self.notice = notice
        self.nodes: dict[PeerId, FakeNetwork] = {}
        self.links: set[frozenset[PeerId]] = set()
        self.sent = 0
        self._cut: Callable[[PeerId, PeerId], bool] = lambda a, b: False
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._count = itertools.count()
        self._wake = trio.Event()
        self._last: dict[tuple[PeerId, PeerId, str], float] = {}

    async def run(self, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._pump)
            nursery.start_soon(self._dial)
            task_status.started()

    def cut(self, *groups: Iterable[PeerId]) -> None:
        """Only nodes in one group reach each other; who is in none reaches nobody."""
        group_of = {peer: number for number, group in enumerate(groups) for peer in group}
        self.cut_if(lambda a, b: group_of.get(a, a) != group_of.get(b, b))

    def cut_if(self, unreachable: Callable[[PeerId, PeerId], bool]) -> None:
        """One-way where the function is."""
        self._cut = unreachable
        for link in sorted(self.links, key=sorted):
            if not self._whole(link):
                self.at(self.notice, lambda link=link: None if self._whole(link) else self.unlink(link))

    def heal(self) -> None:
        self._cut = lambda a, b: False

    def reaches(self, source: PeerId, target: PeerId) -> bool:
        return source in self.nodes and target in self.nodes and not self._cut(source, target)

    def _whole(self, link: frozenset[PeerId]) -> bool:
        a, b = sorted(link)
        return self.reaches(a, b) and self.reaches(b, a)

    def at(self, delay: float, action: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (trio.current_time() + delay, next(self._count), action))
        self._wake.set()

    def pause(self) -> float:
        return self.rng.uniform(*self.delay)

    def carry(self, source: PeerId, target: PeerId, protocol: str, deliver: Callable[[], None]) -> None:
        """Deliver later, in order, unless the way is cut then."""
        self.sent += 1
        key = (source, target, protocol)
        when = max(trio.current_time() + self.pause(), self._last.get(key, 0.0))
        self._last[key] = when
        link = frozenset((source, target))
        self.at(
            when - trio.current_time(),
            lambda: deliver() if link in self.links and self.reaches(source, target) else None,
        )

    def link(self, link: frozenset[PeerId]) -> None:
        self.links.add(link)
        self._tell(link, True)

    def unlink(self, link: frozenset[PeerId]) -> None:
        if link in self.links:
            self.links.discard(link)
            self._tell(link, False)

    def _tell(self, link: frozenset[PeerId], connected: bool) -> None:
        a, b = sorted(link)
        for one, other in ((a, b), (b, a)):
            if one in self.nodes:
                self.nodes[one].told(other, connected)

    async def _pump(self) -> None:
        while True:
            while self._heap and self._heap[0][0] <= trio.current_time():
                heapq.heappop(self._heap)[2]()
            self._wake = trio.Event()
            with trio.move_on_at(self._heap[0][0] if self._heap else float("inf")):
                await self._wake.wait()

    async def _dial(self) -> None:
        while True:
            for peer in sorted(self.nodes):
                for other in sorted(self.nodes[peer].known):
                    link = frozenset((peer, other))
                    if other != peer and link not in self.links and self._whole(link):
                        self.link(link)
            await trio.sleep(DIAL_SECONDS)

    @asynccontextmanager
    async def node(self, peer: PeerId) -> "AsyncIterator[FakeNetwork]":
        """The node's adapter; at the end the node is dead, which those connected to it notice at once."""
        assert peer not in self.nodes
        async with trio.open_nursery() as nursery:
            network = self.nodes[peer] = FakeNetwork(peer, self, nursery)
            try:
                yield network
            finally:
                del self.nodes[peer]
                for link in sorted((link for link in self.links if peer in link), key=sorted):
                    self.unlink(link)
                nursery.cancel_scope.cancel()


@dataclass
class _Pending:
    done: trio.Event = field(default_factory=trio.Event)
    answer: bytes = b""
    error: MeshError | None = None

    def finish(self, answer: bytes, error: MeshError | None) -> None:
        if not self.done.is_set():
            self.answer, self.error = answer, error
            self.done.set()


class FakeNetwork:
    """One node's end."""

    def __init__(self, peer: PeerId, lan: Lan, nursery: trio.Nursery) -> None:
        self._peer = peer
        self._lan = lan
        self._nursery = nursery
        self.known: dict[PeerId, tuple[str, ...]] = {}
        self._watchers: list[Callable[[PeerId, bool], None]] = []
        self._on_message: dict[str, MessageHandler] = {}
        self._on_call: dict[str, CallHandler] = {}
        self._topics: dict[str, MessageHandler] = {}
        self._pending: dict[PeerId, list[_Pending]] = {}

    @property
    def peer_id(self) -> PeerId:
        return self._peer

    def addresses(self) -> tuple[str, ...]:
        return (f"/memory/{self._peer}",)

    def links(self) -> Mapping[PeerId, Link]:
        others = [next(iter(link - {self._peer})) for link in self._lan.links if self._peer in link]
        return {other: Link(other, 0.001) for other in sorted(others)}

    def know(self, peer: PeerId, addresses: Sequence[str]) -> None:
        self.known[peer] = tuple(addresses)

    def forget(self, peer: PeerId) -> None:
        self.known.pop(peer, None)
        self._lan.unlink(frozenset((peer, self._peer)))

    def watch(self, changed: Callable[[PeerId, bool], None]) -> None:
        self._watchers.append(changed)

    def told(self, peer: PeerId, connected: bool) -> None:
        if not connected:
            for pending in self._pending.pop(peer, []):
                pending.finish(b"", NodeUnavailable(f"the connection to {peer} was lost"))
        for changed in self._watchers:
            changed(peer, connected)

    def on_message(self, protocol: str, handler: MessageHandler) -> None:
        self._on_message[protocol] = handler

    def on_call(self, protocol: str, handler: CallHandler) -> None:
        self._on_call[protocol] = handler

    def send(self, peer: PeerId, protocol: str, payload: bytes) -> bool:
        if len(payload) > MESSAGE_BYTES_MAX:
            raise LocalProtocolError(f"{len(payload)} bytes in one message")
        if frozenset((self._peer, peer)) not in self._lan.links:
            return False

        def deliver() -> None:
            handler = self._lan.nodes[peer]._on_message.get(protocol)
            if handler is not None:
                handler(self._peer, payload)

        self._lan.carry(self._peer, peer, protocol, deliver)
        return True

    async def call(self, peer: PeerId, protocol: str, payload: bytes, timeout: float = CALL_SECONDS_DEFAULT) -> bytes:
        if len(payload) > MESSAGE_BYTES_MAX:
            raise LocalProtocolError(f"{len(payload)} bytes in one message")
        pending = _Pending()
        if peer == self._peer:
            self._nursery.start_soon(self._answer, peer, protocol, payload, pending.finish)
        elif frozenset((self._peer, peer)) not in self._lan.links:
            await trio.lowlevel.checkpoint()
            raise NodeUnavailable(f"no connection to {peer}")
        else:
            self._pending.setdefault(peer, []).append(pending)
            self._lan.carry(self._peer, peer, "call", lambda: self._arrive(peer, protocol, payload, pending))
        with trio.move_on_after(timeout):
            await pending.done.wait()
        if not pending.done.is_set():
            raise NodeUnavailable(f"{peer} did not answer within {timeout:g} s")
        if pending.error is not None:
            raise pending.error
        return pending.answer

    def _arrive(self, peer: PeerId, protocol: str, payload: bytes, pending: _Pending) -> None:
        def finish(answer: bytes, error: MeshError | None) -> None:
            self._lan.carry(peer, self._peer, "answer", lambda: pending.finish(answer, error))

        target = self._lan.nodes[peer]
        target._nursery.start_soon(target._answer, self._peer, protocol, payload, finish)

    async def _answer(
        self, caller: PeerId, protocol: str, payload: bytes, finish: Callable[[bytes, MeshError | None], None]
    ) -> None:
        handler = self._on_call.get(protocol)
        if handler is None:
            finish(b"", NodeUnavailable(f"{self._peer} does not speak {protocol}"))
            return
        try:
            answer = await handler(caller, payload)
        except MeshError as error:
            finish(b"", RemoteCallError(str(error)))
        else:
            finish(answer, None)

    def subscribe(self, topic: str, handler: MessageHandler) -> None:
        self._topics[topic] = handler

    async def publish(self, topic: str, payload: bytes) -> None:
        """Flooded over the links."""
        await trio.lowlevel.checkpoint()
        seen = {self._peer}

        def spread(at: "FakeNetwork") -> None:
            for other in at.links():
                if other not in seen and self._lan.reaches(at._peer, other):
                    seen.add(other)
                    self._lan.carry(at._peer, other, topic, lambda other=other: arrive(self._lan.nodes[other]))

        def arrive(node: "FakeNetwork") -> None:
            handler = node._topics.get(topic)
            if handler is not None:
                handler(self._peer, payload)
            spread(node)

        spread(self)

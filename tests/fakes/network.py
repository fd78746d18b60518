"""An in-memory network: seeded delays, crashes, cuts. Implements the Network port on trio's clock.

`Lan` owns the wires; `async with lan.node(peer)` is one node's adapter, and leaving it is that node's crash. A node
connects to whom it `know`s, as the real adapter does. Messages keep their order in each direction and protocol, and are
lost with their connection; a cut loses them at once, while the two ends notice only `notice` seconds later. `Weather`
makes it worse: streams lose no single message, so that a lost request or answer takes its connection with it, while
messages (a full queue drops them, gossip repeats and overtakes) are lost, doubled and overtaken one by one.
"""

import hashlib
import heapq
import itertools
import math
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import trio

from mesh.ports import CALL_SECONDS_DEFAULT, MESSAGE_BYTES_MAX, CallHandler, MessageHandler
from protocols.errors import LocalProtocolError, MeshError, NodeUnavailable, RemoteCallError
from protocols.ids import PeerId
from protocols.presence import Link

DIAL_SECONDS = 0.2
"""How often a node dials whom it knows and is not connected to."""


@dataclass(frozen=True, slots=True)
class Weather:
    """What becomes of what the wires carry: probabilities of each message, and bounds of its delay in seconds."""

    delay: tuple[float, float] = (0.0005, 0.002)
    loss: float = 0.0
    duplication: float = 0.0
    reorder: float = 0.0


ONE_WAY = ("call", "answer")
"""What is carried of calls; all else are messages."""


class Lan:
    """All wires between the nodes of one test. Delays in seconds."""

    def __init__(self, seed: int = 0, delay: tuple[float, float] = (0.0005, 0.002), notice: float = 2.0) -> None:
        self.rng = random.Random(seed)
        self.weather = Weather(delay)
        self.notice = notice
        self.nodes: dict[PeerId, FakeNetwork] = {}
        self.links: set[frozenset[PeerId]] = set()
        self.sent = 0
        self.sent_max = math.inf
        self.faults: Counter[str] = Counter()
        self.mute: set[tuple[PeerId, str]] = set()
        """(peer, protocol): the peer's calls of it arrive nowhere, as if that part of the process hung."""
        self._births: Counter[frozenset[PeerId]] = Counter()
        """How often a link came up: what was sent over an earlier connection is lost with it."""
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
        item = (trio.current_time() + delay, next(self._count), action)
        heapq.heappush(self._heap, item)
        if self._heap[0] is item:
            self._wake.set()

    def carry(self, source: PeerId, target: PeerId, protocol: str, deliver: Callable[[], None]) -> None:
        """Deliver later, in order, unless the way is cut then, or the connection another one."""
        self.sent += 1
        assert self.sent <= self.sent_max, f"{source} and others send without end: {protocol} to {target}"
        link, weather, rng = frozenset((source, target)), self.weather, self.rng
        birth, called = self._births[link], protocol in ONE_WAY

        def arrive() -> None:
            if link in self.links and self._births[link] == birth and self.reaches(source, target):
                deliver()

        when = trio.current_time() + rng.uniform(*weather.delay)
        if weather.loss and rng.random() < weather.loss:
            self.faults["lost call" if called else "lost message"] += 1
            if called:
                self.at(rng.uniform(0, self.notice), lambda: self._births[link] == birth and self.unlink(link))
            return
        if weather.reorder and not called and rng.random() < weather.reorder:
            self.faults["overtaken message"] += 1
            self.at(rng.uniform(1, 20) * weather.delay[1], arrive)
            return
        if weather.duplication and not called and rng.random() < weather.duplication:
            self.faults["doubled message"] += 1
            self.at(rng.uniform(1, 20) * weather.delay[1], arrive)
        key = (source, target, protocol)
        self._last[key] = when = max(when, self._last.get(key, 0.0))
        self.at(when - trio.current_time(), arrive)

    def link(self, link: frozenset[PeerId]) -> None:
        self.links.add(link)
        self._births[link] += 1
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
                self.kill(peer)
                nursery.cancel_scope.cancel()

    def kill(self, peer: PeerId) -> None:
        """At once, whatever its tasks do yet: nothing of this node reaches anybody any more."""
        if self.nodes.pop(peer, None) is not None:
            for link in sorted((link for link in self.links if peer in link), key=sorted):
                self.unlink(link)


Finisher = Callable[[bytes, MeshError | None], None]


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
        self._serving: dict[PeerId, dict[int, trio.CancelScope]] = {}
        """What is being answered: it ends with the connection over which it came."""
        self._served = itertools.count()

    @property
    def peer_id(self) -> PeerId:
        return self._peer

    def sign(self, data: bytes) -> bytes:
        return f"{self.peer_id} signs ".encode() + hashlib.sha256(data).digest()

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
            for scope in self._serving.pop(peer, {}).values():
                scope.cancel()
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
            self._nursery.start_soon(self._answer, peer, protocol, payload, pending.finish, timeout)
        elif frozenset((self._peer, peer)) not in self._lan.links:
            await trio.lowlevel.checkpoint()
            raise NodeUnavailable(f"no connection to {peer}")
        else:
            self._pending.setdefault(peer, []).append(pending)
            if (self._peer, protocol) not in self._lan.mute:
                arrive = partial(self._arrive, peer, protocol, payload, pending, timeout)
                self._lan.carry(self._peer, peer, "call", arrive)
        with trio.move_on_after(timeout):
            await pending.done.wait()
        if not pending.done.is_set():
            raise NodeUnavailable(f"{peer} did not answer within {timeout:g} s")
        if pending.error is not None:
            raise pending.error
        return pending.answer

    def _arrive(self, peer: PeerId, protocol: str, payload: bytes, pending: _Pending, timeout: float) -> None:
        def finish(answer: bytes, error: MeshError | None) -> None:
            self._lan.carry(peer, self._peer, "answer", lambda: pending.finish(answer, error))

        target = self._lan.nodes[peer]
        target._nursery.start_soon(target._serve, self._peer, protocol, payload, finish, timeout)

    async def _serve(self, caller: PeerId, protocol: str, payload: bytes, finish: Finisher, timeout: float) -> None:
        serving, number = self._serving.setdefault(caller, {}), next(self._served)
        with trio.CancelScope() as serving[number]:
            await self._answer(caller, protocol, payload, finish, timeout)
        serving.pop(number, None)

    async def _answer(self, caller: PeerId, protocol: str, payload: bytes, finish: Finisher, timeout: float) -> None:
        """As long as the caller waits."""
        with trio.move_on_after(timeout):
            await self._handle(caller, protocol, payload, finish)

    async def _handle(self, caller: PeerId, protocol: str, payload: bytes, finish: Finisher) -> None:
        handler = self._on_call.get(protocol)
        if handler is None:
            finish(b"", NodeUnavailable(f"{self._peer} does not speak {protocol}"))
            return
        try:
            answer = await handler(caller, payload)
        except MeshError as error:
            code = RemoteCallError.exit_code if error.exit_code == MeshError.exit_code else error.exit_code
            finish(b"", RemoteCallError(str(error), code))
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

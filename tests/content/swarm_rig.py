"""Bitswap between hosts that exist in memory only: each has an uplink of so many bytes a second, and what it sends
arrives a moment later. With an `autojump_clock`, minutes of a slow network take no time, and each run is the same."""

import random
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import trio
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.peer.id import ID

from mesh.content.bitswap.exchange import Bitswap, open_bitswap
from mesh.content.fetching import Fetch
from mesh.content.unixfs.cid import parse_cid
from mesh.content.unixfs.nodes import Block
from protocols.ids import Cid, PeerId


class MemoryRepository:
    """As much of a `Repository` as an exchange and a fetch need."""

    def __init__(self) -> None:
        self.blocks: dict[bytes, bytes] = {}

    async def get_many(self, cids: Sequence[Cid]) -> list[bytes | None]:
        return [self.blocks.get(parse_cid(cid)[1]) for cid in cids]

    async def get_some(self, cids: Sequence[Cid], bytes_max: int) -> list[bytes | None]:
        found: list[bytes | None] = []
        for cid in cids:
            found.append(self.blocks.get(parse_cid(cid)[1]))
            if sum(len(data or b"") for data in found) >= bytes_max:
                break
        return found

    async def has_many(self, cids: Sequence[Cid]) -> list[bool]:
        return [parse_cid(cid)[1] in self.blocks for cid in cids]

    async def put_many(self, blocks: Sequence[Block]) -> None:
        self.blocks |= {parse_cid(block.cid)[1]: block.data for block in blocks}


class _Stream:
    """One way, from one host to another."""

    def __init__(self, sender: "Host", receiver: "Host") -> None:
        self._sender, self._receiver = sender, receiver
        self.muxed_conn = SimpleNamespace(peer_id=sender.id)
        self._send, self._arrive = trio.open_memory_channel[tuple[float, bytes]](1000)

    async def write(self, data: bytes) -> None:
        async with self._sender.uplink:
            self._sender.sent[self._receiver.name] += len(data)
            await trio.sleep(len(data) / self._sender.net.bytes_per_second * self._sender.slowness)
        await self._send.send((trio.current_time() + self._sender.net.latency, data))

    async def read(self, _: int) -> bytes:
        try:
            when, data = await self._arrive.receive()
        except trio.EndOfChannel:
            return b""
        await trio.sleep(max(0.0, when - trio.current_time()))
        return data

    async def reset(self) -> None:
        self._send.close()


@dataclass
class Network:
    bytes_per_second: float
    latency: float
    nursery: trio.Nursery
    hosts: dict[ID, "Host"] = field(default_factory=dict)


class Host:
    """What an exchange uses of a libp2p host; all hosts of a network are connected."""

    def __init__(self, net: Network, number: int) -> None:
        self.net = net
        self.id = ID.from_pubkey(create_new_key_pair(bytes([number]) * 32).public_key)
        self.name = PeerId(self.id.to_base58())
        self.uplink = trio.Lock()
        self.slowness = 1.0
        """Times that the uplink is slower than others'."""
        self.sent: defaultdict[PeerId, int] = defaultdict(int)
        """Bytes, to whom."""
        self.handler: Callable[[Any], Any] | None = None
        net.hosts[self.id] = self

    def get_id(self) -> ID:
        return self.id

    def get_connected_peers(self) -> list[ID]:
        return [peer for peer in self.net.hosts if peer != self.id]

    def set_stream_handler(self, _: str, handler: Callable[[Any], Any]) -> None:
        self.handler = handler

    def remove_stream_handler(self, _: str) -> None:
        self.handler = None

    async def new_stream(self, peer: ID, _: Sequence[str]) -> _Stream:
        await trio.sleep(self.net.latency)
        stream = _Stream(self, self.net.hosts[peer])
        handler = self.net.hosts[peer].handler
        assert handler is not None
        self.net.nursery.start_soon(handler, stream)
        return stream


@dataclass
class SwarmNode:
    host: Host
    repository: MemoryRepository
    exchange: Bitswap

    @property
    def name(self) -> PeerId:
        return self.host.name

    @property
    def sent(self) -> int:
        return sum(self.host.sent.values())

    async def fetch(self, root: Cid, holders: Sequence[PeerId]) -> None:
        fetch = Fetch(self.repository, self.exchange, holders, 60.0)  # type: ignore[arg-type]
        fetch._dice = random.Random(self.name)
        await fetch.run(root)


@asynccontextmanager
async def swarm(count: int, bytes_per_second: float, latency: float) -> AsyncIterator[list[SwarmNode]]:
    async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
        net = Network(bytes_per_second, latency, nursery)
        nodes = []
        for number in range(count):
            host, repository = Host(net, number), MemoryRepository()
            exchange = await stack.enter_async_context(open_bitswap(host, repository))  # type: ignore[arg-type]
            nodes.append(SwarmNode(host, repository, exchange))
        yield nodes
        nursery.cancel_scope.cancel()

"""Real nodes on loopback, each with its content."""

import contextlib
import random
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio
from libp2p.peer.id import ID

from mesh.content.bitswap.exchange import Bitswap, open_bitswap
from mesh.content.bitswap.wire import PROTOCOL, Decoder, Message
from mesh.content.local import LocalRepository, open_local
from mesh.content.store import EmbeddedContent
from mesh.net.host import MeshNetwork, open_network
from mesh.net.identity import open_identity

KEY = bytes(range(32))


def random_bytes(count: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(count)


@dataclass(frozen=True)
class ContentNode:
    network: MeshNetwork
    repository: LocalRepository
    exchange: Bitswap
    content: EmbeddedContent

    async def meet(self, *others: "ContentNode") -> None:
        """Return when this node is connected to the others."""
        for other in others:
            self.network.know(other.network.peer_id, other.network.addresses())
        with trio.fail_after(20):
            for other in others:
                await poll(lambda other=other: other.network.peer_id in self.network.links())  # type: ignore[misc]
                await poll(lambda other=other: self.network.peer_id in other.network.links())  # type: ignore[misc]


async def poll(condition: Callable[[], object]) -> None:
    """Wait for what nothing announces; the caller, or pytest's timeout, bounds it."""
    while not condition():  # noqa: ASYNC110
        await trio.sleep(0.005)


NodeMaker = Callable[[], AbstractAsyncContextManager[ContentNode]]


def node_maker(directory: Path) -> NodeMaker:
    """Makes nodes whose homes lie in `directory`."""
    count = 0

    @asynccontextmanager
    async def make() -> AsyncIterator[ContentNode]:
        nonlocal count
        count += 1
        home = directory / f"node{count}"
        with open_identity(home) as identity:
            listen = ["/ip4/127.0.0.1/tcp/0"]
            async with (
                open_network(identity=identity, swarm_key=KEY, listen=listen, mdns=False) as network,
                open_local(home / "blocks") as repository,
                open_bitswap(network.host, repository) as exchange,
            ):
                yield ContentNode(network, repository, exchange, EmbeddedContent(repository, exchange))

    return make


class Stranger:
    """A peer that speaks Bitswap by hand, on a real host."""

    def __init__(self, node: ContentNode) -> None:
        self.node = node
        self.got: list[Message] = []
        self.arrived = trio.Event()
        node.network.host.set_stream_handler(PROTOCOL, self.listen)

    async def listen(self, stream: Any) -> None:
        decoder = Decoder()
        while data := await stream.read(65536):
            self.got += decoder.feed(data)
            self.arrived.set()

    async def open(self, node: ContentNode) -> Any:
        return await self.node.network.host.new_stream(ID.from_base58(node.network.peer_id), [PROTOCOL])

    async def wait(self, condition: Callable[[list[Message]], bool]) -> None:
        with trio.fail_after(5):
            while not condition(self.got):
                self.arrived = trio.Event()
                await self.arrived.wait()

    async def say(self, node: ContentNode, *frames: bytes) -> None:
        """Write them on a stream of their own, as far as the other side lets."""
        with contextlib.suppress(Exception):  # it hangs up, in one of the library's many forms
            stream = await self.open(node)
            for frame in frames:
                await stream.write(frame)

    async def answer(self, node: ContentNode, give: Callable[[Message], bytes]) -> None:
        """Give back what `give` makes of each message that comes, until cancelled."""
        done = 0
        while True:
            await self.arrived.wait()
            self.arrived = trio.Event()
            while done < len(self.got):
                frame = give(self.got[done])
                done += 1
                if frame:
                    await self.say(node, frame)

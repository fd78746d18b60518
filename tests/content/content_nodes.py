"""Real nodes on loopback, each with its content."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from mesh.content.bitswap.exchange import Bitswap, open_bitswap
from mesh.content.local import LocalRepository, open_local
from mesh.content.store import EmbeddedContent
from mesh.net.host import MeshNetwork, open_network
from mesh.net.identity import open_identity

KEY = bytes(range(32))


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

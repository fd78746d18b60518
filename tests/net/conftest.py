"""Real hosts on loopback, all in this process."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
import trio
from net_helpers import KEY, LOOPBACK, until

from mesh.net.host import MeshNetwork, open_network
from mesh.net.identity import open_identity

MakeNode = Callable[..., AbstractAsyncContextManager[MeshNetwork]]


@pytest.fixture
def make_node(tmp_path: Path) -> MakeNode:
    """`make_node(key=KEY, home="a", …)`: an open node, each with a home of its own unless one is named."""
    count = 0

    @asynccontextmanager
    async def make(
        key: bytes = KEY, home: str = "", listen: tuple[str, ...] = LOOPBACK, mdns: bool = False
    ) -> AsyncIterator[MeshNetwork]:
        nonlocal count
        count += 1
        with open_identity(tmp_path / (home or f"node{count}")) as identity:
            async with open_network(identity=identity, swarm_key=key, listen=listen, mdns=mdns) as network:
                yield network

    return make


@pytest.fixture
def connect() -> Callable:
    """`await connect(a, b)`: `a` dials `b`; both see the connection."""

    async def connect(a: MeshNetwork, b: MeshNetwork) -> None:
        with trio.fail_after(10):
            a.know(b.peer_id, b.addresses())
            await until(lambda: b.peer_id in a.links() and a.peer_id in b.links(), a, b)

    return connect

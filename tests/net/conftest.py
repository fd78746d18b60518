"""Real hosts on loopback, all in this process."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
import trio

from mesh.net.host import MeshNetwork, open_network
from mesh.net.identity import open_identity
from protocols.ids import PeerId

KEY = bytes(range(32))
LOOPBACK = ("/ip4/127.0.0.1/tcp/0",)

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


async def poll(condition: Callable[[], object]) -> None:
    """Wait for what nothing announces; the caller bounds it."""
    while not condition():  # noqa: ASYNC110
        await trio.sleep(0.005)


async def until(condition: Callable[[], bool], *networks: MeshNetwork) -> None:
    """Wait until `condition` holds, looking whenever a peer of one of the nodes comes or goes."""
    changed = trio.Event()

    def wake(peer: PeerId, connected: bool) -> None:
        changed.set()

    for network in networks:
        network.watch(wake)
    while not condition():
        await changed.wait()
        changed = trio.Event()

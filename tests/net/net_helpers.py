"""What several of these tests need, beside the fixtures."""

from collections.abc import Callable

import trio

from mesh.net.host import MeshNetwork
from protocols.ids import PeerId

KEY = bytes(range(32))
LOOPBACK = ("/ip4/127.0.0.1/tcp/0",)


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

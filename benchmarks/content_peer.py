"""A node's network and content, without the rest of it, driven by JSON lines: what `benchmarks/content.py` measures.

A command is a list, such as ["fetch", CID, [PEER, …]]; its answer has the seconds that it took, the bytes that this
process has sent to others since it began, and its peak memory.
"""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import trio

from mesh.content.store import EmbeddedContent, open_content
from mesh.content.tree import bundle_files
from mesh.net.host import MeshNetwork, open_network
from mesh.net.identity import open_identity
from protocols.ids import Cid, PeerId

LISTEN = ["/ip4/127.0.0.1/tcp/0"]
POLL_SECONDS = 0.01
sent = 0


def count_sent() -> None:
    """Count what goes out on all sockets of this process, encryption and all."""
    send_all = trio.SocketStream.send_all

    async def counting(self: trio.SocketStream, data: Any) -> None:
        global sent
        sent += len(data)
        await send_all(self, data)

    trio.SocketStream.send_all = counting  # type: ignore[method-assign]


def peak_bytes() -> int:
    """The largest resident set since the start."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM"):
            return int(line.split()[1]) * 1024
    return 0


class Peer:
    """What a command does."""

    def __init__(self, network: MeshNetwork, content: EmbeddedContent) -> None:
        self._network = network
        self._content = content

    async def know(self, peer: str, addresses: Sequence[str]) -> None:
        name = PeerId(peer)
        self._network.know(name, addresses)
        while name not in self._network.links():  # noqa: ASYNC110 - nothing announces it here
            await trio.sleep(POLL_SECONDS)

    async def look(self) -> None:
        """Nothing but the figures."""

    async def add(self, path: str) -> Cid:
        return await self._content.add_path(Path(path))

    async def bundle(self, path: str) -> Cid:
        """As `mesh run` does it: which files there are, and those that changed."""
        names = await trio.to_thread.run_sync(bundle_files, Path(path))
        return await self._content.add_path(Path(path), names)

    async def fetch(self, root: str, holders: Sequence[str]) -> None:
        await self._content.fetch(Cid(root), [PeerId(peer) for peer in holders])

    async def checkout(self, root: str, target: str, former: str) -> None:
        """As a worker does it: made of the checkout before it."""
        await self._content.checkout(Cid(root), Path(target), Path(former), remember=True)


async def main(home: Path, key: str) -> None:
    count_sent()
    with open_identity(home) as identity:
        async with (
            open_network(identity=identity, swarm_key=bytes.fromhex(key), listen=LISTEN, mdns=False) as network,
            open_content(home, network.host) as content,
        ):
            peer = Peer(network, content)
            print(json.dumps([network.peer_id, network.addresses()]), flush=True)
            while line := await trio.to_thread.run_sync(sys.stdin.readline):
                verb, *arguments = json.loads(line)
                began = time.perf_counter()
                result = await getattr(peer, verb)(*arguments)
                seconds = time.perf_counter() - began
                print(
                    json.dumps({"result": result, "seconds": seconds, "sent": sent, "peak": peak_bytes()}), flush=True
                )


if __name__ == "__main__":
    trio.run(main, Path(sys.argv[1]), sys.argv[2])

"""Content in memory: each node's blocks outlive its process (a disk), and come from nodes that the `Lan` reaches.

A tree is one block here, and a checkout makes an empty directory: what the services do with content is under test,
not IPFS.
"""

import base64
import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import trio

from mesh.ports import ContentStat
from protocols.errors import ContentNotFound
from protocols.ids import Cid, PeerId
from tests.fakes.network import Lan


class Shelves:
    """The disks of all nodes of one test."""

    def __init__(self, lan: Lan) -> None:
        self.lan = lan
        self.blocks: dict[PeerId, dict[Cid, bytes]] = {}

    def of(self, peer: PeerId) -> "FakeContent":
        return FakeContent(self, peer)


class FakeContent:
    """Implements the Content port."""

    def __init__(self, shelves: Shelves, peer: PeerId) -> None:
        self._shelves = shelves
        self._peer = peer
        self._mine = shelves.blocks.setdefault(peer, {})
        self._pins: dict[Cid, str] = {}

    async def put(self, data: bytes, codec: str = "raw") -> Cid:
        return (await self.put_many([data], codec))[0]

    async def put_many(self, blocks: Sequence[bytes], codec: str = "raw") -> list[Cid]:
        await trio.sleep(0.002)
        cids = [cid_of(data) for data in blocks]
        self._mine.update(zip(cids, blocks, strict=True))
        return cids

    async def get(self, cid: Cid, holders: Sequence[PeerId] = (), timeout: float = 30.0) -> bytes:
        with trio.move_on_after(timeout):
            while cid not in self._mine:
                await trio.sleep(0.005)
                for peer, blocks in sorted(self._shelves.blocks.items()):
                    if cid in blocks and self._shelves.lan.reaches(self._peer, peer):
                        self._mine[cid] = blocks[cid]
        if cid not in self._mine:
            raise ContentNotFound(f"nobody has {cid}")
        return self._mine[cid]

    async def has(self, root: Cid) -> bool:
        return root in self._mine

    async def fetch(self, root: Cid, holders: Sequence[PeerId] = (), timeout: float = 300.0) -> None:
        await self.get(root, holders, timeout)

    async def add_path(self, path: Path, names: Sequence[str] | None = None) -> Cid:
        data = path.read_bytes() if path.is_file() else str(sorted(path.rglob("*"))).encode()
        return await self.put(data)

    async def add_files(self, files: Mapping[str, bytes | Cid | Path]) -> Cid:
        parts = []
        for name, content in sorted(files.items()):
            data = content.read_bytes() if isinstance(content, Path) else content
            parts.append(f"{name}\n".encode() + (data if isinstance(data, bytes) else data.encode()))
        return await self.put(b"\0".join(parts))

    async def checkout(self, root: Cid, target: Path) -> None:
        if root not in self._mine:
            raise ContentNotFound(f"{root} is not here")
        target.mkdir(parents=True)

    async def read(self, root: Cid, path: str = "") -> AsyncIterator[bytes]:
        yield await self.get(root)

    async def pin(self, root: Cid, reason: str) -> None:
        self._pins[root] = reason

    async def unpin(self, root: Cid) -> None:
        self._pins.pop(root, None)

    async def pins(self) -> Mapping[Cid, str]:
        return dict(self._pins)

    async def stat(self) -> ContentStat:
        return ContentStat(len(self._mine), sum(map(len, self._mine.values())), len(self._pins))


def cid_of(data: bytes) -> Cid:
    digest = base64.b32encode(hashlib.sha256(data).digest()).decode().lower().rstrip("=")
    return Cid("bafyfake" + digest)

"""Content in memory: each node's blocks outlive its process (a disk), and come from nodes that the `Lan` reaches.

A batch that is under way at a crash is there in part: each block is a file of its own. A damaged block is found when it
is read, and counts as missing. Only a tree's root is fetched, and a checkout makes an empty directory: what the
services do with content is under test, not IPFS. Every block is under its raw CID.
"""

import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import trio

from mesh.content.unixfs.build import Built, build_tree
from mesh.content.unixfs.cid import as_raw
from mesh.entries import NamedContent
from mesh.ports import ContentStat, KeptRoot, PinKey, PinOwner
from protocols.errors import ContentNotFound, StorageError
from protocols.ids import NO_RUN, Cid, PeerId, RunId, cid_text
from tests.fakes.network import Lan

SYNC_SECONDS = 0.002
LOOK_SECONDS_MIN, LOOK_SECONDS_MAX = 0.005, 0.2
"""How often a node asks around for a block."""


class Shelves:
    """The disks of all nodes of one test."""

    def __init__(self, lan: Lan) -> None:
        self.lan = lan
        self.blocks: dict[PeerId, dict[Cid, bytes]] = {}
        self.rotten: set[tuple[PeerId, Cid]] = set()
        self.full: set[PeerId] = set()
        """Nodes whose disk takes nothing more."""
        self.slow: dict[PeerId, float] = {}
        """Seconds that each sync takes, where that is long."""
        self.kept: dict[PeerId, dict[PinKey, KeptRoot]] = {}
        """What each node was told to keep; nothing is ever collected here."""
        self.holders: dict[Cid, set[PeerId]] = {}
        """Who ever had a block on disk, whatever became of it."""

    def of(self, peer: PeerId) -> "FakeContent":
        return FakeContent(self, peer)

    def sound(self, peer: PeerId, cid: Cid) -> bool:
        """Whether the block is there, undamaged; a damaged one is dropped."""
        if (peer, cid) in self.rotten:
            self.rotten.discard((peer, cid))
            self.blocks[peer].pop(cid, None)
            self.lan.faults["damaged block found"] += 1
        return cid in self.blocks.get(peer, {})

    async def keep(self, peer: PeerId, blocks: Mapping[Cid, bytes]) -> None:
        """On disk when it returns; a part of it, at a crash before that."""
        try:
            await trio.sleep(self.slow.get(peer, SYNC_SECONDS))
        except trio.Cancelled:
            self._write(peer, dict(list(blocks.items())[: self.lan.rng.randint(0, len(blocks))]))
            raise
        if peer in self.full:
            raise StorageError("the disk that holds the blocks is full")
        self._write(peer, blocks)

    def _write(self, peer: PeerId, blocks: Mapping[Cid, bytes]) -> None:
        self.blocks[peer].update(blocks)
        self.rotten.difference_update((peer, cid) for cid in blocks)
        for cid in blocks:
            self.holders.setdefault(cid, set()).add(peer)


class FakeContent:
    """Implements the Content port."""

    def __init__(self, shelves: Shelves, peer: PeerId) -> None:
        self._shelves = shelves
        self._peer = peer
        self._mine = shelves.blocks.setdefault(peer, {})
        self._kept = shelves.kept.setdefault(peer, {})

    async def put(self, data: bytes, codec: str = "raw") -> Cid:
        return (await self.put_many([data], codec))[0]

    async def put_many(self, blocks: Sequence[bytes], codec: str = "raw") -> list[Cid]:
        cids = [cid_of(data) for data in blocks]
        await self._shelves.keep(self._peer, dict(zip(cids, blocks, strict=True)))
        return cids

    async def get(self, cid: Cid, holders: Sequence[PeerId] = (), timeout: float = 30.0) -> bytes:
        pause = LOOK_SECONDS_MIN
        with trio.move_on_after(timeout):
            while not self._shelves.sound(self._peer, cid):
                await trio.sleep(pause)
                pause = min(1.5 * pause, LOOK_SECONDS_MAX)
                source = next((peer for peer in sorted(self._shelves.blocks) if self._gives(peer, cid)), None)
                if source is not None:
                    await self._shelves.keep(self._peer, {cid: self._shelves.blocks[source][cid]})
        if not self._shelves.sound(self._peer, cid):
            raise ContentNotFound(f"nobody has {cid}")
        return self._mine[cid]

    def _gives(self, peer: PeerId, cid: Cid) -> bool:
        return self._shelves.lan.reaches(self._peer, peer) and self._shelves.sound(peer, cid)

    async def has(self, root: Cid) -> bool:
        return self._shelves.sound(self._peer, root)

    async def fetch(self, root: Cid, holders: Sequence[PeerId] = (), timeout: float = 300.0) -> None:
        await self.get(root, holders, timeout)

    async def add_path(self, path: Path, names: Sequence[str] | None = None) -> Cid:
        data = path.read_bytes() if path.is_file() else str(sorted(path.rglob("*"))).encode()
        return await self.put(data)

    async def add_files(self, files: Mapping[str, bytes | Cid | Path]) -> Cid:
        made: dict[str, Built] = {}
        stored: list[bytes] = []
        for name, content in sorted(files.items()):
            if isinstance(content, str):
                if not self._shelves.sound(self._peer, as_raw(content)):
                    raise ContentNotFound(f"{content} is not here")
                made[name] = Built(content, 0)
            else:
                stored.append(content.read_bytes() if isinstance(content, Path) else content)
                made[name] = Built(cid_of(stored[-1]), len(stored[-1]))
        blocks, _ = build_tree(made)
        return (await self.put_many([*stored, *(block.data for block in blocks)]))[-1]

    async def checkout(self, root: Cid, target: Path, former: Path | None = None, remember: bool = False) -> None:
        if not self._shelves.sound(self._peer, root):
            raise ContentNotFound(f"{root} is not here")
        target.mkdir(parents=True)

    async def read(self, root: Cid, path: str = "") -> AsyncIterator[bytes]:
        yield await self.get(root)

    async def entries(self, directory: Cid, most: int) -> Sequence[NamedContent]:
        return []

    async def size(self, root: Cid) -> int:
        if not self._shelves.sound(self._peer, root):
            raise ContentNotFound(f"{root} is not here")
        return len(self._mine[root])

    async def pin(self, root: Cid, reason: str) -> None:
        self._keep([root], PinOwner.USER, reason, NO_RUN)

    async def unpin(self, root: Cid) -> None:
        self._kept.pop((root, PinOwner.USER, NO_RUN), None)

    async def hold(self, roots: Sequence[Cid], reason: str, run: RunId = NO_RUN) -> None:
        self._keep(roots, PinOwner.MESH, reason, run)

    async def release(self, kept: Sequence[PinKey]) -> None:
        for key in kept:
            self._kept.pop(key, None)

    def _keep(self, roots: Sequence[Cid], owner: PinOwner, reason: str, run: RunId) -> None:
        for root in roots:
            self._kept[root, owner, run] = KeptRoot(root, owner, reason, run, trio.current_time())

    async def kept(self) -> list[KeptRoot]:
        return [self._kept[key] for key in sorted(self._kept)]

    async def pins(self) -> Mapping[Cid, str]:
        return {one.root: one.reason for one in await self.kept()}

    async def stat(self) -> ContentStat:
        return ContentStat(len(self._mine), sum(map(len, self._mine.values())), len(await self.pins()))


def cid_of(data: bytes) -> Cid:
    return cid_text(b"\x01\x55\x12\x20" + hashlib.sha256(data).digest())

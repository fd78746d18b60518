"""The `Content` port: trees and blocks over a repository (ours or a Kubo's) and an exchange (Bitswap).

Local first, then from peers. What is put, added or fetched is durable when the call returns, and stays while it is
pinned or was used lately.
"""

from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import trio

from mesh.content import archives
from mesh.content.adding import Adder, file_key
from mesh.content.bitswap.exchange import open_bitswap
from mesh.content.bitswap.wants import Sources
from mesh.content.blocks import QUOTA_BYTES_DEFAULT, check_size
from mesh.content.checkout import checkout
from mesh.content.compiled import carry
from mesh.content.fetching import Exchange, Fetch, Whole
from mesh.content.former import Folder
from mesh.content.local import open_local
from mesh.content.repository import FileRow, Repository
from mesh.content.unixfs.build import Built, FileBuilder
from mesh.content.unixfs.cid import CODECS, RAW, check_cid, cid_of, parse_cid
from mesh.content.unixfs.nodes import Block, child_links, decode_node
from mesh.content.walking import file_bytes, resolve
from mesh.entries import Archived, ContentEntry, NamedContent
from mesh.measures import Traffic
from mesh.ports import ContentStat, KeptRoot, PinKey, PinOwner
from mesh.together import together
from protocols.errors import ContentNotFound, UsageError
from protocols.ids import NO_RUN, Cid, PeerId, RunId

READ_STALL_SECONDS = 30.0
"""How long those who read as they go wait for one block."""

TREES_MAX = 16
"""Checkouts remembered, and places of trees that were added."""

ATTEMPTS_MAX = 3
"""Of an add or a fetch that the collector or a damaged block got in the way of."""


class EmbeddedContent:
    """Content of this node."""

    def __init__(self, repository: Repository, exchange: Exchange | None, traffic: Traffic | None = None) -> None:
        self._repository = repository
        self._exchange = exchange
        self._traffic = traffic or Traffic()
        self._whole = Whole()
        self._trees: OrderedDict[Path, Folder] = OrderedDict()
        """What lies in checkouts, as it was written."""
        self._sources: OrderedDict[Cid, Path] = OrderedDict()
        """Where trees of which named files were added, bundles that is, lie on this host."""

    # Blocks

    async def put(self, data: bytes, codec: str = "raw") -> Cid:
        return (await self.put_many([data], codec))[0]

    async def put_many(self, blocks: Sequence[bytes], codec: str = "raw") -> list[Cid]:
        for data in blocks:
            check_size(data)
        made = [Block(cid_of(data, CODECS[codec]), data) for data in blocks]
        await self._store(made)
        return [block.cid for block in made]

    async def get(self, cid: Cid, holders: Sequence[PeerId] = (), timeout: float = 30.0) -> bytes:
        cid = check_cid(cid)
        data = (await self._repository.get_many([cid]))[0]
        if data is not None:
            self._traffic.here += 1
            return data
        if self._exchange is None:
            self._traffic.missing += 1
            raise ContentNotFound(f"the block {cid} is not here, and there is nobody to ask")
        with trio.move_on_after(timeout):
            data = await self._exchange.get(cid, Sources(holders))
        if data is None:
            self._traffic.missing += 1
            raise ContentNotFound(f"no node in reach gave the block {cid} within {timeout:.0f} s")
        self._traffic.fetched += 1
        await self._store([Block(cid, data)])
        return data

    async def has(self, root: Cid) -> bool:
        return await self._repository.has_whole(check_cid(root))

    async def fetch(self, root: Cid, holders: Sequence[PeerId] = (), timeout: float = 60.0) -> None:
        root = check_cid(root)
        await self._repository.use(root, whole=False)  # before the look, or what is here could go after it
        if await self._repository.has_whole(root):
            self._traffic.here += 1
            return
        try:
            await self._fetch(root, holders, timeout)
        except ContentNotFound:
            self._traffic.missing += 1
            raise
        self._traffic.fetched += 1

    async def _fetch(self, root: Cid, holders: Sequence[PeerId], timeout: float) -> None:
        for _ in range(ATTEMPTS_MAX):
            losses = self._repository.losses
            await self._repository.use(root, whole=False)
            fetch = Fetch(self._repository, self._exchange, holders, timeout, self._whole.since(losses))
            await fetch.run(root)
            if self._repository.losses == losses:
                self._whole.since(losses).add(fetch.inner)
                await self._repository.use(root, whole=True)
                return
        raise ContentNotFound(f"blocks of {root} vanish while they are fetched: the store is too small or damaged")

    # Trees

    async def add_path(self, path: Path, names: Sequence[str] | None = None) -> Cid:
        path = await trio.to_thread.run_sync(_real_path, path)
        root = await self._add(file_key(path), lambda adder: adder.add(path, names))
        if names is not None:
            self._sources[root] = path
            self._sources.move_to_end(root)
            if len(self._sources) > TREES_MAX:
                self._sources.popitem(last=False)
        return root

    async def add_files(self, files: Mapping[str, bytes | Cid | Path]) -> Cid:
        stored = {name: await self._built(source) for name, source in files.items() if isinstance(source, str)}

        def build(adder: Adder) -> Built:
            sources: dict[str, str | Built] = dict(stored)
            for name, source in files.items():
                if isinstance(source, Path):
                    sources[name] = str(source.resolve())
                elif isinstance(source, bytes):
                    builder = FileBuilder()
                    adder.take(builder.feed(source))
                    blocks, sources[name] = builder.finish()
                    adder.take(blocks)
            built = adder.add_tree(sources, Path())
            adder.flush()
            return built

        return await self._add(None, build, whole=not stored)

    async def checkout(self, root: Cid, target: Path, former: Path | None = None, remember: bool = False) -> None:
        """Write the tree under `root`, which is here, to `target`, which must not exist; complete or absent. `former`:
        an earlier checkout, `remember`ed for that, of a tree like it; it is used up, and only what differs is written.
        A remembered one of a tree of this host has what is compiled there.
        """
        known = self._trees.pop(former, None) if former is not None else None
        start = (former, known) if former is not None and known is not None else None
        tree = await checkout(self._load_local, check_cid(root), target, start)
        source = self._sources.get(root) if remember else None
        if source is not None:
            await trio.to_thread.run_sync(carry, source, target)
        if tree is not None and remember:
            self._trees[target] = tree
            if len(self._trees) > TREES_MAX:
                self._trees.popitem(last=False)

    async def read(self, root: Cid, path: str = "", start: int = 0, stop: int | None = None) -> AsyncIterator[bytes]:
        way = await resolve(self._load, check_cid(root), path)
        async for data in file_bytes(self._load, way[-1], start, stop):
            yield data

    # What others' tools see

    async def look(self, root: Cid, path: str = "") -> ContentEntry:
        return await archives.look(self._load, check_cid(root), path)

    async def entries(self, directory: Cid, most: int) -> Sequence[NamedContent]:
        return await archives.entries(self._load, check_cid(directory), most)

    async def archive(self, entry: ContentEntry, deep: bool = True) -> AsyncIterator[bytes]:
        if deep:
            await self.fetch(entry.cid, (), READ_STALL_SECONDS)
        async for data in archives.archive(self._load, entry.way, deep):
            yield data

    async def export_archive(self, root: Cid, target: Path) -> Archived:
        await self.fetch(root)
        return await archives.write_archive(self._load, check_cid(root), target)

    async def import_archive(self, path: Path) -> Archived:
        found = await archives.read_archive(self._store, path)
        for root in found.roots:
            await self._repository.use(root, whole=False)
        return found

    # Pins

    async def size(self, root: Cid) -> int:
        return (await self._built(root)).tsize

    async def pin(self, root: Cid, reason: str) -> None:
        await self._repository.pin([check_cid(root)], PinOwner.USER, reason)

    async def unpin(self, root: Cid) -> None:
        await self._repository.unpin([(check_cid(root), PinOwner.USER, NO_RUN)])

    async def hold(self, roots: Sequence[Cid], reason: str, run: RunId = NO_RUN) -> None:
        await self._repository.pin([check_cid(root) for root in roots], PinOwner.MESH, reason, run)

    async def release(self, kept: Sequence[PinKey]) -> None:
        await self._repository.unpin(kept)

    async def kept(self) -> list[KeptRoot]:
        return await self._repository.kept()

    async def pins(self) -> Mapping[Cid, str]:
        return {one.root: one.reason for one in await self._repository.kept()}  # of two owners, the user comes last

    async def stat(self) -> ContentStat:
        return await self._repository.stat()

    # Parts

    async def _store(self, blocks: list[Block]) -> None:
        await self._repository.put_many(blocks)
        if self._exchange is not None:
            self._exchange.stored([block.cid for block in blocks])

    async def _load_local(self, cids: Sequence[Cid]) -> list[bytes]:
        blocks = await self._repository.get_many(cids)
        for cid, data in zip(cids, blocks, strict=True):
            if data is None:
                raise ContentNotFound(f"the block {cid} is not here: fetch its tree first")
        return [data for data in blocks if data is not None]

    async def _load(self, cids: Sequence[Cid]) -> list[bytes]:
        """From here or from peers; those that are not here are asked for together."""
        blocks = dict(zip(cids, await self._repository.get_many(cids), strict=True))

        async def bring(cid: Cid) -> None:
            blocks[cid] = await self.get(cid, (), READ_STALL_SECONDS)

        missing = [cid for cid, data in blocks.items() if data is None]
        if missing:
            await bring(missing[0])
            await together(bring, missing[1:])
        return [data for data in (blocks[cid] for cid in cids) if data is not None]

    async def _built(self, cid: str) -> Built:
        """What is stored under a CID, as an entry of a directory."""
        cid = check_cid(cid)
        data = (await self._load_local([cid]))[0]
        tsize = len(data) + sum(link.tsize for link in child_links(cid, data))
        codec, _ = parse_cid(cid)
        size = decode_node(cid, data).size if codec == RAW else 0
        return Built(cid, tsize, size)

    async def _add(self, prefix: str | None, build: Callable[[Adder], Built], whole: bool = True) -> Cid:
        """Run `build` in a thread that stores as it goes; again without memory if blocks were lost meanwhile."""
        for attempt in range(ATTEMPTS_MAX):
            losses = self._repository.losses
            remembered: Mapping[str, FileRow] = {}
            if prefix is not None and attempt == 0:
                remembered = await self._repository.remembered_files(prefix)
            adder = Adder(lambda blocks: trio.from_thread.run(self._store, blocks), remembered)
            built = await trio.to_thread.run_sync(build, adder)
            await self._repository.use(built.cid, whole=whole)
            if self._repository.losses == losses:
                if adder.read:
                    await self._repository.remember_files(adder.read)
                return built.cid
        raise UsageError("blocks vanish while they are added: the block store is too small or damaged")


def _real_path(path: Path) -> Path:
    """The path itself, a link at its end followed: it is what lies there that is meant."""
    return path.resolve()


@asynccontextmanager
async def open_content(
    home: Path, host: Any | None = None, quota_bytes: int = QUOTA_BYTES_DEFAULT, traffic: Traffic | None = None
) -> AsyncIterator[EmbeddedContent]:
    """Content kept under `home`/blocks and exchanged over a libp2p `host`; without one, content of this host alone."""
    async with open_local(home / "blocks", quota_bytes) as repository:
        if host is None:
            yield EmbeddedContent(repository, None, traffic)
            return
        async with open_bitswap(host, repository, traffic) as exchange:
            yield EmbeddedContent(repository, exchange, traffic)

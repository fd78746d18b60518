"""CAR files and the part of the `Content` port that gateways show: what lies at a path, and archives of it.

An archive holds each block once, a block before those that it links to, as Kubo's `dag export` writes it: equal roots
have equal files. Memory is bounded by a batch, whatever the file's length. A file is written whole or not at all.
"""

import io
import os
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import trio

from mesh.content.unixfs.car import CarReader, car_header, car_section
from mesh.content.unixfs.cid import DAG_CBOR, parse_cid
from mesh.content.unixfs.nodes import Block, Kind, decode_name, decode_node
from mesh.content.walking import Load, dag_blocks, directory_entries, resolve
from mesh.entries import Archived, ContentEntry, ContentKind, NamedContent
from protocols.errors import RemoteProtocolError, StorageError, UsageError
from protocols.ids import Cid

READ_BYTES = 1024 * 1024
BATCH_BYTES_MAX = 8 * 1024 * 1024
"""Of blocks that are stored, or written, together."""

T = TypeVar("T")

Store = Callable[[list[Block]], Awaitable[None]]

_KINDS = {
    Kind.FILE: ContentKind.FILE,
    Kind.RAW: ContentKind.FILE,
    Kind.DIRECTORY: ContentKind.DIRECTORY,
    Kind.SHARD: ContentKind.DIRECTORY,
    Kind.SYMLINK: ContentKind.LINK,
}


async def look(load: Load, root: Cid, path: str) -> ContentEntry:
    """What lies at `path` under `root`."""
    way = await resolve(load, root, path)
    cid = way[-1]
    data = (await load([cid]))[0]
    if parse_cid(cid)[0] == DAG_CBOR:
        return ContentEntry(tuple(way), ContentKind.BLOCK, len(data))
    node = decode_node(cid, data)
    if node.kind not in _KINDS:
        raise RemoteProtocolError(f"{cid} is neither a file, a directory nor a link")
    target = decode_name(node.data) if node.kind is Kind.SYMLINK else ""
    return ContentEntry(tuple(way), _KINDS[node.kind], node.size, target)


async def entries(load: Load, cid: Cid, most: int) -> list[NamedContent]:
    """What is in a directory, by name; of one with over `most` entries some of them."""
    node = decode_node(cid, (await load([cid]))[0])
    links = await directory_entries(load, cid, node, most)
    return [NamedContent(link.name, link.cid, link.tsize) for link in sorted(links, key=lambda link: link.name)]


async def archive(load: Load, way: tuple[Cid, ...], deep: bool) -> AsyncIterator[bytes]:
    """A CAR file of the blocks on the `way` to what its last CID names, and of all that is under that if `deep`."""
    yield car_header(way[:1])
    above = way[:-1] if deep else way
    for cid, data in zip(above, await load(above), strict=True):
        yield car_section(Block(cid, data))
    if deep:
        async for block in dag_blocks(load, way[-1:]):
            yield car_section(block)


async def write_archive(load: Load, root: Cid, target: Path) -> Archived:
    """The CAR file of all that is under `root`, which is here, at `target`, which must not exist."""
    if await trio.to_thread.run_sync(os.path.lexists, target):
        raise UsageError(f"{target} exists already")
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}.partial")
    blocks = size = 0
    try:
        file = await _on_disk(lambda: io.FileIO(temporary, "xb"), "written")
        with file:
            batch = bytearray(car_header([root]))
            async for block in dag_blocks(load, [root]):
                batch += car_section(block)
                blocks, size = blocks + 1, size + len(block.data)
                if len(batch) >= BATCH_BYTES_MAX:
                    await _write(file, batch)
            await _write(file, batch)
        await _on_disk(lambda: os.rename(temporary, target), "written")
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    return Archived((root,), blocks, size)


async def _write(file: io.FileIO, batch: bytearray) -> None:
    def write_all() -> None:
        with memoryview(batch) as rest:
            position = 0
            while position < len(rest):
                position += file.write(rest[position:])

    await _on_disk(write_all, "written")
    batch.clear()


async def read_archive(store: Store, path: Path) -> Archived:
    """Store the blocks of the CAR file at `path`; `UsageError` names what is wrong with it, at the first such thing."""
    reader = CarReader()
    blocks = size = held = 0
    batch: list[Block] = []
    file = await _on_disk(lambda: io.FileIO(path, "rb"), "read")
    with file:
        while True:
            data, found = await _on_disk(lambda: _read(file, reader, path), "read")
            for block in found:
                batch.append(block)
                blocks, held = blocks + 1, held + len(block.data)
            if held >= BATCH_BYTES_MAX or not data:
                await store(batch)
                batch, size, held = [], size + held, 0
            if not data:
                return Archived(reader.roots, blocks, size)


def _read(file: io.FileIO, reader: CarReader, path: Path) -> tuple[bool, list[Block]]:
    """Whether there was more, and the blocks in it; hashing them takes a thread's time."""
    data = file.read(READ_BYTES)
    try:
        if data:
            return True, reader.feed(data)
        reader.finish()
        return False, []
    except RemoteProtocolError as error:
        raise UsageError(f"{path} is no CAR file that can be imported: {error}") from None


async def _on_disk(step: Callable[[], T], what: str) -> T:
    try:
        return await trio.to_thread.run_sync(step)
    except OSError as error:
        kind = UsageError if what == "read" else StorageError
        raise kind(f"{error.filename or 'the archive'} can't be {what}: {error.strerror or error}") from None

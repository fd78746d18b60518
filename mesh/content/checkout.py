"""Writing a tree out: complete or absent. Everything is written to a hidden sibling, which takes the target's name
last.

Complete means: for whatever kills this process. After a power loss a checkout has to be made anew, since its files
are not synced one by one (their blocks are).

A few blocks can spell out a tree without end, and links can lead anywhere: so entries, depth and bytes have limits, and
nothing is written through a link: each directory is made here, each file is new, no name is there twice.
"""

import os
import secrets
import shutil
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import trio

from mesh.content.links import leaving
from mesh.content.tree import link_stays
from mesh.content.unixfs.build import DEPTH_MAX
from mesh.content.unixfs.cid import RAW, parse_cid
from mesh.content.unixfs.nodes import Kind, Link, Node, decode_name, decode_node
from mesh.content.walking import ENTRIES_MAX, Load, directory_entries, file_bytes
from protocols.errors import RemoteProtocolError, StorageError, UsageError
from protocols.ids import Cid

BATCH_ENTRIES_MAX = 1024
BATCH_BYTES_MAX = 8 * 1024 * 1024
NODE_BYTES_EXPECTED_MAX = 256 * 1024
"""What one block is reckoned to take at most, before it is seen."""

TREE_BYTES_MAX = 256 * 1024**3
DISK_LEFT_BYTES_MIN = 256 * 1024**2
"""On the target's disk, by a checkout."""

NAME_TOLD_MAX = 200
"""Characters of a name in an error."""

T = TypeVar("T")
Step = Callable[[], object]


@dataclass(frozen=True, slots=True)
class _Entry:
    """What is to be written at the relative `path`."""

    path: str
    cid: Cid
    tsize: int
    depth: int


async def checkout(load: Load, root: Cid, target: Path) -> None:
    """Write what is under `root` to `target`, which must not exist. A target's missing parents are made.
    `RemoteProtocolError` for a tree that means harm, which leaves nothing behind."""
    target = await trio.to_thread.run_sync(_free_path, target)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}.partial")
    try:
        room = await _in_thread(partial(_make_room, target.parent))
        await _Checkout(load, root, str(temporary), room).write()
        await _in_thread(partial(os.rename, temporary, target))
    except BaseException:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(_remove, temporary)
        raise


class _Checkout:
    """One tree on its way to the path `base`; `room`: the bytes that its files may take."""

    def __init__(self, load: Load, root: Cid, base: str, room: int) -> None:
        self._load = load
        self._root = root
        self._base = base
        self._room = room
        self._todo = [_Entry("", root, 0, 0)]
        self._entries = 0
        self._links: dict[str, str] = {}

    async def write(self) -> None:
        while self._todo:
            batch = self._take()
            blocks = await self._load([entry.cid for entry in batch])
            steps: list[Step] = []
            for entry, data in zip(batch, blocks, strict=True):
                steps = await self._enter(entry, data, steps)
            await _run(steps)
        out = await trio.to_thread.run_sync(leaving, self._links) if self._links else None
        if out is not None:
            raise RemoteProtocolError(f"{out!r} links to {self._links[out]!r}, which leads outside of its tree")

    def _take(self) -> list[_Entry]:
        batch: list[_Entry] = []
        size = 0
        while self._todo and len(batch) < BATCH_ENTRIES_MAX and size < BATCH_BYTES_MAX:
            batch.append(self._todo.pop())
            size += min(batch[-1].tsize, NODE_BYTES_EXPECTED_MAX)
        self._entries += len(batch)
        if self._entries > ENTRIES_MAX:
            raise RemoteProtocolError(f"the tree {self._root} has over {ENTRIES_MAX} entries")
        return batch

    async def _enter(self, entry: _Entry, data: bytes, steps: list[Step]) -> list[Step]:
        """The steps still to be done once this entry is added to them."""
        path = f"{self._base}/{entry.path}" if entry.path else self._base
        if parse_cid(entry.cid)[0] == RAW:
            steps.append(partial(_write_file, path, self._spend(data), 0o666, os.O_EXCL))
            return steps
        node = decode_node(entry.cid, data)
        if node.kind in (Kind.DIRECTORY, Kind.SHARD):
            if entry.depth == DEPTH_MAX:
                raise RemoteProtocolError(f"the tree {self._root} is over {DEPTH_MAX} directories deep")
            steps.append(partial(os.mkdir, path))
            inside = await directory_entries(self._load, entry.cid, node)
            self._todo += [_below(entry, link) for link in reversed(inside)]
        elif node.links and node.kind in (Kind.FILE, Kind.RAW):
            await _run(steps)
            await self._write_large(entry.cid, node, path)
            return []
        else:
            steps.append(self._step(entry, node, path))
        return steps

    def _step(self, entry: _Entry, node: Node, path: str) -> Step:
        if node.kind is Kind.SYMLINK:
            link = decode_name(node.data)
            if not link_stays(entry.path, link):
                raise RemoteProtocolError(f"{entry.path!r} links to {link!r}, outside of its tree")
            self._links[entry.path] = link
            return partial(os.symlink, link, path)
        if node.kind not in (Kind.FILE, Kind.RAW):
            raise RemoteProtocolError(f"{entry.path!r} is neither a file, a directory nor a link")
        return partial(_write_file, path, self._spend(node.data), _mode(node), os.O_EXCL)

    async def _write_large(self, cid: Cid, node: Node, path: str) -> None:
        flag = os.O_EXCL
        batch = bytearray()
        async with aclosing(file_bytes(self._load, cid)) as pieces:
            async for data in pieces:
                batch += self._spend(data)
                if len(batch) >= BATCH_BYTES_MAX:
                    await _run([partial(_write_file, path, bytes(batch), _mode(node), flag)])
                    flag = os.O_APPEND
                    batch.clear()
        await _run([partial(_write_file, path, bytes(batch), _mode(node), flag)])

    def _spend(self, data: bytes) -> bytes:
        self._room -= len(data)
        if self._room < 0:
            raise StorageError(f"the files of {self._root} take more than {TREE_BYTES_MAX} bytes, or than the disk has")
        return data


def _below(above: _Entry, link: Link) -> _Entry:
    path = f"{above.path}/{link.name}" if above.path else link.name
    return _Entry(path, link.cid, link.tsize, above.depth + 1)


def _mode(node: Node) -> int:
    return 0o777 if node.executable else 0o666


def _write_file(path: str, data: bytes, mode: int, flag: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | flag, mode)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    finally:
        os.close(descriptor)


async def _run(steps: list[Step]) -> None:
    def all_of_them() -> None:
        for step in steps:
            step()

    if steps:
        await _in_thread(all_of_them)


async def _in_thread(step: Callable[[], T]) -> T:
    try:
        return await trio.to_thread.run_sync(step)
    except OSError as error:
        raise StorageError(f"can't write {str(error.filename)[:NAME_TOLD_MAX]}: {error.strerror}") from error


def _make_room(parent: Path) -> int:
    """See to it that `parent` is there; the bytes that may be written under it."""
    parent.mkdir(parents=True, exist_ok=True)
    return min(TREE_BYTES_MAX, shutil.disk_usage(parent).free - DISK_LEFT_BYTES_MIN)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _free_path(target: Path) -> Path:
    if os.path.lexists(target):
        raise UsageError(f"{target} exists already")
    return target.absolute()

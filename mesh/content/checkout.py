"""Writing a tree out: complete or absent. Everything is written to a hidden sibling, which takes the target's name
last.

Complete means: for whatever kills this process. After a power loss a checkout has to be made anew, since its files
are not synced one by one (their blocks are).

A former checkout that nobody needs any more can be made the start of it (former.py).

A few blocks can spell out a tree without end, and links can lead anywhere: so entries, depth and bytes have limits, and
nothing is written through a link: each directory is made here, each file is new, no name is there twice.
"""

import logging
import os
import secrets
import shutil
from collections.abc import Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import trio

from mesh.content.compiled import CACHE, module_of
from mesh.content.former import Folder, Leaf, drop_compiled, links_of, remove, stamp_of, tidy
from mesh.content.links import leaving
from mesh.content.tree import link_stays
from mesh.content.unixfs.build import DEPTH_MAX
from mesh.content.unixfs.nodes import Kind, Node, decode_name, decode_node
from mesh.content.walking import ENTRIES_MAX, Load, directory_entries, file_bytes
from protocols.errors import RemoteProtocolError, StorageError, UsageError
from protocols.ids import Cid

log = logging.getLogger(__name__)

BATCH_ENTRIES_MAX = 1024
BATCH_BYTES_MAX = 8 * 1024 * 1024
NODE_BYTES_EXPECTED_MAX = 256 * 1024
"""What one block is reckoned to take at most, before it is seen."""

REMEMBERED_MAX = 50_000
"""Entries of a checkout that is remembered, some 20 MB."""

TREE_BYTES_MAX = 256 * 1024**3
DISK_LEFT_BYTES_MIN = 256 * 1024**2
"""On the target's disk, by a checkout."""

NAME_TOLD_MAX = 200
"""Characters of a name in an error."""

T = TypeVar("T")
Step = Callable[[], object]


@dataclass(frozen=True, slots=True)
class _Entry:
    """What is to be written at the relative `path`, and noted under its name in the `folder` around it."""

    path: str
    cid: Cid
    tsize: int
    depth: int
    name: str
    folder: Folder
    former: Folder | None
    """The directory that is there already."""


async def checkout(load: Load, root: Cid, target: Path, former: tuple[Path, Folder] | None = None) -> Folder | None:
    """Write what is under `root` to `target`, which must not exist. A target's missing parents are made. `former`: a
    checkout that is used up for it. What is there now is returned, or None if that is too much to remember.

    `RemoteProtocolError` for a tree that means harm, which leaves nothing behind.
    """
    target = await trio.to_thread.run_sync(_free_path, target)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}.partial")
    try:
        room = await _in_thread(partial(_make_room, target.parent))
        start = await trio.to_thread.run_sync(_take_over, *former, temporary) if former else None
        making = _Checkout(load, root, str(temporary), room, start)
        await making.write()
        await _in_thread(partial(os.rename, temporary, target))
    except BaseException:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(_remove, temporary)
        raise
    top = making.top.entries.get("")
    return top if isinstance(top, Folder) and making.entries <= REMEMBERED_MAX else None


class _Checkout:
    """One tree on its way to the path `base`; `room`: the bytes that its files may take; `former`: what is there."""

    def __init__(self, load: Load, root: Cid, base: str, room: int, former: Folder | None) -> None:
        self._load = load
        self._root = root
        self._base = base
        self._room = room
        self.top = Folder(Cid(""))
        """Notes what is written, the root under the empty name."""
        self._todo = [_Entry("", root, 0, 0, "", self.top, former)]
        self.entries = 0
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
        self.entries += len(batch)
        if self.entries > ENTRIES_MAX:
            raise RemoteProtocolError(f"the tree {self._root} has over {ENTRIES_MAX} entries")
        return batch

    async def _enter(self, entry: _Entry, data: bytes, steps: list[Step]) -> list[Step]:
        """The steps still to be done once this entry is added to them."""
        path = f"{self._base}/{entry.path}" if entry.path else self._base
        leaf = Leaf(entry.cid)
        node = decode_node(entry.cid, data)
        if node.kind in (Kind.DIRECTORY, Kind.SHARD):
            await self._enter_folder(entry, node, path, steps)
            return steps
        if entry.former is not None:
            steps.append(partial(remove, path))
        if node.links and node.kind in (Kind.FILE, Kind.RAW):
            await _run(steps)
            steps = []
            await self._write_large(leaf, node, path)
        else:
            steps.append(self._step(entry, node, path, leaf))
        self._note(entry.folder, entry.name, leaf)
        return steps

    async def _enter_folder(self, entry: _Entry, node: Node, path: str, steps: list[Step]) -> None:
        if entry.depth == DEPTH_MAX:
            raise RemoteProtocolError(f"the tree {self._root} is over {DEPTH_MAX} directories deep")
        inside = await directory_entries(self._load, entry.cid, node)
        folder = Folder(entry.cid)
        self._note(entry.folder, entry.name, folder)
        had = entry.former.entries if entry.former is not None else {}
        if entry.former is None:
            steps.append(partial(_make_folder, path, folder))
        else:
            folder.mode = entry.former.mode
            steps.append(partial(_clear, path, had, {link.name: link.cid for link in inside}))
        for link in reversed(inside):
            known = had.get(link.name)
            below = f"{entry.path}/{link.name}" if entry.path else link.name
            if known is not None and known.cid == link.cid:
                self._note(folder, link.name, known)
                self._links.update(links_of(below, known))
            else:
                former = known if isinstance(known, Folder) else None
                self._todo.append(_Entry(below, link.cid, link.tsize, entry.depth + 1, link.name, folder, former))

    def _note(self, folder: Folder, name: str, item: Leaf | Folder) -> None:
        if self.entries <= REMEMBERED_MAX:
            folder.entries[name] = item

    def _step(self, entry: _Entry, node: Node, path: str, leaf: Leaf) -> Step:
        if node.kind is Kind.SYMLINK:
            leaf.target = decode_name(node.data)
            if not link_stays(entry.path, leaf.target):
                raise RemoteProtocolError(f"{entry.path!r} links to {leaf.target!r}, outside of its tree")
            self._links[entry.path] = leaf.target
            return partial(_make_link, path, leaf)
        if node.kind not in (Kind.FILE, Kind.RAW):
            raise RemoteProtocolError(f"{entry.path!r} is neither a file, a directory nor a link")
        return partial(_write_file, path, self._spend(node.data), _mode(node), os.O_EXCL, leaf)

    async def _write_large(self, leaf: Leaf, node: Node, path: str) -> None:
        flag = os.O_EXCL
        batch = bytearray()
        async with aclosing(file_bytes(self._load, leaf.cid)) as pieces:
            async for data in pieces:
                batch += self._spend(data)
                if len(batch) >= BATCH_BYTES_MAX:
                    await _run([partial(_write_file, path, bytes(batch), _mode(node), flag, leaf)])
                    flag = os.O_APPEND
                    batch.clear()
        await _run([partial(_write_file, path, bytes(batch), _mode(node), flag, leaf)])

    def _spend(self, data: bytes) -> bytes:
        self._room -= len(data)
        if self._room < 0:
            raise StorageError(f"the files of {self._root} take more than {TREE_BYTES_MAX} bytes, or than the disk has")
        return data


def _mode(node: Node) -> int:
    return 0o777 if node.executable else 0o666


def _make_folder(path: str, folder: Folder) -> None:
    os.mkdir(path)
    folder.mode = os.lstat(path).st_mode


def _make_link(path: str, leaf: Leaf) -> None:
    assert leaf.target is not None
    os.symlink(leaf.target, path)
    leaf.stamp = stamp_of(os.lstat(path))


def _write_file(path: str, data: bytes, mode: int, flag: int, leaf: Leaf) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | flag, mode)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        leaf.stamp = stamp_of(os.fstat(descriptor))
    finally:
        os.close(descriptor)


def _clear(path: str, had: Mapping[str, Leaf | Folder], wanted: Mapping[str, Cid]) -> None:
    """Remove from a former directory what is not in the new one, or not so."""
    doomed = {name for name, item in had.items() if name not in wanted or _is_another(item, wanted[name])}
    for name in sorted(doomed):
        remove(f"{path}/{name}")
    if CACHE in wanted and CACHE not in had and os.path.lexists(f"{path}/{CACHE}"):
        remove(f"{path}/{CACHE}")
    elif CACHE not in had:
        drop_compiled(path, {module_of(name) for name in doomed}.__contains__)


def _is_another(item: Leaf | Folder, cid: Cid) -> bool:
    return isinstance(item, Leaf) and item.cid != cid


def _take_over(former: Path, folder: Folder, temporary: Path) -> Folder | None:
    """Begin with a former checkout; None, and it stays where it was, if it is in no state for that."""
    try:
        os.rename(former, temporary)
        tidy(str(temporary), folder)
    except OSError as error:
        log.info("%s is not used for a new checkout: %s", former, error)
        with suppress(FileNotFoundError):
            os.rename(temporary, former)
        return None
    return folder


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

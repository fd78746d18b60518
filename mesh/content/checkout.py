"""Writing a tree out: complete or absent. Everything is written to a hidden sibling, which takes the target's name
last.

Complete means: for whatever kills this process. After a power loss a checkout has to be made anew, since its files
are not synced one by one (their blocks are).
"""

import os
import secrets
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import trio

from mesh.content.tree import link_stays
from mesh.content.unixfs.nodes import Kind, Link, Node, decode_name, decode_node
from mesh.content.walking import ENTRIES_MAX, Load, directory_entries, file_bytes
from protocols.errors import RemoteProtocolError, StorageError, UsageError
from protocols.ids import Cid

BATCH_ENTRIES_MAX = 256
BATCH_BYTES_MAX = 8 * 1024 * 1024
NODE_BYTES_EXPECTED_MAX = 256 * 1024
"""What one block is reckoned to take at most, before it is seen."""


@dataclass(frozen=True, slots=True)
class _Entry:
    """What is to be written at the relative `path`."""

    path: str
    cid: Cid
    tsize: int


Step = Callable[[], None]


async def checkout(load: Load, root: Cid, target: Path) -> None:
    """Write what is under `root` to `target`, which must not exist. A target's missing parents are made."""
    target = await trio.to_thread.run_sync(_free_path, target)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}.partial")
    try:
        await _in_thread(lambda: target.parent.mkdir(parents=True, exist_ok=True))
        await _write(load, root, temporary)
        await _in_thread(lambda: os.rename(temporary, target))
    except BaseException:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(_remove, temporary)
        raise


async def _write(load: Load, root: Cid, base: Path) -> None:
    todo = [_Entry("", root, 0)]
    written = 0
    while todo:
        batch = _take(todo)
        written += len(batch)
        if written > ENTRIES_MAX:
            raise RemoteProtocolError(f"the tree {root} has over {ENTRIES_MAX} entries")
        blocks = await load([entry.cid for entry in batch])
        steps: list[Step] = []
        for entry, data in zip(batch, blocks, strict=True):
            node = decode_node(entry.cid, data)
            path = base / entry.path if entry.path else base
            if node.kind in (Kind.DIRECTORY, Kind.SHARD):
                steps.append(path.mkdir)
                inside = await directory_entries(load, entry.cid, node)
                todo += [_below(entry.path, link) for link in reversed(inside)]
            elif node.links:
                await _run(steps)
                steps = []
                await _write_large(load, entry.cid, node, path)
            else:
                steps.append(_step(entry, node, path))
        await _run(steps)


def _take(todo: list[_Entry]) -> list[_Entry]:
    batch: list[_Entry] = []
    size = 0
    while todo and len(batch) < BATCH_ENTRIES_MAX and size < BATCH_BYTES_MAX:
        batch.append(todo.pop())
        size += min(batch[-1].tsize, NODE_BYTES_EXPECTED_MAX)
    return batch


def _below(path: str, link: Link) -> _Entry:
    return _Entry(f"{path}/{link.name}" if path else link.name, link.cid, link.tsize)


def _step(entry: _Entry, node: Node, path: Path) -> Step:
    if node.kind is Kind.SYMLINK:
        link = decode_name(node.data)
        if not link_stays(entry.path, link):
            raise RemoteProtocolError(f"{entry.path!r} links to {link!r}, outside of its tree")
        return lambda: os.symlink(link, path)
    if node.kind not in (Kind.FILE, Kind.RAW):
        raise RemoteProtocolError(f"{entry.path!r} is neither a file, a directory nor a link")
    return lambda: _write_file(path, node.data, node.executable, os.O_EXCL)


async def _write_large(load: Load, cid: Cid, node: Node, path: Path) -> None:
    def step(data: bytes, flag: int) -> Step:
        return lambda: _write_file(path, data, node.executable, flag)

    flag = os.O_EXCL
    batch = bytearray()
    async for data in file_bytes(load, cid):
        batch += data
        if len(batch) >= BATCH_BYTES_MAX:
            await _run([step(bytes(batch), flag)])
            flag = os.O_APPEND
            batch.clear()
    await _run([step(bytes(batch), flag)])


def _write_file(path: Path, data: bytes, executable: bool, flag: int) -> None:
    mode = 0o777 if executable else 0o666
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | flag, mode)
    with open(descriptor, "wb", buffering=0) as file:
        rest = memoryview(data)
        while rest:
            rest = rest[file.write(rest) or 0 :]


async def _run(steps: list[Step]) -> None:
    def all_of_them() -> None:
        for step in steps:
            step()

    if steps:
        await _in_thread(all_of_them)


async def _in_thread(step: Step) -> None:
    try:
        await trio.to_thread.run_sync(step)
    except OSError as error:
        raise StorageError(f"can't write {error.filename}: {error.strerror}") from error


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _free_path(target: Path) -> Path:
    if os.path.lexists(target):
        raise UsageError(f"{target} exists already")
    return target.absolute()

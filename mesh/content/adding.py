"""From a path on disk to blocks: what `add_path` does in a worker thread, with bounded memory.

Files whose size, times and inode are as they were when they were last added are not read again. A file that changed
within the last two seconds is never remembered: a second change could leave the same times (git calls such an entry
racy).
"""

import os
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from mesh.content.repository import FileRow
from mesh.content.tree import check_link
from mesh.content.unixfs.build import Built, FileBuilder, build_symlink, build_tree, split_path
from mesh.content.unixfs.nodes import Block
from protocols.errors import UsageError

BATCH_BYTES_MAX = 8 * 1024 * 1024
BATCH_BLOCKS_MAX = 2048
READ_BYTES = 1024 * 1024
RACY_NANOSECONDS = 2_000_000_000


class Adder:
    """Builds DAGs from local files and hands their blocks on in batches. Used by one thread."""

    def __init__(self, put: Callable[[list[Block]], None], remembered: Mapping[str, FileRow]) -> None:
        self._put = put
        self._remembered = remembered
        self._batch: list[Block] = []
        self._bytes = 0
        self.read: dict[str, FileRow] = {}
        """Files that were read, to be remembered."""

    def add(self, path: Path, names: Sequence[str] | None) -> Built:
        """The root of a file, a link, or a directory (of which only `names`, if given)."""
        mode = self._stat(path).st_mode
        if stat.S_ISDIR(mode):
            files, directories = ([*names], ()) if names is not None else _everything_under(path)
            built = self.add_tree({name: f"{path}/{name}" for name in files}, path, directories)
        elif names is not None:
            raise UsageError(f"{path} is no directory")
        else:
            built = self._add_one(str(path), path.parent, path.name)
        self.flush()
        return built

    def add_tree(self, files: Mapping[str, str | Built], root: Path, directories: tuple[str, ...] = ()) -> Built:
        """A directory of local files and of what is already stored; links must stay within `root`."""
        for name in files:
            split_path(name)  # before anything is read
        entries = {
            name: source if isinstance(source, Built) else self._add_one(source, root, name)
            for name, source in files.items()
        }
        blocks, built = build_tree(entries, directories)
        self.take(blocks)
        return built

    def take(self, blocks: list[Block]) -> None:
        """Blocks for the next batch."""
        for block in blocks:
            self._batch.append(block)
            self._bytes += len(block.data)
            if self._bytes >= BATCH_BYTES_MAX or len(self._batch) >= BATCH_BLOCKS_MAX:
                self.flush()

    def flush(self) -> None:
        batch, self._batch, self._bytes = self._batch, [], 0
        if batch:
            self._put(batch)

    def _add_one(self, path: str, root: Path, name: str) -> Built:
        status = self._stat(path)
        if stat.S_ISLNK(status.st_mode):
            target = os.readlink(path)
            check_link(root, name, target)
            block, built = build_symlink(target)
            self.take([block])
            return built
        if not stat.S_ISREG(status.st_mode):
            raise UsageError(f"{path} is no file, directory or link")
        stamp = _stamp(status)
        known = self._remembered.get(file_key(path))
        if known is not None and known[0] == stamp:
            return Built(*known[1:])
        built = self._read(path, bool(status.st_mode & 0o100))
        if status.st_mtime_ns < time.time_ns() - RACY_NANOSECONDS and _stamp(self._stat(path)) == stamp:
            self.read[file_key(path)] = (stamp, built.cid, built.tsize, built.size)
        return built

    def _read(self, path: str, executable: bool) -> Built:
        builder = FileBuilder(executable)
        try:
            with open(path, "rb", buffering=0) as file:
                while data := file.read(READ_BYTES):
                    self.take(builder.feed(data))
        except OSError as error:
            raise UsageError(f"{path} can't be read: {error.strerror}") from None
        blocks, built = builder.finish()
        self.take(blocks)
        return built

    @staticmethod
    def _stat(path: str | Path) -> os.stat_result:
        try:
            return os.lstat(path)
        except OSError as error:
            raise UsageError(f"{path} can't be read: {error.strerror}") from None


def file_key(path: str | Path) -> str:
    """What a file is remembered by: its path, in a form that any database takes (a path need not be UTF-8)."""
    return os.fsencode(path).decode("latin-1")


def _everything_under(root: Path) -> tuple[list[str], tuple[str, ...]]:
    """All files and links, and all directories that would be empty."""
    files, empty = [], []

    def refuse(error: OSError) -> None:
        raise UsageError(f"{error.filename} can't be read: {error.strerror}")

    for directory, below, names in os.walk(root, onerror=refuse):
        inside = os.path.relpath(directory, root)
        links = [name for name in below if os.path.islink(os.path.join(directory, name))]
        files += [os.path.normpath(os.path.join(inside, name)) for name in names + links]
        if not below and not names and inside != ".":
            empty.append(inside)
    return sorted(files), tuple(sorted(empty))


def _stamp(status: os.stat_result) -> str:
    return (
        f"{status.st_size}:{status.st_mtime_ns}:{status.st_ctime_ns}:{status.st_ino}:{status.st_dev}"
        f":{status.st_mode & 0o100}"
    )

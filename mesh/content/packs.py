"""Packs: append-only files that hold the large blocks. The index (in SQLite) says what lies where.

A pack's bytes past what the index knows are the torn end of a crash, and are cut off when the store is opened; so bytes
are written and synced first, and indexed second. Rejected: a file a block (one sync each, 2.2 ms here), and large
blocks in SQLite (each is written twice, to the WAL and to the database).
"""

import contextlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from protocols.errors import StorageError

PACK_BYTES_MAX = 64 * 1024 * 1024
"""A pack that has reached this gets no more blocks."""


class Packs:
    """The pack files of one directory. Not safe for two writers; reads may come from any thread beside the writer."""

    def __init__(self, directory: Path, ends: Mapping[int, int]) -> None:
        """`ends`: where the index says that each pack ends."""
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        for path in sorted(directory.glob("*.pack")):
            if int(path.stem) not in ends:
                path.unlink()
        for pack, end in sorted(ends.items()):
            path = self._path(pack)
            if not path.exists() or path.stat().st_size < end:
                raise StorageError(f"{path} lacks bytes that the index knows: delete {directory.parent} to start anew")
        self._current = max(ends, default=0)
        self._end = ends.get(self._current, 0)
        self._readers: dict[int, int] = {}
        self._writer: int | None = None

    def close(self) -> None:
        for descriptor in self._readers.values():
            os.close(descriptor)
        self._readers.clear()
        self._close_writer()

    def append(self, blocks: Iterable[bytes]) -> list[tuple[int, int]]:
        """Write the blocks and sync them; (pack, offset) of each. Nothing counts until it is indexed."""
        places = []
        try:
            for data in blocks:
                if self._writer is None or self._end >= PACK_BYTES_MAX:
                    self._open_writer()
                places.append((self._current, self._end))
                self._write(data)
            if self._writer is not None and places:
                os.fsync(self._writer)
        except OSError as error:
            self.seal()
            raise StorageError(f"can't write blocks to {self._directory}: {error.strerror}") from error
        return places

    def read(self, pack: int, offset: int, size: int) -> bytes:
        """The bytes there; short if the file is. `FileNotFoundError` when the pack was compacted away."""
        descriptor = self._readers.get(pack)
        if descriptor is None:
            descriptor = self._readers[pack] = os.open(self._path(pack), os.O_RDONLY | os.O_CLOEXEC)
        return os.pread(descriptor, size, offset)

    def remove(self, pack: int) -> None:
        """Delete a pack that the index no longer mentions."""
        descriptor = self._readers.pop(pack, None)
        if descriptor is not None:
            os.close(descriptor)
        with contextlib.suppress(FileNotFoundError):
            self._path(pack).unlink()

    @property
    def current(self) -> int:
        """The pack that is appended to."""
        return self._current

    def sizes(self) -> dict[int, int]:
        """The length of each pack file, in bytes."""
        return {int(path.stem): path.stat().st_size for path in sorted(self._directory.glob("*.pack"))}

    def seal(self) -> None:
        """Append no more to the current pack: it is to be emptied, or its end is torn."""
        self._close_writer()
        self._end = PACK_BYTES_MAX

    def _open_writer(self) -> None:
        """The current pack, or the next one when that is full; the full one is synced first."""
        if self._writer is not None:
            os.fsync(self._writer)
            self._close_writer()
        fresh = self._current == 0 or self._end >= PACK_BYTES_MAX
        if fresh:
            self._current += 1
            self._end = 0
        self._writer = os.open(self._path(self._current), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.ftruncate(self._writer, self._end)
        os.lseek(self._writer, self._end, os.SEEK_SET)
        if fresh:
            sync_directory(self._directory)

    def _write(self, data: bytes) -> None:
        assert self._writer is not None
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self._writer, rest) :]
        self._end += len(data)

    def _close_writer(self) -> None:
        if self._writer is not None:
            os.close(self._writer)
            self._writer = None

    def _path(self, pack: int) -> Path:
        return self._directory / f"{pack:08d}.pack"


def sync_directory(directory: Path) -> None:
    """Make the directory's entries durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

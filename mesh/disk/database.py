"""A SQLite file with synced transactions, run beside the event loop.

SQLite in WAL mode with synchronous=FULL syncs once per transaction and recovers a torn tail by the checksums of its
WAL; measured against an append file of our own with fdatasync it costs the same, so the simpler one is used. It does
not notice a flipped bit in a page, so that every row carries a CRC of its own.

A new file appears under its name only when it is whole, so that an empty or a shortened one is always damage.

Invariant: after the first failed write nothing more is written. A failed sync may have lost pages that the kernel then
calls clean, so trying again could only pretend. The file is locked for this process while it is open.
"""

import contextlib
import os
import sqlite3
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import trio

from mesh.measures import Histogram
from protocols.errors import StorageError

T = TypeVar("T")

UPDATE = "use a version of this program that does"

MAKE_ROOM = "see that its disk works and has room, and start again: what was acknowledged is kept"

FAILURES = (OSError, sqlite3.Error, UnicodeDecodeError)
"""The last: SQLite's own message, where it quotes a damaged schema."""

WAL_BYTES_KEPT_MAX = 16 * 1024 * 1024
"""Of the WAL file, after a large transaction was moved into the database."""


class Database:
    """Of a new file the format is `formats[0]`; of an old one it has to be among them."""

    def __init__(self, path: Path, schema: str, formats: range) -> None:
        self.path = path
        self._schema = schema
        self._formats = formats
        self.format = formats[0]
        """Of the file, as it was opened, or stamped since."""
        self._failure: str | None = None
        self._lock = trio.Lock()
        self.writes = Histogram()
        """Seconds of each transaction, its sync included."""
        self._connection = self._open()

    def _open(self) -> sqlite3.Connection:
        try:
            if not self.path.exists():
                self._create()
            elif self.path.stat().st_size == 0:
                raise StorageError(self.damage("it is empty"))
            connection = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=0.0)
        except FAILURES as error:
            raise StorageError(self._trouble("opened", error)) from None
        try:
            self._prepare(connection)
        except FAILURES as error:
            connection.close()
            raise StorageError(self._trouble("used", error)) from None
        except StorageError:
            connection.close()
            raise
        return connection

    def _create(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        made = self.path.with_name(f"{self.path.name}.new")
        made.unlink(missing_ok=True)
        if self.path.with_name(f"{self.path.name}-wal").exists():
            raise StorageError(self.damage("it is gone, and what was written last to it is still beside it"))
        connection = sqlite3.connect(made, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode = OFF")  # a part of a new file is nothing
            connection.executescript(
                f"BEGIN IMMEDIATE; {self._schema} PRAGMA user_version = {self._formats[0]}; COMMIT;"
            )
        finally:
            connection.close()
        made.rename(self.path)
        _sync_directory(self.path.parent)

    def _prepare(self, connection: sqlite3.Connection) -> None:
        execute = connection.execute
        execute("PRAGMA locking_mode = EXCLUSIVE")
        execute("PRAGMA journal_mode = WAL")
        execute("PRAGMA synchronous = FULL")
        execute(f"PRAGMA journal_size_limit = {WAL_BYTES_KEPT_MAX}")
        self.format = execute("PRAGMA user_version").fetchone()[0]
        if self.format not in self._formats:
            reads = " to ".join(str(each) for each in sorted({self._formats[0], self._formats[-1]}))
            raise StorageError(f"{self.path} has format {self.format}, and this version reads format {reads}: {UPDATE}")
        if self.looks_over:
            found = execute("PRAGMA quick_check(1)").fetchone()[0]
            if found != "ok":
                raise StorageError(self.damage(str(found)))

    def damage(self, what: str) -> str:
        """The sentence for a file that does not hold what was written to it."""
        shown = "".join(each if each.isprintable() else " " for each in what)
        return f"{self.path} is damaged: {shown}; {self.remedy}"

    remedy = "move it away to start without it"
    """What to do then."""

    looks_over = True
    """Whether all of the file is read as it is opened: damage is found at once, and not when it is needed."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work`, which only reads."""
        try:
            return work(self._connection)
        except FAILURES as error:
            raise StorageError(self._trouble("read", error)) from None

    def _trouble(self, done: str, error: Exception) -> str:
        code = getattr(error, "sqlite_errorcode", None)
        kind = None if code is None else code & 0xFF  # the rest of it tells more
        reading = done != "written" and not isinstance(error, OSError)
        if kind in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            return self.damage(str(error))
        if reading and kind in (None, sqlite3.SQLITE_ERROR):  # what we ask is right, so what it is asked of is not
            return self.damage(str(error))
        if kind in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
            return f"{self.path} can't be {done}: {error}; {MAKE_ROOM}"
        return f"{self.path} can't be {done}: {error}"

    async def write(self, work: Callable[[sqlite3.Connection], None]) -> None:
        """Run `work` as one transaction in a worker thread; synced when this returns. A cancellation waits for it."""
        async with self._lock:
            await trio.to_thread.run_sync(self._transact, work)

    def _transact(self, work: Callable[[sqlite3.Connection], None]) -> None:
        if self._failure is not None:
            raise StorageError(self._failure)
        start = time.perf_counter()
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            work(self._connection)
            self._connection.execute("COMMIT")
            self.writes.observe(time.perf_counter() - start)
        except FAILURES as error:
            self._failure = self._trouble("written", error)
            raise StorageError(self._failure) from None
        finally:
            if self._connection.in_transaction:
                with contextlib.suppress(sqlite3.Error):  # a failure that matters is on its way already
                    self._connection.execute("ROLLBACK")

    def copy_to(self, target: Path) -> None:
        """A whole copy of what is in the file, synced; `target` must not exist."""
        try:
            copy = sqlite3.connect(target)
            with contextlib.closing(copy):
                copy.execute("PRAGMA synchronous = FULL")
                self._connection.backup(copy)
            _sync_directory(target.parent)
        except FAILURES as error:
            target.unlink(missing_ok=True)
            raise StorageError(f"{self.path} can't be copied to {target}: {error}") from None

    async def start_afresh(self, aside: Path) -> None:
        """Rename the file to `aside`, which must not exist, and go on with an empty one."""
        async with self._lock:
            await trio.to_thread.run_sync(self._start_afresh, aside)

    def _start_afresh(self, aside: Path) -> None:
        if self._failure is not None:
            raise StorageError(self._failure)
        self._failure = f"{self.path} was being set aside"
        try:
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._connection.close()  # and with it, the write-ahead file goes
            if aside.exists() or self.path.with_name(self.path.name + "-wal").exists():
                raise OSError(f"{aside} is in the way")
            self.path.rename(aside)
            _sync_directory(self.path.parent)
        except FAILURES as error:
            raise StorageError(f"{self.path} can't be set aside: {error}") from None
        self._connection = self._open()
        self._failure = None


def checksum(key: str, body: bytes) -> int:
    """Of a row: its key is part of it, so that a row in another's place is damage too."""
    return zlib.crc32(body, zlib.crc32(key.encode()))


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""What one node keeps whatever its quota says: a row for each root, owner and run, so that what the mesh has a node
keep, also for several runs that made the same, and what the node's user pinned never get in each other's way.

In the tables of the block store; beside a Kubo daemon, whose pins know no owner, in a file of its own (`PinBook`).
"""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mesh.ports import KeptRoot, PinKey, PinOwner
from protocols.errors import StorageError
from protocols.ids import Cid, RunId

SCHEMA = """
CREATE TABLE IF NOT EXISTS kept (
    cid TEXT NOT NULL, owner TEXT NOT NULL, reason TEXT NOT NULL, run INTEGER NOT NULL, since REAL NOT NULL,
    PRIMARY KEY (cid, owner, run)
);
"""

MIGRATED = 1
"""`user_version` of a store whose pins have owners."""


def migrate(connection: sqlite3.Connection, now: float) -> None:
    """Take over the pins of a store from before they had owners: those that a user made say so, the others are the
    mesh's. That table is left as it is, for a version before this one that is put back."""
    if connection.execute("PRAGMA user_version").fetchone()[0] >= MIGRATED:
        return
    if connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'pin'").fetchone():
        connection.execute(
            "INSERT OR IGNORE INTO kept SELECT cid, CASE reason WHEN 'user' THEN ? ELSE ? END, reason, 0, ? FROM pin",
            (PinOwner.USER.value, PinOwner.MESH.value, now),
        )
    connection.execute(f"PRAGMA user_version = {MIGRATED}")


def put(
    connection: sqlite3.Connection, roots: Sequence[Cid], owner: PinOwner, reason: str, run: RunId, now: float
) -> None:
    rows = [(root, owner.value, reason, run, now) for root in roots]
    connection.executemany("INSERT OR REPLACE INTO kept VALUES (?, ?, ?, ?, ?)", rows)


def remove(connection: sqlite3.Connection, kept: Sequence[PinKey]) -> None:
    keys = [(root, owner.value, run) for root, owner, run in kept]
    connection.executemany("DELETE FROM kept WHERE cid = ? AND owner = ? AND run = ?", keys)


def rows(connection: sqlite3.Connection) -> list[KeptRoot]:
    """All of them, by CID."""
    found = connection.execute("SELECT cid, owner, reason, run, since FROM kept ORDER BY cid, owner, run")
    return [KeptRoot(Cid(cid), PinOwner(owner), reason, RunId(run), since) for cid, owner, reason, run, since in found]


def is_kept(connection: sqlite3.Connection, root: Cid) -> bool:
    return connection.execute("SELECT 1 FROM kept WHERE cid = ?", (root,)).fetchone() is not None


class PinBook:
    """The same table in a file of its own, or in memory. Methods may be called from any thread."""

    def __init__(self, path: Path | None, now: Callable[[], float] = time.time) -> None:
        self._now = now
        self._lock = threading.Lock()
        self._path = path
        with self._errors():
            self._connection = sqlite3.connect(path or ":memory:", check_same_thread=False, isolation_level=None)
            self._connection.execute("PRAGMA synchronous=FULL")
            self._connection.executescript(SCHEMA)

    def close(self) -> None:
        self._connection.close()

    def put(self, roots: Sequence[Cid], owner: PinOwner, reason: str, run: RunId) -> None:
        with self._errors(), self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            put(self._connection, roots, owner, reason, run, self._now())

    def remove(self, kept: Sequence[PinKey]) -> list[Cid]:
        """Roots of them that nobody keeps any more."""
        with self._errors(), self._connection:
            self._connection.execute("BEGIN IMMEDIATE")
            remove(self._connection, kept)
            roots = dict.fromkeys(root for root, _, _ in kept)
            return [root for root in roots if not is_kept(self._connection, root)]

    def has(self, root: Cid) -> bool:
        with self._errors():
            return is_kept(self._connection, root)

    def rows(self) -> list[KeptRoot]:
        with self._errors():
            return rows(self._connection)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        with self._lock:
            try:
                yield
            except sqlite3.Error as error:
                raise StorageError(f"can't keep the pins in {self._path}: {error}") from error

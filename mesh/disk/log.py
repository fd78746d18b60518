"""The durable half of a Raft member: hard state, snapshot and log in one file, so that each promise is one sync.

`load` checks everything it gives back: checksums, no gap between snapshot and entries, terms that never fall, nothing
committed that is missing. A member must never come back with less than it acknowledged, so damage stops the node.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from mesh.disk.database import Database, checksum
from mesh.ports import Saved
from mesh.raft.ready import Entry, HardState, Snapshot
from protocols.codec import decode, encode
from protocols.errors import RemoteProtocolError, StorageError

FORMAT_VERSION = 1

SCHEMA = """
CREATE TABLE entries (position INTEGER PRIMARY KEY, crc INTEGER NOT NULL, body BLOB NOT NULL);
CREATE TABLE values_ (name TEXT PRIMARY KEY, crc INTEGER NOT NULL, body BLOB NOT NULL) WITHOUT ROWID;
"""

ASIDE_MAX = 3
"""Logs of groups that this node left."""

HARD_STATE, SNAPSHOT = "hard state", "snapshot"

M = TypeVar("M")


class RaftDisk(Database):
    """`mesh.ports.Disk`, on SQLite; a context manager."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, SCHEMA, FORMAT_VERSION)

    def load(self) -> Saved:
        return self.read(self._load)

    def _load(self, connection: sqlite3.Connection) -> Saved:
        hard_state = self._value(connection, HARD_STATE, HardState) or HardState()
        snapshot = self._value(connection, SNAPSHOT, Snapshot)
        start = snapshot.index if snapshot else 0
        entries = tuple(self._entries(connection, start, snapshot.term if snapshot else 0))
        if hard_state.commit > start + len(entries):
            raise StorageError(
                f"{self.path} is damaged: the log ends at entry {start + len(entries)}, and {hard_state.commit} "
                "were committed"
            )
        return Saved(hard_state, snapshot, entries)

    def _entries(self, connection: sqlite3.Connection, index: int, term: int) -> Iterator[Entry]:
        """Those after `index`, each checked."""
        for position, crc, body in connection.execute("SELECT position, crc, body FROM entries ORDER BY position"):
            index += 1
            if position != index:
                raise StorageError(f"{self.path} is damaged: entry {index} is missing")
            entry = self._checked(f"entry {position}", crc, body, Entry)
            if entry.index != index or entry.term < term:
                raise StorageError(f"{self.path} is damaged: entry {index} is out of order")
            term = entry.term
            yield entry

    def _value(self, connection: sqlite3.Connection, name: str, kind: type[M]) -> M | None:
        row = connection.execute("SELECT crc, body FROM values_ WHERE name = ?", (name,)).fetchone()
        return None if row is None else self._checked(name, row[0], row[1], kind)

    def _checked(self, name: str, crc: int, body: bytes, kind: type[M]) -> M:
        if type(body) is not bytes or checksum(name, body) != crc:
            raise StorageError(f"{self.path} is damaged: {name} has a wrong checksum")
        try:
            return decode(body, kind)
        except RemoteProtocolError as error:
            raise StorageError(f"{self.path} is damaged: {name}: {error}") from None

    async def save(self, hard_state: HardState | None, entries: Sequence[Entry]) -> None:
        """Both in one sync. Entries replace whatever stands at their indexes and after."""
        rows = [
            (entry.index, checksum(f"entry {entry.index}", body), body)
            for entry, body in ((entry, encode(entry)) for entry in entries)
        ]

        def work(connection: sqlite3.Connection) -> None:
            if rows:
                connection.execute("DELETE FROM entries WHERE position >= ?", (rows[0][0],))
                connection.executemany("INSERT INTO entries VALUES (?, ?, ?)", rows)
            if hard_state is not None:
                _put(connection, HARD_STATE, encode(hard_state))

        if rows or hard_state is not None:
            await self.write(work)

    async def save_snapshot(self, snapshot: Snapshot) -> None:
        """Replace the snapshot; entries up to its index go, and all of them if the log conflicts with it. A snapshot
        older than the one here changes nothing."""
        body = encode(snapshot)

        def work(connection: sqlite3.Connection) -> None:
            held = self._value(connection, SNAPSHOT, Snapshot)
            if held is not None and held.index >= snapshot.index:
                return
            row = connection.execute("SELECT crc, body FROM entries WHERE position = ?", (snapshot.index,)).fetchone()
            ours = self._checked(f"entry {snapshot.index}", row[0], row[1], Entry) if row else None
            if ours is not None and ours.term == snapshot.term:
                connection.execute("DELETE FROM entries WHERE position <= ?", (snapshot.index,))
            else:
                connection.execute("DELETE FROM entries")
            _put(connection, SNAPSHOT, body)

        await self.write(work)

    async def set_aside(self) -> None:
        """Keep the log under another name and go on with an empty one; the newest few of those set aside are kept."""
        kept = sorted(
            (int(path.suffix[1:]), path)
            for path in self.path.parent.glob(f"{self.path.name}.*")
            if path.suffix[1:].isdecimal()
        )
        await self.start_afresh(self.path.with_name(f"{self.path.name}.{kept[-1][0] + 1 if kept else 1}"))
        for _, path in kept[: -(ASIDE_MAX - 1)]:
            path.unlink()


def _put(connection: sqlite3.Connection, name: str, body: bytes) -> None:
    connection.execute("INSERT OR REPLACE INTO values_ VALUES (?, ?, ?)", (name, checksum(name, body), body))

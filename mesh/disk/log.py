"""The durable half of a Raft member: hard state, snapshot and log in one file, so that each promise is one sync.

`load` checks everything it gives back: checksums, no gap between snapshot and entries, terms that never fall, nothing
committed that is missing, no hard state that got lost, no other node's log (whose votes would be given twice). A member
must never come back with less than it acknowledged, so damage stops the node.

The file's format is that of the log, `protocols.raft` tells what they are: a file of the first one is stamped with a
newer one by the first snapshot in it, so that until then the older program can be put back, and from then on that says
why it can't read the file.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from mesh.disk.database import UPDATE, Database, checksum
from mesh.ports import Saved
from mesh.raft.ready import Entry, HardState, Snapshot
from mesh.state.snapshot import format_of
from protocols.codec import decode, encode
from protocols.errors import RemoteProtocolError, StorageError
from protocols.ids import PeerId
from protocols.raft import LOG_FORMAT_NEWEST, LOG_FORMAT_OLDEST

FORMATS = range(LOG_FORMAT_OLDEST, LOG_FORMAT_NEWEST + 1)

SCHEMA = """
CREATE TABLE entries (position INTEGER PRIMARY KEY, crc INTEGER NOT NULL, body BLOB NOT NULL);
CREATE TABLE values_ (name TEXT PRIMARY KEY, crc INTEGER NOT NULL, body BLOB NOT NULL) WITHOUT ROWID;
"""

LOG_FILE = "log.sqlite"
"""In a node's home."""

ASIDE_MAX = 3
"""Logs of groups that this node left."""

HARD_STATE, SNAPSHOT, OWNER = "hard state", "snapshot", "owner"
"""A file of format 2 has all three as soon as it has a snapshot. Format 1 knows no owner, and passes it over."""

NOBODY = PeerId("")

M = TypeVar("M")


class RaftDisk(Database):
    """`mesh.ports.Disk`, on SQLite; a context manager. `owner` is the node whose log it is, and empty for a reader to
    whom that is all the same."""

    remedy = (
        "never edit it: remove this home and join the mesh again, or, where no other member is left, restore a "
        "snapshot (`mesh snapshot restore`)"
    )

    def __init__(self, path: Path, owner: PeerId = NOBODY) -> None:
        super().__init__(path, SCHEMA, FORMATS)
        self._owner = owner
        self._owned = False
        """Whether the file is known to name its owner."""

    def load(self) -> Saved:
        return self.read(self._load)

    def _load(self, connection: sqlite3.Connection) -> Saved:
        owner = self._row(connection, OWNER)
        if self._owner and owner not in (None, self._owner.encode()):
            raise StorageError(
                f"{self.path} is the log of node {(owner or b'').decode(errors='replace')}, and this home is that of "
                f"{self._owner}: put each back where it was"
            )
        self._owned = owner is not None
        hard_state = self._value(connection, HARD_STATE, HardState)
        snapshot = self._value(connection, SNAPSHOT, Snapshot)
        start = snapshot.index if snapshot else 0
        entries = tuple(self._entries(connection, start, snapshot.term if snapshot else 0))
        if self.format > 1 and (snapshot is None or hard_state is None or (self._owner and owner is None)):
            raise StorageError(self.damage("its hard state, its snapshot or its owner is missing"))
        if hard_state is None and entries:
            raise StorageError(self.damage("its hard state is missing"))
        hard_state = hard_state or HardState()
        if hard_state.commit > start + len(entries):
            raise StorageError(
                self.damage(f"the log ends at entry {start + len(entries)}, and {hard_state.commit} were committed")
            )
        return Saved(hard_state, snapshot, entries)

    def _entries(self, connection: sqlite3.Connection, index: int, term: int) -> Iterator[Entry]:
        """Those after `index`, each checked."""
        for position, crc, body in connection.execute("SELECT position, crc, body FROM entries ORDER BY position"):
            index += 1
            if position != index:
                raise StorageError(self.damage(f"entry {index} is missing"))
            entry = self._checked(f"entry {position}", crc, body, Entry)
            if entry.index != index or entry.term < term:
                raise StorageError(self.damage(f"entry {index} is out of order"))
            term = entry.term
            yield entry

    def _value(self, connection: sqlite3.Connection, name: str, kind: type[M]) -> M | None:
        body = self._row(connection, name)
        return None if body is None else self._decoded(name, body, kind)

    def _row(self, connection: sqlite3.Connection, name: str) -> bytes | None:
        row = connection.execute("SELECT crc, body FROM values_ WHERE name = ?", (name,)).fetchone()
        return None if row is None else self._sound(name, row[0], row[1])

    def _checked(self, name: str, crc: int, body: bytes, kind: type[M]) -> M:
        return self._decoded(name, self._sound(name, crc, body), kind)

    def _sound(self, name: str, crc: int, body: bytes) -> bytes:
        if type(body) is not bytes or checksum(name, body) != crc:
            raise StorageError(self.damage(f"{name} has a wrong checksum"))
        return body

    def _decoded(self, name: str, body: bytes, kind: type[M]) -> M:
        try:
            return decode(body, kind)
        except RemoteProtocolError as error:
            raise StorageError(
                f"{self.path} holds what this version does not know ({name}: {error}): {UPDATE}"
            ) from None

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
            self._put_owner(connection)

        if rows or hard_state is not None:
            await self.write(work)

    def _put_owner(self, connection: sqlite3.Connection) -> None:
        if self._owner and not self._owned:
            _put(connection, OWNER, self._owner.encode(), replace=False)
            self._owned = True  # or the write failed, and there is none after it

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
            _put(connection, HARD_STATE, encode(HardState()), replace=False)
            self._put_owner(connection)
            if stamp > self.format:
                connection.execute(f"PRAGMA user_version = {stamp}")

        stamp = format_of(snapshot.data)
        await self.write(work)
        self.format = max(self.format, stamp)

    async def set_aside(self) -> None:
        """Keep the log under another name and go on with an empty one; the newest few of those set aside are kept."""
        kept = self._kept_aside()
        await self.start_afresh(self._aside_after(kept))
        self._owned = False
        for _, path in kept[: -(ASIDE_MAX - 1)]:
            path.unlink()

    def keep_copy(self) -> Path:
        """Copy the log beside those that were set aside; where."""
        copy = self._aside_after(self._kept_aside())
        self.copy_to(copy)
        return copy

    def _kept_aside(self) -> list[tuple[int, Path]]:
        return sorted(
            (int(path.suffix[1:]), path)
            for path in self.path.parent.glob(f"{self.path.name}.*")
            if path.suffix[1:].isdecimal()
        )

    def _aside_after(self, kept: list[tuple[int, Path]]) -> Path:
        return self.path.with_name(f"{self.path.name}.{kept[-1][0] + 1 if kept else 1}")


def _put(connection: sqlite3.Connection, name: str, body: bytes, replace: bool = True) -> None:
    """`replace` False: what is there stays."""
    otherwise = "REPLACE" if replace else "IGNORE"
    connection.execute(f"INSERT OR {otherwise} INTO values_ VALUES (?, ?, ?)", (name, checksum(name, body), body))

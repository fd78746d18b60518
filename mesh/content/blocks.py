"""The block store: blocks by multihash, pins, and which roots are whole. One process, one writer, many readers.

Small blocks lie in SQLite (WAL), large ones in packs (packs.py); the index is in SQLite. Data is synced before the
index that points to it is committed, so a crash loses at most what nobody was promised. Every read checks the hash: a
damaged block is dropped and counts as missing, which lets it be fetched anew. A batch is one sync, whatever it holds.

What a pin or a recently used root reaches stays; the rest is cache, and goes when the quota presses (`collect`).
Synchronous, to be called in worker threads; rejected: the library's FilesystemBlockStore (no sync, fixed temporary
names, no check on read).
"""

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mesh.content import pins
from mesh.content.packs import Packs
from mesh.content.repository import FileRow
from mesh.content.unixfs.cid import RAW, multihash_of, parse_cid
from mesh.content.unixfs.nodes import BLOCK_BYTES_MAX, Block, child_links
from mesh.ports import ContentStat, KeptRoot, PinKey, PinOwner
from protocols.errors import LocalProtocolError, StorageError
from protocols.ids import NO_RUN, Cid, RunId

INLINE_BYTES_MAX = 16 * 1024
"""Blocks up to this size lie in SQLite."""

QUOTA_BYTES_DEFAULT = 32 * 1024**3
COLLECT_TO = 0.8
"""Share of the quota that a collection forced by it leaves."""

GRACE_SECONDS = 900.0
"""How long a block or a root that was just put or used is safe without a pin."""

COMPACT_BELOW = 0.5
"""A pack with a smaller share of live bytes than this is rewritten."""

COMPACT_BATCH = 32
"""Blocks moved in one sync."""

WALKS_MAX = 3
"""Over one DAG to see whether it is whole, if blocks of any are lost meanwhile."""

READ_TOGETHER = 128
"""Blocks read in one go, while nobody else reads."""

VARIABLES_MAX = 500
"""Parameters in one SQL statement."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS block (
    hash BLOB PRIMARY KEY, size INTEGER NOT NULL, added REAL NOT NULL,
    data BLOB, pack INTEGER, offset INTEGER
);
CREATE INDEX IF NOT EXISTS block_by_pack ON block (pack) WHERE pack IS NOT NULL;
CREATE TABLE IF NOT EXISTS root (cid TEXT PRIMARY KEY, used REAL NOT NULL, whole INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS file (
    path TEXT PRIMARY KEY, stamp TEXT NOT NULL, cid TEXT NOT NULL, tsize INTEGER NOT NULL, size INTEGER NOT NULL
);
"""


def check_size(data: bytes) -> None:
    if len(data) > BLOCK_BYTES_MAX:
        raise LocalProtocolError(
            f"a block of {len(data)} bytes is over the limit of {BLOCK_BYTES_MAX}: add it as a file"
        )


@dataclass(frozen=True, slots=True)
class Collected:
    """What a collection removed."""

    blocks: int
    bytes: int


class BlockStore:
    """Blocks, pins and roots under one directory. `close` it; all methods may be called from any thread.

    Invariants: every indexed block's bytes are synced; a root marked whole has its DAG here.
    """

    def __init__(
        self, directory: Path, quota_bytes: int = QUOTA_BYTES_DEFAULT, now: Callable[[], float] = time.time
    ) -> None:
        self._quota = quota_bytes
        self._now = now
        self._losses = 0
        self._writing = threading.RLock()
        self._reading = threading.RLock()
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._writer = self._connect(directory / "blocks.db")
            self._writer.executescript(SCHEMA + pins.SCHEMA)
            pins.migrate(self._writer, now())
            self._reader = self._connect(directory / "blocks.db")
            ends = self._writer.execute("SELECT pack, MAX(offset + size) FROM block WHERE pack NOT NULL GROUP BY 1")
            self._packs = Packs(directory / "packs", dict(ends))
            totals = self._writer.execute("SELECT COUNT(*), IFNULL(SUM(size), 0) FROM block")
            self._blocks, self._bytes = totals.fetchone()
        except (sqlite3.Error, OSError) as error:
            raise StorageError(f"can't open the block store in {directory}: {error}") from error

    @staticmethod
    def _connect(path: Path) -> sqlite3.Connection:
        connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        return connection

    def close(self) -> None:
        with self._writing, self._reading:
            self._reader.close()
            self._writer.close()
            self._packs.close()

    @property
    def losses(self) -> int:
        """How often blocks have been removed since the start: while it stands, what was here still is."""
        return self._losses

    # Reading

    def get(self, cid: Cid) -> bytes | None:
        return self.get_many([cid])[0]

    def get_many(self, cids: Sequence[Cid]) -> list[bytes | None]:
        """Each block, checked, or None where it is not here."""
        hashes = [parse_cid(cid)[1] for cid in cids]
        found: dict[bytes, bytes] = {}
        for at in range(0, len(hashes), READ_TOGETHER):
            found |= self._read(hashes[at : at + READ_TOGETHER])
        return [found.get(key) for key in hashes]

    def get_some(self, cids: Sequence[Cid], bytes_max: int) -> list[bytes | None]:
        """The same for as many of the first `cids`, at least one, as bring the total to `bytes_max`."""
        sizes = self._sizes([parse_cid(cid)[1] for cid in cids])
        total = count = 0
        while count < len(cids) and (total < bytes_max or not count):
            total += sizes.get(parse_cid(cids[count])[1], 0)
            count += 1
        return self.get_many(cids[:count])

    def has_many(self, cids: Sequence[Cid]) -> list[bool]:
        """Whether each block is indexed here."""
        hashes = [parse_cid(cid)[1] for cid in cids]
        known = self._added(hashes)
        return [one in known for one in hashes]

    def size(self, cid: Cid) -> int | None:
        key = parse_cid(cid)[1]
        return self._sizes([key]).get(key)

    def _sizes(self, hashes: list[bytes]) -> dict[bytes, int]:
        return dict(self._rows("size", hashes))

    def _read(self, hashes: list[bytes]) -> dict[bytes, bytes]:
        """Those that are here and sound."""
        with self._reading_rows():
            rows = self._rows("data, pack, offset, size", hashes)
            blocks = {
                key: self._packs.read(pack, offset, size) if data is None else bytes(data)
                for key, data, pack, offset, size in rows
            }
        for key in [key for key, data in blocks.items() if multihash_of(data) != key]:
            del blocks[key]
            self._forget_damaged(key)
        return blocks

    def _rows(self, columns: str, hashes: list[bytes]) -> list[Any]:
        """(hash, columns…) of those that are indexed here."""
        found: list[Any] = []
        with self._reading_rows() as connection:
            for at in range(0, len(hashes), VARIABLES_MAX):
                some = hashes[at : at + VARIABLES_MAX]
                marks = ",".join("?" * len(some))
                found += connection.execute(f"SELECT hash, {columns} FROM block WHERE hash IN ({marks})", some)
        return found

    def _forget_damaged(self, multihash: bytes) -> None:
        with self._transaction() as connection:
            row = connection.execute("DELETE FROM block WHERE hash = ? RETURNING size", (multihash,)).fetchone()
            self._losses += 1
            connection.execute("UPDATE root SET whole = 0")
            connection.execute("DELETE FROM file")
            if row is not None:
                self._blocks -= 1
                self._bytes -= row[0]

    # Writing

    def put_many(self, blocks: Sequence[Block]) -> list[Cid]:
        """Store blocks in one sync; the CIDs of those that were new. `StorageError` when the quota can't be kept."""
        for block in blocks:
            check_size(block.data)
        keyed = {parse_cid(block.cid)[1]: block for block in blocks}
        with self._writing:
            now = self._now()
            added = self._added(list(keyed))
            new = {key: block for key, block in keyed.items() if key not in added}
            ageing = [key for key, at in added.items() if at < now - GRACE_SECONDS / 2]
            if new:
                self._make_room(sum(len(block.data) for block in new.values()))
            if new or ageing:
                with self._transaction() as connection:
                    connection.executemany("UPDATE block SET added = ? WHERE hash = ?", [(now, key) for key in ageing])
                    self._insert(connection, {key: block.data for key, block in new.items()}, now)
                self._blocks += len(new)
                self._bytes += sum(len(block.data) for block in new.values())
        return [block.cid for block in new.values()]

    def _added(self, hashes: list[bytes]) -> dict[bytes, float]:
        """When each of those that are here was put."""
        return dict(self._rows("added", hashes))

    def _insert(self, connection: sqlite3.Connection, blocks: Mapping[bytes, bytes], now: float) -> None:
        large = [key for key, data in blocks.items() if len(data) > INLINE_BYTES_MAX]
        places = dict(zip(large, self._packs.append(blocks[key] for key in large), strict=True))
        rows = [
            (key, len(data), now, None if key in places else data, *places.get(key, (None, None)))
            for key, data in blocks.items()
        ]
        connection.executemany("INSERT INTO block VALUES (?, ?, ?, ?, ?, ?)", rows)

    def _make_room(self, more: int) -> None:
        if self._bytes + more <= self._quota:
            return
        self.collect(max(0, int(self._quota * COLLECT_TO) - more))
        if self._bytes + more > self._quota:
            raise StorageError(
                f"the block store holds {self._bytes} bytes that are pinned or in use, and {more} more "
                f"are over its quota of {self._quota}"
            )

    # Roots and pins

    def pin(self, roots: Sequence[Cid], owner: PinOwner, reason: str, run: RunId = NO_RUN) -> None:
        """What is kept for a run, several times a second, is synced with what is put next: until then the grace of
        what was just put protects it."""
        with self._transaction(synced=not run) as connection:
            pins.put(connection, roots, owner, reason, run, self._now())

    def unpin(self, kept: Sequence[PinKey]) -> None:
        with self._transaction() as connection:
            pins.remove(connection, kept)

    def kept(self) -> list[KeptRoot]:
        with self._reading_rows() as connection:
            return pins.rows(connection)

    def use(self, root: Cid, whole: bool) -> None:
        """Note that a root is in use now, and (`whole`) that its DAG is known to be here."""
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO root VALUES (?, ?, ?) ON CONFLICT (cid) DO UPDATE "
                "SET used = excluded.used, whole = MAX(whole, excluded.whole)",
                (root, self._now(), int(whole)),
            )

    def is_marked_whole(self, root: Cid) -> bool:
        with self._reading_rows() as connection:
            return connection.execute("SELECT 1 FROM root WHERE cid = ? AND whole", (root,)).fetchone() is not None

    def has_whole(self, root: Cid) -> bool:
        """Whether the DAG under `root` is here; remembered once it was found to be. False also when blocks vanish as
        fast as it is walked: nothing protects it until it is in use."""
        if self.is_marked_whole(root):
            return True
        for _ in range(WALKS_MAX):
            with self._writing:  # not amid a collection, which counts before it removes
                losses = self._losses
            if self._reach([root], stop_if_missing=True) is None:
                return False
            with self._writing:
                if self._losses == losses:
                    self.use(root, whole=True)
                    return True
        return False

    def recent(self, count: int) -> list[Cid]:
        """The roots used last that are wholly here, the latest first: what this node can serve or start from."""
        with self._reading_rows() as connection:
            rows = connection.execute("SELECT cid FROM root WHERE whole ORDER BY used DESC, cid LIMIT ?", (count,))
            return [row[0] for row in rows]

    def stat(self) -> ContentStat:
        with self._reading_rows() as connection:
            kept = connection.execute("SELECT COUNT(DISTINCT cid) FROM kept").fetchone()[0]
        return ContentStat(self._blocks, self._bytes, kept)

    # Files that were added: unchanged ones need not be read again

    def remembered_files(self, prefix: str) -> dict[str, FileRow]:
        """Files under the path `prefix` that were added and not lost since."""
        with self._reading_rows() as connection:
            rows = connection.execute(
                "SELECT path, stamp, cid, tsize, size FROM file WHERE path >= ? AND path < ?",
                (prefix, prefix + "\U0010ffff"),
            )
            return {path: (stamp, cid, tsize, size) for path, stamp, cid, tsize, size in rows}

    def remember_files(self, files: Mapping[str, FileRow]) -> None:
        """Files that have just been stored."""
        with self._transaction() as connection:
            rows = [(path, *row) for path, row in files.items()]
            connection.executemany("INSERT OR REPLACE INTO file VALUES (?, ?, ?, ?, ?)", rows)

    # Collection

    def collect(self, target_bytes: int = 0) -> Collected:
        """Remove blocks that no pin and no recent root reaches, the oldest first, until `target_bytes` are left."""
        with self._writing:
            horizon = self._now() - GRACE_SECONDS
            with self._reading_rows() as connection:
                keep = connection.execute("SELECT cid FROM kept UNION SELECT cid FROM root WHERE used >= ?", (horizon,))
                live_roots = [row[0] for row in keep]
                old = connection.execute("SELECT hash, size FROM block WHERE added < ? ORDER BY added", (horizon,))
                candidates = old.fetchall()
            live = self._reach(live_roots, stop_if_missing=False) or set()
            doomed: list[tuple[bytes]] = []
            freed = 0
            for key, size in candidates:
                if self._bytes - freed <= target_bytes:
                    break
                if key not in live:
                    doomed.append((key,))
                    freed += size
            if doomed:
                self._losses += 1
                with self._transaction() as connection:
                    connection.executemany("DELETE FROM block WHERE hash = ?", doomed)
                    kept = "SELECT cid FROM kept"
                    connection.execute(f"DELETE FROM root WHERE used < ? AND cid NOT IN ({kept})", (horizon,))
                    connection.execute("DELETE FROM file")
                self._blocks -= len(doomed)
                self._bytes -= freed
                self._compact()
        return Collected(len(doomed), freed)

    def _reach(self, roots: Sequence[Cid], stop_if_missing: bool) -> set[bytes] | None:
        """The multihashes of all that `roots` reach, here or not; None on the first missing one, if that is asked."""
        reached: set[bytes] = set()
        level = list(dict.fromkeys(roots))
        while level:
            fresh = {parse_cid(cid)[1]: cid for cid in level}
            fresh = {key: cid for key, cid in fresh.items() if key not in reached}
            if stop_if_missing and not all(self.has_many(list(fresh.values()))):
                return None
            reached.update(fresh)
            level = []
            for cid in fresh.values():
                if parse_cid(cid)[0] != RAW:
                    data = self.get(cid)
                    if data is None and stop_if_missing:
                        return None
                    level += [link.cid for link in child_links(cid, data or b"")]
        return reached

    def _compact(self) -> None:
        """Rewrite the packs that are mostly holes."""
        with self._reading_rows() as connection:
            rows = connection.execute("SELECT pack, SUM(size) FROM block WHERE pack NOT NULL GROUP BY pack").fetchall()
        live = dict(rows)
        for pack, size in self._packs.sizes().items():
            if live.get(pack, 0) >= size * COMPACT_BELOW:
                continue
            if pack == self._packs.current:
                self._packs.seal()
            self._move_out(pack)
            with self._reading:
                self._packs.remove(pack)

    def _move_out(self, pack: int) -> None:
        with self._reading_rows() as connection:
            found = connection.execute("SELECT hash, offset, size FROM block WHERE pack = ? ORDER BY offset", (pack,))
            rows = found.fetchall()
        for at in range(0, len(rows), COMPACT_BATCH):
            some = rows[at : at + COMPACT_BATCH]
            with self._reading:
                data = [self._packs.read(pack, offset, size) for _, offset, size in some]
            with self._transaction() as connection:
                places = self._packs.append(data)
                moved = [(*place, row[0]) for place, row in zip(places, some, strict=True)]
                connection.executemany("UPDATE block SET pack = ?, offset = ? WHERE hash = ?", moved)

    # Connections

    @contextmanager
    def _transaction(self, synced: bool = True) -> Iterator[sqlite3.Connection]:
        """The writing connection, in a transaction that is undone if this raises, and when it returns is synced, or
        else survives the process, and the host from the next one that is."""
        with self._writing:
            try:
                self._writer.execute(f"PRAGMA synchronous={'FULL' if synced else 'NORMAL'}")
                self._writer.execute("BEGIN IMMEDIATE")
                try:
                    yield self._writer
                    self._writer.execute("COMMIT")
                except BaseException:
                    if self._writer.in_transaction:
                        self._writer.execute("ROLLBACK")
                    raise
            except sqlite3.Error as error:
                raise StorageError(f"can't write to the block store: {error}") from error

    @contextmanager
    def _reading_rows(self) -> Iterator[sqlite3.Connection]:
        with self._reading:
            try:
                yield self._reader
            except (sqlite3.Error, OSError) as error:
                raise StorageError(f"can't read the block store: {error}") from error

"""A voter's history: what finished runs came to, long after the log has forgotten their tests.

Everything in it can be had again, from the state or from reports: so a damaged file is set aside, and a full disk costs
history and nothing else. Bounded in runs, in age and in bytes; of what is over these, results go first, the oldest
ones, and the numbers of their runs stay.
"""

import logging
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import trio

from mesh.disk.database import Database, checksum
from mesh.state.model import NO_VERDICT
from mesh.state.parts import Part, part_of, place_in
from mesh.state.past import Results, Seen, Whole, pack_names, pack_results, place_of, unpack_names, unpack_results
from protocols.codec import decode, encode
from protocols.errors import RemoteProtocolError, StorageError
from protocols.history import PastRun
from protocols.ids import PeerId

log = logging.getLogger(__name__)

T = TypeVar("T")

HISTORY_FILE = "history.sqlite"
"""In a node's home."""

FORMAT_VERSION = 1

SCHEMA = """
CREATE TABLE runs (
    key TEXT PRIMARY KEY, project TEXT NOT NULL, at REAL NOT NULL, crc INTEGER NOT NULL, body BLOB NOT NULL
);
CREATE INDEX runs_by_project ON runs (project, at);
CREATE INDEX runs_by_time ON runs (at);
CREATE TABLE names (digest BLOB PRIMARY KEY, body BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE results (key TEXT PRIMARY KEY, digest BLOB NOT NULL, crc INTEGER NOT NULL, body BLOB NOT NULL);
CREATE INDEX results_by_names ON results (digest);
"""

RUNS_MAX = 20_000
SECONDS_MAX = 400 * 86_400.0
"""Age of a run."""
BYTES_MAX = 512 * 2**20
"""Of results and names."""

PROJECTS_SHOWN_MAX = 500

RUNS_LOOKED_AT_MAX = 1_000
"""The newest of all projects, for those that one host had a part in."""


class HistoryFile(Database):
    """A context manager. Reads and writes run in a thread, one at a time."""

    remedy = "move it away: it is filled again from the log, and `mesh history --rebuild` adds what reports tell"
    looks_over = False  # half a gigabyte, and nothing depends on it

    def __init__(
        self,
        path: Path,
        runs_max: int = RUNS_MAX,
        seconds_max: float = SECONDS_MAX,
        bytes_max: int = BYTES_MAX,
    ) -> None:
        super().__init__(path, SCHEMA, range(FORMAT_VERSION, FORMAT_VERSION + 1))
        self._runs_max = runs_max
        self._seconds_max = seconds_max
        self._bytes_max = bytes_max
        self._known: dict[str, bool] = {}
        """Runs that are kept, and whether with their results."""
        self._bytes = 0
        self.changes = 0
        """Grows with each run that is added."""
        try:
            self.read(self._look_over)
        except StorageError:
            self.close()
            raise

    def _look_over(self, connection: sqlite3.Connection) -> None:
        known = connection.execute("SELECT runs.key, results.key IS NOT NULL FROM runs LEFT JOIN results USING (key)")
        self._known = {key: bool(whole) for key, whole in known}
        self._bytes = _bytes(connection)

    def has(self, key: str, whole: bool = False) -> bool:
        """Whether the run is kept; `whole`: with its results."""
        return self._known.get(key, False) if whole else key in self._known

    async def add(
        self, run: PastRun, tests: Sequence[str] = (), results: Results | None = None, now: float = 0.0
    ) -> None:
        """Keep a run, in place of what was known of it, and let go of what is over the bounds at `now`."""
        await self.write(lambda connection: self._add(connection, run, tests, results, now or run.at))
        self.changes += 1

    def _add(
        self, connection: sqlite3.Connection, run: PastRun, tests: Sequence[str], results: Results | None, now: float
    ) -> None:
        body = encode(run)
        connection.execute(
            "INSERT OR REPLACE INTO runs VALUES (?, ?, ?, ?, ?)",
            (run.key, run.project, run.at, checksum(run.key, body), body),
        )
        whole = self._known.get(run.key, False)
        if results is not None:
            digest, names = pack_names(tests)
            packed = pack_results(results)
            connection.execute("INSERT OR IGNORE INTO names VALUES (?, ?)", (digest, names))
            connection.execute(
                "INSERT OR REPLACE INTO results VALUES (?, ?, ?, ?)",
                (run.key, digest, checksum(run.key, packed), packed),
            )
            whole = True
        self._known[run.key] = whole
        self._trim(connection, now)
        self._bytes = _bytes(connection)

    def _trim(self, connection: sqlite3.Connection, now: float) -> None:
        old = [key for (key,) in connection.execute("SELECT key FROM runs WHERE at < ?", (now - self._seconds_max,))]
        over = len(self._known) - len(old) - self._runs_max
        if over > 0:
            oldest = connection.execute("SELECT key FROM runs ORDER BY at LIMIT ?", (len(old) + over,))
            old = [key for (key,) in oldest]
        for key in old:
            connection.execute("DELETE FROM runs WHERE key = ?", (key,))
            connection.execute("DELETE FROM results WHERE key = ?", (key,))
            self._known.pop(key, None)
        self._trim_results(connection)
        connection.execute("DELETE FROM names WHERE digest NOT IN (SELECT digest FROM results)")

    def _trim_results(self, connection: sqlite3.Connection) -> None:
        """The newest run's stay, whatever their size."""
        sizes = connection.execute(
            "SELECT runs.key, length(results.body) FROM results JOIN runs USING (key) ORDER BY at DESC"
        ).fetchall()
        total = connection.execute("SELECT total(length(body)) FROM names").fetchone()[0]
        for place, (key, size) in enumerate(sizes):
            total += size
            if place and total > self._bytes_max:
                connection.execute("DELETE FROM results WHERE key = ?", (key,))
                self._known[key] = False

    @property
    def size(self) -> int:
        """Bytes of results and names."""
        return self._bytes

    async def projects(self) -> list[tuple[str, int, PastRun]]:
        """(project, how many runs, the newest of them), the one with the newest run first."""
        return await self._ask(self._projects)

    def _projects(self, connection: sqlite3.Connection) -> list[tuple[str, int, PastRun]]:
        rows = connection.execute(
            "SELECT project, count(*), max(at) AS last FROM runs GROUP BY project ORDER BY last DESC, project LIMIT ?",
            (PROJECTS_SHOWN_MAX,),
        ).fetchall()
        return [(project, count, self._runs(connection, project, 1)[0]) for project, count, _ in rows]

    async def runs(self, project: str, limit: int) -> list[PastRun]:
        """Of a project, the newest first."""
        return await self._ask(lambda connection: self._runs(connection, project, limit))

    def _runs(self, connection: sqlite3.Connection, project: str, limit: int) -> list[PastRun]:
        rows = connection.execute(
            "SELECT key, crc, body FROM runs WHERE project = ? ORDER BY at DESC, key LIMIT ?", (project, limit)
        )
        return [decode(self._sound(key, crc, body), PastRun) for key, crc, body in rows]

    async def wholes(self, project: str, limit: int, tests_max: int) -> tuple[list[Whole], dict[bytes, list[str]]]:
        """Runs of a project with their results, the newest first, as many as have at most `tests_max` tests together
        (the newest in any case); and the tests of each digest."""
        return await self._ask(lambda connection: self._wholes(connection, project, limit, tests_max))

    def _wholes(
        self, connection: sqlite3.Connection, project: str, limit: int, tests_max: int
    ) -> tuple[list[Whole], dict[bytes, list[str]]]:
        found: list[Whole] = []
        names: dict[bytes, list[str]] = {}
        tests = 0
        for run in self._runs(connection, project, limit):
            kept = self._results(connection, run)
            if kept is None:
                continue
            tests += run.tests
            if found and tests > tests_max:
                break
            digest, packed = kept
            if digest not in names:
                names[digest] = unpack_names(self._names(connection, digest))
            found.append(Whole(run, digest, unpack_results(packed, run.tests)))
        return found, names

    async def parts(self, host: PeerId, limit: int, tests_max: int) -> list[Part]:
        """What a host did of the newest runs of all projects that it had a part in; at most `limit` of them, and with
        at most `tests_max` tests together (the newest in any case)."""
        return await self._ask(lambda connection: self._parts(connection, host, limit, tests_max))

    def _parts(self, connection: sqlite3.Connection, host: PeerId, limit: int, tests_max: int) -> list[Part]:
        found: list[Part] = []
        tests = 0
        rows = connection.execute(
            "SELECT key, crc, body FROM runs ORDER BY at DESC, key LIMIT ?", (RUNS_LOOKED_AT_MAX,)
        )
        for key, crc, body in rows:
            run = decode(self._sound(key, crc, body), PastRun)
            place = place_in(run, host)
            if place is None:
                continue
            kept = self._results(connection, run)
            tests += run.tests if kept else 0
            if len(found) >= limit or (found and tests > tests_max):
                break
            part = part_of(run, place, unpack_results(kept[1], run.tests) if kept else None)
            if not part.is_empty:
                found.append(part)
        return found

    async def test(self, project: str, test: str, limit: int) -> list[Seen]:
        """A test in past runs of a project that have a verdict of it, the newest first."""
        return await self._ask(lambda connection: self._test(connection, project, test, limit))

    def _test(self, connection: sqlite3.Connection, project: str, test: str, limit: int) -> list[Seen]:
        found: list[Seen] = []
        places: dict[bytes, int | None] = {}
        for run in self._runs(connection, project, self._runs_max):
            if len(found) >= limit:
                break
            kept = self._results(connection, run)
            if kept is None:
                continue
            digest, packed = kept
            if digest not in places:
                places[digest] = place_of(test, self._names(connection, digest))
            place = places[digest]
            if place is None or place >= run.tests:
                continue
            seen = unpack_results(packed, run.tests)
            if seen.outcomes[place] != NO_VERDICT:
                columns = (seen.outcomes, seen.durations, seen.workers, seen.attempts)
                found.append(Seen(run, place, *(column[place] for column in columns)))
        return found

    def _results(self, connection: sqlite3.Connection, run: PastRun) -> tuple[bytes, bytes] | None:
        """(digest of the tests, packed results); None: they are not kept."""
        row = connection.execute("SELECT digest, crc, body FROM results WHERE key = ?", (run.key,)).fetchone()
        return None if row is None else (row[0], self._sound(run.key, *row[1:]))

    def _names(self, connection: sqlite3.Connection, digest: bytes) -> bytes:
        row = connection.execute("SELECT body FROM names WHERE digest = ?", (digest,)).fetchone()
        if row is None:
            raise StorageError(self.damage("the names of tests are missing"))
        body: bytes = row[0]
        return body

    def _sound(self, key: str, crc: int, body: bytes) -> bytes:
        if type(body) is not bytes or checksum(key, body) != crc:
            raise StorageError(self.damage(f"run {key} has a wrong checksum"))
        return body

    async def _ask(self, work: Callable[[sqlite3.Connection], T]) -> T:
        async with self._lock:
            try:
                return await trio.to_thread.run_sync(self.read, work)
            except RemoteProtocolError as error:
                raise StorageError(self.damage(str(error))) from None


def _bytes(connection: sqlite3.Connection) -> int:
    """Of results and names."""
    sizes = "SELECT (SELECT total(length(body)) FROM results) + (SELECT total(length(body)) FROM names)"
    return int(connection.execute(sizes).fetchone()[0])


def open_history(home: Path) -> HistoryFile | None:
    """The history in a home; a damaged one is set aside first. None if there can be none: a node does without."""
    path = home / HISTORY_FILE
    try:
        return HistoryFile(path)
    except StorageError as error:
        log.warning("%s", error)
    try:
        for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
            if (home / name).exists():
                (home / name).rename(home / f"{name}.damaged")
        return HistoryFile(path)
    except (StorageError, OSError) as error:
        log.warning("no history is kept: %s", error)
        return None

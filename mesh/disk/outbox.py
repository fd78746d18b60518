"""A worker's outbox: results that no coordinator has acknowledged, in the order they came, synced.

Bounded in count and bytes: a worker whose results nobody takes must stop working, not fill its disk.
"""

import sqlite3
from pathlib import Path

import trio

from mesh.disk.database import Database, checksum
from protocols.errors import StorageError

FORMAT_VERSION = 1

SCHEMA = """
CREATE TABLE results (
    number INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE, crc INTEGER NOT NULL, body BLOB NOT NULL
);
"""

PUT = """
INSERT INTO results (name, crc, body) VALUES (?, ?, ?)
ON CONFLICT (name) DO UPDATE SET crc = excluded.crc, body = excluded.body
"""
REMOVE = "DELETE FROM results WHERE name = ?"

ITEMS_MAX = 16_384
BYTES_MAX = 256 * 1024 * 1024


class Outbox(Database):
    """`mesh.ports.Outbox`, on SQLite; a context manager. What it holds is in memory too, so that reading is free."""

    remedy = "move it away, and the tests whose results it holds run again"

    def __init__(self, path: Path, items_max: int = ITEMS_MAX, bytes_max: int = BYTES_MAX) -> None:
        super().__init__(path, SCHEMA, range(FORMAT_VERSION, FORMAT_VERSION + 1))
        self._items_max = items_max
        self._bytes_max = bytes_max
        self._changing = trio.Lock()
        try:
            self._items = self.read(self._load)
        except StorageError:
            self.close()
            raise
        self._bytes = sum(map(len, self._items.values()))

    def items(self) -> list[tuple[str, bytes]]:
        """In the order of their first `put`."""
        return list(self._items.items())

    async def put(self, key: str, payload: bytes) -> None:
        """Keep `payload`, in place of what `key` had; `StorageError` when a bound is reached."""
        async with self._changing:
            size = self._bytes + len(payload) - len(self._items.get(key, b""))
            if key not in self._items and len(self._items) >= self._items_max:
                raise StorageError(f"{self.path} holds {self._items_max} unacknowledged results, which is its limit")
            if size > self._bytes_max:
                raise StorageError(f"{self.path} would hold {size} bytes, and its limit is {self._bytes_max}")
            row = (key, checksum(key, payload), payload)
            await self.write(lambda connection: _run(connection, PUT, row))
            self._items[key] = payload
            self._bytes = size

    async def remove(self, key: str) -> None:
        """Acknowledged. A key that is not here changes nothing."""
        async with self._changing:
            if key in self._items:
                await self.write(lambda connection: _run(connection, REMOVE, (key,)))
                self._bytes -= len(self._items.pop(key))

    def _load(self, connection: sqlite3.Connection) -> dict[str, bytes]:
        made = {}
        for name, crc, body in connection.execute("SELECT name, crc, body FROM results ORDER BY number"):
            if type(body) is not bytes or checksum(name, body) != crc:
                raise StorageError(self.damage(f"result {name} has a wrong checksum"))
            made[name] = body
        return made


def _run(connection: sqlite3.Connection, statement: str, row: tuple[object, ...]) -> None:
    connection.execute(statement, row)

"""The outbox: in order, bounded, there again after a crash."""

import sqlite3
from pathlib import Path

import pytest
import trio

from mesh.disk.outbox import Outbox
from protocols.errors import StorageError


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


async def test_results_come_back_in_the_order_of_their_first_put(path: Path) -> None:
    with Outbox(path) as outbox:
        for key in ("c", "a", "b", "d"):
            await outbox.put(key, key.encode() * 3)
        await outbox.put("a", b"again")
        await outbox.remove("b")
        await outbox.remove("unknown")
        expected = [("c", b"ccc"), ("a", b"again"), ("d", b"ddd")]
        assert outbox.items() == expected
    with Outbox(path) as outbox:
        assert outbox.items() == expected
        await outbox.put("b", b"new")
        assert [key for key, _ in outbox.items()] == ["c", "a", "d", "b"]


async def test_bounds_hold_also_for_concurrent_puts(path: Path) -> None:
    with Outbox(path, items_max=3, bytes_max=100) as outbox:
        refused = []

        async def put(key: str) -> None:
            try:
                await outbox.put(key, b"x")
            except StorageError as error:
                refused.append(str(error))

        async with trio.open_nursery() as nursery:
            for key in "abcde":
                nursery.start_soon(put, key)
        assert len(outbox.items()) == 3
        assert len(refused) == 2
        assert "holds 3 unacknowledged results" in refused[0]
        key = outbox.items()[0][0]
        await outbox.put(key, b"y" * 98)
        with pytest.raises(StorageError, match="would hold 101 bytes"):
            await outbox.put(key, b"y" * 99)
        await outbox.remove(key)
        await outbox.put("f", b"y" * 98)
    with Outbox(path, items_max=3, bytes_max=100) as outbox:
        with pytest.raises(StorageError, match="would hold 101 bytes"):
            await outbox.put("f", b"y" * 99)
        assert dict(outbox.items())["f"] == b"y" * 98


async def test_a_cancelled_put_is_whole_or_absent(path: Path) -> None:
    with Outbox(path) as outbox:
        with trio.CancelScope() as scope:
            scope.cancel()
            await outbox.put("a", b"x")
        held = outbox.items()
    with Outbox(path) as outbox:
        assert outbox.items() == held == []


async def test_damage_is_named(path: Path) -> None:
    with Outbox(path) as outbox:
        await outbox.put("run-1", b"payload")
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("UPDATE results SET name = 'run-2'")
    connection.close()
    with pytest.raises(StorageError, match="result run-2 has a wrong checksum"):
        Outbox(path)

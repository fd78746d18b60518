"""The durable log: what was synced is there after any crash; what is damaged is named, never guessed."""

import random
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from mesh.disk.log import RaftDisk
from mesh.ports import Saved
from mesh.raft.ready import Configuration, Entry, EntryKind, HardState, Snapshot
from protocols.errors import StorageError
from protocols.ids import PeerId

GROUP = Configuration(voters=(PeerId("a"), PeerId("b")))


def entry(index: int, term: int = 1, data: bytes = b"data") -> Entry:
    return Entry(index, term, EntryKind.NORMAL, data)


def entries(first: int, last: int, term: int = 1) -> list[Entry]:
    return [entry(index, term, b"%d/%d" % (index, term)) for index in range(first, last + 1)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "raft.db"


def reopened(path: Path) -> Saved:
    with RaftDisk(path) as disk:
        return disk.load()


def crashed(path: Path) -> Path:
    """What a power cut would leave: the files as they are on disk now, the database not closed."""
    copy = path.parent.parent / f"copy-{random.Random(str(path)).random()}"
    shutil.copytree(path.parent, copy)
    return copy / path.name


@pytest.mark.parametrize("seed", range(3))
async def test_it_is_what_a_plain_model_says(path: Path, seed: int) -> None:
    rng = random.Random(seed)
    hard_state, snapshot, held = HardState(), None, []
    for _ in range(15):
        with RaftDisk(path) as disk:
            assert disk.load() == Saved(hard_state, snapshot, tuple(held))
            for _ in range(rng.randint(1, 6)):
                start = snapshot.index if snapshot else 0
                last = held[-1].index if held else start
                term = max(hard_state.term, held[-1].term if held else 1)
                if rng.random() < 0.2:
                    index = rng.randint(max(start, hard_state.commit), last + 3)
                    agrees = any((each.index, each.term) == (index, term) for each in held)
                    if index > start:
                        snapshot = Snapshot(index, term, GROUP, rng.randbytes(rng.randrange(3000)))
                        await disk.save_snapshot(snapshot)
                        held = [each for each in held if agrees and each.index > index]
                else:
                    first = rng.randint(max(start, hard_state.commit) + 1, last + 1) if last >= hard_state.commit else 0
                    term += rng.randint(0, 1) if first == last + 1 else 1
                    new = entries(first, first + rng.randrange(5), term) if first else []
                    held = [each for each in held if new and each.index < first] + new if new else held
                    last = held[-1].index if held else start
                    hard_state = HardState(term, None, rng.randint(min(hard_state.commit, last), last))
                    await disk.save(hard_state, new)


async def test_a_new_disk_is_empty(path: Path) -> None:
    assert reopened(path) == Saved(HardState(), None, ())
    assert reopened(path) == Saved(HardState(), None, ())


async def test_what_was_saved_is_there_without_a_close(path: Path) -> None:
    with RaftDisk(path) as disk:
        await disk.save(HardState(3, PeerId("a"), 2), entries(1, 5))
        assert reopened(crashed(path)) == Saved(HardState(3, PeerId("a"), 2), None, tuple(entries(1, 5)))
    assert reopened(path).entries == tuple(entries(1, 5))


async def test_entries_replace_what_stands_at_their_indexes_and_after(path: Path) -> None:
    with RaftDisk(path) as disk:
        await disk.save(None, entries(1, 9))
        await disk.save(HardState(2), entries(4, 6, term=2))
        assert disk.load() == Saved(HardState(2), None, (*entries(1, 3), *entries(4, 6, term=2)))
        await disk.save(HardState(3), [])
        assert disk.load().hard_state == HardState(3)


async def test_a_snapshot_takes_the_entries_that_it_covers(path: Path) -> None:
    with RaftDisk(path) as disk:
        await disk.save(HardState(1), entries(1, 9))
        await disk.save_snapshot(Snapshot(6, 1, GROUP, b"state"))
    assert reopened(path) == Saved(HardState(1), Snapshot(6, 1, GROUP, b"state"), tuple(entries(7, 9)))


@pytest.mark.parametrize(("index", "term"), [(6, 2), (20, 2)])
async def test_a_snapshot_that_the_log_conflicts_with_takes_the_whole_log(path: Path, index: int, term: int) -> None:
    with RaftDisk(path) as disk:
        await disk.save(HardState(1), entries(1, 9))
        await disk.save_snapshot(Snapshot(index, term, GROUP, b""))
        await disk.save(HardState(2), entries(index + 1, index + 2, term=2))
    assert reopened(path) == Saved(
        HardState(2), Snapshot(index, term, GROUP, b""), tuple(entries(index + 1, index + 2, 2))
    )


async def test_an_older_snapshot_changes_nothing(path: Path) -> None:
    with RaftDisk(path) as disk:
        await disk.save_snapshot(Snapshot(20, 2, GROUP, b"new"))
        await disk.save(HardState(2), entries(21, 22, term=2))
        await disk.save_snapshot(Snapshot(15, 1, GROUP, b"old"))
        assert disk.load() == Saved(HardState(2), Snapshot(20, 2, GROUP, b"new"), tuple(entries(21, 22, 2)))


def test_a_torn_tail_leaves_a_synced_prefix(path: Path) -> None:
    """Cut the write-ahead file anywhere: whole transactions up to the cut survive, never a part of one."""

    async def fill() -> Path:
        with RaftDisk(path) as disk:
            for first in range(1, 41, 4):
                await disk.save(HardState(1, None, first - 1), entries(first, first + 3))
            return crashed(path)

    copy = trio.run(fill)
    wal = copy.with_name(copy.name + "-wal")
    whole, base = wal.read_bytes(), copy.read_bytes()
    assert len(whole) > 10_000
    rng = random.Random(7)
    seen = set()
    for _ in range(25):
        for leftover in copy.parent.iterdir():
            leftover.unlink()
        copy.write_bytes(base)
        wal.write_bytes(whole[: rng.randrange(len(whole))])
        saved = reopened(copy)
        assert len(saved.entries) % 4 == 0
        assert list(saved.entries) == entries(1, len(saved.entries))
        seen.add(len(saved.entries))
    assert len(seen) > 3


def flip(path: Path, within: bytes) -> None:
    raw = bytearray(path.read_bytes())
    raw[raw.index(within) + len(within) // 2] ^= 1
    path.write_bytes(raw)


def damage(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(statement)
    connection.close()


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("UPDATE entries SET body = CAST(x'00' || substr(body, 2) AS BLOB) WHERE position = 4", "entry 4"),
        ("UPDATE entries SET body = (SELECT body FROM entries WHERE position = 5) WHERE position = 4", "entry 4"),
        ("UPDATE entries SET crc = crc + 1 WHERE position = 4", "entry 4"),
        ("DELETE FROM entries WHERE position = 4", "entry 4 is missing"),
        ("DELETE FROM entries WHERE position > 4", "the log ends at entry 4, and 5 were committed"),
        ("UPDATE values_ SET crc = crc + 1 WHERE name = 'hard state'", "hard state"),
        ("UPDATE values_ SET body = 'text' WHERE name = 'snapshot'", "snapshot"),
    ],
)
async def test_damage_is_named(path: Path, statement: str, named: str) -> None:
    with RaftDisk(path) as disk:
        await disk.save_snapshot(Snapshot(2, 1, GROUP, b"state"))
        await disk.save(HardState(1, None, 5), entries(3, 6))
    damage(path, statement)
    with pytest.raises(StorageError) as caught:
        reopened(path)
    assert named in str(caught.value)
    assert str(path) in str(caught.value)


async def test_a_flipped_bit_in_the_file_is_found(path: Path) -> None:
    with RaftDisk(path) as disk:
        await disk.save(HardState(1), [entry(index, data=bytes([index]) * 2000) for index in range(1, 30)])
    flip(path, bytes([17]) * 1500)
    with pytest.raises(StorageError, match="entry 17 has a wrong checksum"):
        reopened(path)


async def test_another_format_and_another_file_are_refused(path: Path, tmp_path: Path) -> None:
    reopened(path)
    damage(path, "PRAGMA user_version = 9")
    with pytest.raises(StorageError, match="has format 9, and this version reads format 1"):
        reopened(path)
    junk = tmp_path / "junk.db"
    junk.write_bytes(b"no database at all" * 100)
    with pytest.raises(StorageError, match=r"junk\.db"):
        reopened(junk)


async def test_a_log_set_aside_is_kept_and_an_empty_one_begins(path: Path) -> None:
    with RaftDisk(path) as disk:
        for term in range(1, 6):
            await disk.save(HardState(term), entries(1, 3, term))
            await disk.set_aside()
            assert disk.load() == Saved(HardState(), None, ())
        await disk.save(HardState(9), entries(1, 2, 9))
    assert reopened(path).entries == tuple(entries(1, 2, 9))
    assert sorted(file.name for file in path.parent.iterdir()) == ["raft.db", "raft.db.3", "raft.db.4", "raft.db.5"]
    assert reopened(path.with_name("raft.db.5")).entries == tuple(entries(1, 3, 5))


async def test_a_second_opener_is_refused(path: Path) -> None:
    with RaftDisk(path), pytest.raises(StorageError, match="locked"):
        RaftDisk(path)


FILL = """
import resource, sys, trio
from pathlib import Path
from mesh.disk.log import RaftDisk
from mesh.raft.ready import Entry, EntryKind, HardState
from protocols.errors import StorageError

async def main():
    with RaftDisk(Path(sys.argv[1])) as disk:
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
        saved = 0
        try:
            while True:
                await disk.save(HardState(1, None, saved), [Entry(saved + 1, 1, EntryKind.NORMAL, bytes(9000))])
                saved += 1
        except StorageError as error:
            print(saved, error)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
        try:
            await disk.save(HardState(2), [])
        except StorageError as error:
            print("still", error)

trio.run(main)
"""


def test_a_full_disk_is_a_storage_error_and_loses_nothing(path: Path) -> None:
    """A real limit on the file's size, in a process of its own."""
    done = subprocess.run([sys.executable, "-c", FILL, str(path)], capture_output=True, text=True, timeout=60)
    first, second = done.stdout.splitlines()
    count = int(first.split()[0])
    assert count > 5
    assert f"{path} can't be written" in first
    assert f"still {path} can't be written" in second
    saved = reopened(path)
    assert len(saved.entries) == count
    assert saved.hard_state == HardState(1, None, count - 1)


KILLED = """
import os, sys, trio
from pathlib import Path
from mesh.disk.log import RaftDisk
from mesh.raft.ready import Entry, EntryKind, HardState

async def main():
    with RaftDisk(Path(sys.argv[1])) as disk:
        for index in range(1, 10_000):
            await disk.save(HardState(1, None, index), [Entry(index, 1, EntryKind.NORMAL, bytes(500))])
            print(index, flush=True)

trio.run(main)
"""


def test_a_killed_process_keeps_what_it_reported(path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(path)], stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        while int(process.stdout.readline()) < 50:
            pass
        process.kill()
        reported = [int(line) for line in process.stdout.read().split()]
    saved = reopened(path)
    assert len(saved.entries) >= max(reported, default=50)
    assert len(saved.entries) == saved.hard_state.commit

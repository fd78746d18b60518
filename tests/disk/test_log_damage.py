"""Real SQLite files, damaged: whatever was done to a log, it is either read as it was or refused by a sentence that
names the file and says what to do. Never with a wrong entry, and never as if it were a new one."""

import random
import shutil
import sqlite3
from pathlib import Path

import pytest

from mesh.disk.log import RaftDisk
from mesh.ports import Saved
from mesh.raft.ready import Configuration, Entry, EntryKind, HardState, Snapshot
from mesh.state.model import CoordinatorState
from mesh.state.snapshot import encode_state
from protocols.errors import StorageError
from protocols.ids import PeerId
from protocols.raft import LOG_FORMAT_NEWEST, LOG_FORMAT_OLDEST

OWNER, OTHER = PeerId("12D3KooWOwner"), PeerId("12D3KooWOther")

FLIPS = 400


async def written(path: Path, format: int, entries: int = 40) -> Saved:
    """A log with all that one can hold, closed."""
    state = encode_state(CoordinatorState(applied=5, mesh="1000.a", format=format))
    with RaftDisk(path, OWNER) as disk:
        await disk.save_snapshot(Snapshot(5, 1, Configuration(voters=(OWNER,)), state))
        for index in range(6, 6 + entries):
            entry = Entry(index, 2, EntryKind.NORMAL, random.Random(index).randbytes(50 + 700 * (index % 7 == 0)))
            await disk.save(HardState(2, OWNER, index - 1), [entry])
        return disk.load()


def outcome(path: Path) -> Saved | str:
    """What is in the log, or the sentence of its refusal."""
    try:
        with RaftDisk(path, OWNER) as disk:
            return disk.load()
    except StorageError as error:
        return str(error)


def check(found: Saved | str, saved: Saved, path: Path) -> bool:
    """Whether it was refused; asserts that it is one or the other."""
    if isinstance(found, Saved):
        assert found == saved, "a damaged log was read as another one"
        return False
    assert str(path) in found
    assert "\n" not in found
    assert any(advice in found for advice in ("remove this home", "use a version", "put each back")), found
    return True


@pytest.mark.parametrize("format", [1, 2])
async def test_a_flipped_bit_anywhere_is_harmless_or_named(tmp_path: Path, format: int) -> None:
    path = tmp_path / "log.sqlite"
    saved = await written(path, format)
    whole = path.read_bytes()
    rng = random.Random(format)
    refused = 0
    for _ in range(FLIPS):
        page = rng.randrange(len(whole) // 4096)
        within = rng.randrange(4096) if rng.random() < 0.5 else rng.randrange(200)  # headers and cell pointers, too
        place = page * 4096 + within
        damaged = bytearray(whole)
        damaged[place] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        refused += check(outcome(path), saved, path)
        path.with_name("log.sqlite-wal").unlink(missing_ok=True)
    assert refused > FLIPS / 4, "the flips hit nothing that matters"


async def test_a_flipped_bit_in_the_write_ahead_file_takes_at_most_its_tail(tmp_path: Path) -> None:
    """There SQLite takes damage for a tail that a crash tore, and drops what follows: the log may be shorter then than
    what was acknowledged (its leader notices, `LogLost`), and is never another one."""
    home = tmp_path / "home"
    path = tmp_path / "crashed" / "log.sqlite"
    states = [Saved(HardState(), None, ())]
    with RaftDisk(home / "log.sqlite", OWNER) as disk:
        for index in range(1, 21):
            await disk.save(HardState(1, OWNER, index - 1), [Entry(index, 1, EntryKind.NORMAL, b"%d" % index)])
            states.append(disk.load())
        shutil.copytree(home, path.parent)
    main, wal = path.read_bytes(), path.with_name("log.sqlite-wal").read_bytes()
    rng = random.Random(3)
    shorter = 0
    for _ in range(FLIPS // 4):
        damaged = bytearray(wal)
        damaged[rng.randrange(len(wal))] ^= 1 << rng.randrange(8)
        path.write_bytes(main)
        path.with_name("log.sqlite-wal").write_bytes(damaged)
        found = outcome(path)
        if isinstance(found, Saved):
            assert found in states
            shorter += found != states[-1]
        else:
            check(found, states[-1], path)
    assert shorter > FLIPS / 20, "the flips hit nothing that matters"


async def test_a_shortened_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    saved = await written(path, 2)
    whole = path.read_bytes()
    for size in [0, 1, 99, 100, 4095, *range(4096, len(whole), 4096), len(whole) - 1]:
        path.write_bytes(whole[:size])
        assert check(outcome(path), saved, path), f"{size} of {len(whole)} bytes were taken for the log"
    path.write_bytes(whole)
    assert outcome(path) == saved


async def test_a_file_that_is_gone_while_its_last_writes_are_there_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    with RaftDisk(path, OWNER) as disk:
        await disk.save(HardState(1, OWNER), [Entry(1, 1, EntryKind.NOOP, b"")])
        shutil.copytree(tmp_path, tmp_path / "crashed")
    path = tmp_path / "crashed" / "log.sqlite"
    path.unlink()
    found = outcome(path)
    assert isinstance(found, str)
    assert f"{path} is damaged: it is gone" in found


@pytest.mark.parametrize("format", [1, 2])
@pytest.mark.parametrize("row", ["hard state", "snapshot", "owner"])
async def test_a_row_that_is_missing_is_refused(tmp_path: Path, format: int, row: str) -> None:
    """But for the owner in format 1, which did not know it: it is adopted, once."""
    path = tmp_path / "log.sqlite"
    saved = await written(path, format)
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM values_ WHERE name = ?", (row,))
    connection.close()
    found = outcome(path)
    if (format, row) == (1, "owner"):
        assert found == saved
    else:
        assert check(found, saved, path)


async def test_the_log_of_another_node_is_refused(tmp_path: Path) -> None:
    """Two nodes with each other's logs would vote twice."""
    path = tmp_path / "log.sqlite"
    await written(path, 2)
    with pytest.raises(StorageError) as caught, RaftDisk(path, OTHER) as disk:
        disk.load()
    assert str(caught.value) == (
        f"{path} is the log of node {OWNER}, and this home is that of {OTHER}: put each back where it was"
    )
    with RaftDisk(path) as disk:
        assert disk.load().snapshot is not None, "a reader to whom that is all the same"


async def test_a_newer_format_is_refused_by_file_and_by_row(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    await written(path, 2)
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA user_version = {LOG_FORMAT_NEWEST + 1}")
    connection.close()
    assert outcome(path) == (
        f"{path} has format {LOG_FORMAT_NEWEST + 1}, and this version reads format {LOG_FORMAT_OLDEST} to "
        f"{LOG_FORMAT_NEWEST}: use a version of this program that does"
    )


async def test_a_first_start_that_was_cut_short_leaves_nothing_in_the_way(tmp_path: Path) -> None:
    path = tmp_path / "log.sqlite"
    path.with_name("log.sqlite.new").write_bytes(b"half a page")
    assert outcome(path) == Saved(HardState(), None, ())
    assert not path.with_name("log.sqlite.new").exists()

"""Snapshots of a mesh, and meshes founded anew from them or from what one node has left."""

from pathlib import Path

import pytest
import trio

from mesh.disk.log import LOG_FILE, RaftDisk
from mesh.disk.rescue import StoppedLog, read_snapshot, recover, restore, run_counts, snapshot_of, stopped_log
from mesh.ports import Saved
from mesh.raft.ready import Configuration, Entry, EntryKind, HardState, Snapshot
from mesh.state.apply import apply
from mesh.state.invariants import check
from mesh.state.model import CoordinatorState
from mesh.state.rebirth import GENERATION_ENTRIES, reborn
from mesh.state.results import Rejected
from mesh.state.snapshot import encode_state
from protocols.codec import encode
from protocols.commands import (
    Collected,
    Command,
    Complete,
    Found,
    Grant,
    Register,
    Submit,
    TaskRange,
)
from protocols.errors import StorageError, UsageError
from protocols.ids import Cid, LeaseId, PeerId, RunId, TestIndex
from protocols.manifests import Outcome, RunSpec
from protocols.membership import mesh_age
from protocols.raft import LOG_FORMAT_NEWEST

ME, B, C = PeerId("12D3KooWMe"), PeerId("12D3KooWB"), PeerId("12D3KooWC")
OLD = "1000.12D3KooWMe"
SPEC = RunSpec(Cid("bafybundle"), "suite", "suite", ME)
PASSED = bytes([Outcome.PASSED.code])

STORY: list[Command] = [
    Register(B, "b", 1, 2),
    Submit(b"first", SPEC, 10.0),
    Grant(RunId(4), B, 1, ()),
    Collected(LeaseId(5), Cid("bafymanifest"), 10, (TaskRange(0, 6), TaskRange(6, 4))),
    Grant(RunId(4), B, 1, (TaskRange(0, 6),)),
    Complete(LeaseId(7), Cid("bafychunk"), (TestIndex(0), TestIndex(2)), PASSED * 2, (5, 7)),
    Submit(b"second", SPEC, 20.0),
    Grant(RunId(9), B, 1, ()),
]
"""From index 3 on: a run with two verdicts of ten and four tests leased, and one that is being collected."""


def home_of(path: Path) -> Path:
    """A home with the story in its log, the last entries of it not known to be committed."""
    path.mkdir()
    trio.run(write, path)
    return path


async def write(home: Path) -> None:
    founding = CoordinatorState()
    apply(founding, 1, Found(OLD))
    with RaftDisk(home / LOG_FILE, ME) as disk:
        await disk.save_snapshot(Snapshot(1, 1, Configuration(voters=(B, C, ME)), encode_state(founding)))
        entries = [Entry(2, 2, EntryKind.NOOP, b"")]
        entries += [Entry(index, 2, EntryKind.NORMAL, encode(each)) for index, each in enumerate(STORY, start=3)]
        await disk.save(HardState(3, B, 8), entries)


def file_of(log: StoppedLog, path: Path) -> Path:
    path.write_bytes(snapshot_of(log, 123.0))
    return path


def checked_rebirth(state: CoordinatorState) -> None:
    """What holds of the story in a new mesh."""
    check(state)
    assert mesh_age(state.mesh) > mesh_age(OLD)
    assert state.mesh.endswith(ME)
    assert (state.leases, state.applied) == ({}, GENERATION_ENTRIES)
    first, second = state.runs[RunId(4)], state.runs[RunId(9)]
    assert (first.done, first.leased, first.pending_tests, first.state) == (2, 0, 8, "running")
    assert [first.outcomes[test] for test in (0, 2)] == list(PASSED * 2)
    assert all(task.losses == 0 for task in first.pending), "no fault of the tests"
    assert (second.state, second.collect_losses) == ("queued", 0)
    assert run_counts(state) == {"runs": 2, "open_runs": 2, "verdicts": 2}
    late = apply(state, state.applied + 1, Complete(LeaseId(7), Cid("bafy"), (TestIndex(1),), PASSED, (1,)))
    assert isinstance(late, Rejected), "a lease of the old mesh counts for nothing"
    assert apply(state, state.applied + 1, Submit(b"first", SPEC, 1.0)).run == 4, "a submission is known again"


def test_a_stopped_home_is_saved_and_restored(tmp_path: Path) -> None:
    home = home_of(tmp_path / "old")
    with stopped_log(home, ME) as log:
        assert (log.index, log.term, log.unconfirmed) == (10, 2, 2)
        file = file_of(log, tmp_path / "snapshot")
    snapshot, state = read_snapshot(file)
    assert (snapshot.mesh, snapshot.index, snapshot.term, snapshot.voters) == (OLD, 10, 2, (B, C, ME))
    assert (snapshot.taken_at, snapshot.taken_on, snapshot.unconfirmed, snapshot.log_format) == (123.0, ME, 2, 1)
    fresh = tmp_path / "new"
    fresh.mkdir()
    name = restore(fresh, ME, snapshot, state)
    with stopped_log(fresh, ME) as founded:
        assert founded.state.mesh == name
        assert (founded.configuration, founded.term) == (Configuration(voters=(ME,)), 3)
        assert founded.unconfirmed == 0
        assert founded.state.format == LOG_FORMAT_NEWEST
        checked_rebirth(founded.state)


def test_a_home_with_a_log_is_never_restored_over(tmp_path: Path) -> None:
    home = home_of(tmp_path / "old")
    with stopped_log(home, ME) as log:
        before, file = log.saved, file_of(log, tmp_path / "snapshot")
    snapshot, state = read_snapshot(file)
    with pytest.raises(UsageError, match="holds the log of a mesh already: name a fresh --home"):
        restore(home, ME, snapshot, state)
    assert loaded(home) == before


def test_what_a_node_kept_that_was_about_to_join_is_no_log(tmp_path: Path) -> None:
    home = home_of(tmp_path / "old")
    with stopped_log(home, ME) as log:
        snapshot, state = read_snapshot(file_of(log, tmp_path / "snapshot"))
    joining = tmp_path / "joining"
    joining.mkdir()
    with RaftDisk(joining / LOG_FILE, C) as disk:
        trio.run(disk.save, HardState(9, None, 0), [])
    with pytest.raises(UsageError, match="was about to join"), stopped_log(joining, C):
        raise AssertionError
    restore(joining, C, snapshot, state)
    with stopped_log(joining, C) as log:
        assert log.configuration.voters == (C,)
    assert (joining / f"{LOG_FILE}.1").exists()


def test_the_last_survivor_is_recovered_in_its_place(tmp_path: Path) -> None:
    """With the entries that no majority is known to have: they may have been committed, and are nowhere else."""
    home = home_of(tmp_path / "old")
    before = loaded(home)
    with stopped_log(home, ME) as log:
        name, kept = recover(log)
    assert kept == home / f"{LOG_FILE}.1"
    with RaftDisk(kept) as disk:
        assert disk.load() == before
    with stopped_log(home, ME) as log:
        assert log.state.mesh == name
        assert log.configuration == Configuration(voters=(ME,))
        assert log.term == 4, "above every term that this node promised anything in"
        checked_rebirth(log.state)


def test_a_recovery_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = home_of(tmp_path / "old")
    before = loaded(home)

    def full(disk: RaftDisk, target: Path) -> None:
        raise StorageError("no room")

    monkeypatch.setattr(RaftDisk, "copy_to", full)
    with stopped_log(home, ME) as log, pytest.raises(StorageError):
        recover(log)
    assert loaded(home) == before


def test_every_generation_has_indexes_of_its_own(tmp_path: Path) -> None:
    home = home_of(tmp_path / "old")
    names = {OLD}
    for generation in range(1, 4):
        with stopped_log(home, ME) as log:
            names.add(recover(log)[0])
        with stopped_log(home, ME) as log:
            assert log.index == log.state.applied == generation * GENERATION_ENTRIES
    assert len(names) == 4


def test_a_mesh_that_gave_way_can_be_founded_anew() -> None:
    state = reborn(CoordinatorState(applied=5, mesh=OLD, yielded="7.other"), "2000.me", 5)
    assert (state.yielded, state.mesh) == ("", "2000.me")


def test_a_wrong_or_damaged_file_is_told_by_name(tmp_path: Path) -> None:
    home = home_of(tmp_path / "old")
    with stopped_log(home, ME) as log:
        file = file_of(log, tmp_path / "snapshot")
    whole = file.read_bytes()
    for damaged, said in [
        (b"", "is no snapshot of a mesh"),
        (b"PK\x03\x04" * 50, "is no snapshot of a mesh"),
        (whole[:-1], "is damaged or not whole"),
        (whole[:40], "is damaged or not whole"),
        (whole + b"x", "is damaged or not whole"),
        (whole.replace(b"mesh snapshot 1", b"mesh snapshot 2"), "is a snapshot of version 2"),
    ]:
        file.write_bytes(damaged)
        with pytest.raises(UsageError) as caught:
            read_snapshot(file)
        assert f"{file} {said}" in str(caught.value)
    for place in range(len(whole)):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(UsageError, match=str(file)):
            read_snapshot(file)
    with pytest.raises(UsageError, match="missing can't be read: No such file"):
        read_snapshot(tmp_path / "missing")


def loaded(home: Path) -> Saved:
    with RaftDisk(home / LOG_FILE) as disk:
        return disk.load()

"""A rolling upgrade: old and new nodes in one mesh, the format of the log raised when all can read it, and a log that
the version before this one wrote (`tests/disk/data/format-1.*`, made by it: a run that ended, and one under way)."""

import json
import random
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import trio

from mesh import autopilot
from mesh.consensus import Consensus
from mesh.disk.log import LOG_FILE, RaftDisk
from mesh.disk.rescue import stopped_log
from mesh.log_home import LogHome
from mesh.state.apply import apply
from mesh.state.model import CoordinatorState
from mesh.state.replay import command_of, state_of
from mesh.state.results import Applied, Rejected
from mesh.state.snapshot import Versioned, decode_state, encode_state, format_of
from protocols.codec import encode
from protocols.commands import RaiseFormat, Register
from protocols.errors import RemoteProtocolError, StorageError
from protocols.ids import PeerId
from protocols.raft import LOG_FORMAT_NEWEST, Configuration, Entry, EntryKind, Snapshot
from tests.fakes.network import Lan
from tests.fakes.waiting import until
from tests.membership.mesh_rig import Rig, rig

DATA = Path(__file__).resolve().parents[1] / "disk" / "data"
GOLDEN: dict[str, Any] = json.loads((DATA / "format-1.json").read_text())
PEER = PeerId(GOLDEN["peer"])
NEXT = LOG_FORMAT_NEWEST + 1
"""A format that only a version after this one reads."""
TOO_NEW = rf"format {NEXT}, and this version reads 1 to {LOG_FORMAT_NEWEST}\): update"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home as the version before this one left it when it was killed in the middle of a run."""
    shutil.copy(DATA / "format-1.sqlite", tmp_path / LOG_FILE)
    return tmp_path


def stamped(home: Path) -> int:
    with sqlite3.connect(home / LOG_FILE) as connection:
        found: int = connection.execute("PRAGMA user_version").fetchone()[0]
    connection.close()
    return found


def runs_of(state: CoordinatorState) -> dict[str, dict[str, object]]:
    return {
        str(run.id): {"state": run.state, "tests": run.tests, "done": run.done, "outcomes": run.outcomes.hex()}
        for run in state.runs.values()
    }


def test_a_log_of_the_version_before_is_read_as_it_was_written(home: Path) -> None:
    with stopped_log(home, PEER) as log:
        assert (log.state.mesh, log.term, log.index) == (GOLDEN["mesh"], GOLDEN["term"], GOLDEN["last_index"])
        assert log.saved.hard_state.commit == GOLDEN["commit"]
        assert runs_of(log.state) == GOLDEN["runs"]
        assert sorted(log.state.leases) == GOLDEN["leases"]
        assert log.state.format == 1
    assert stamped(home) == 1, "the version before this one can be put back"


async def test_a_log_of_the_version_before_goes_on_in_the_new_format(home: Path) -> None:
    """On a real disk, so on the real clock."""
    with RaftDisk(home / LOG_FILE, PEER) as disk:
        async with Lan().node(PEER) as network, trio.open_nursery() as nursery:
            mesh = await LogHome(network=network, disk=disk, rng=random.Random(0)).resume()
            member = Consensus(mesh=mesh, network=network, disk=disk, rng=random.Random(0), snapshot_entries=3)
            nursery.start_soon(member.run)
            await until(lambda: member.is_leader)
            await member.propose_many([Register(PeerId(f"w{n}"), f"w{n}", 1, 1) for n in range(5)])
            await until(lambda: member.status().snapshot_index > GOLDEN["last_index"])
            snapshot = disk.load().snapshot
            assert snapshot is not None
            assert format_of(snapshot.data) == disk.format == 1, "nothing is written that only the new version reads"
            assert isinstance((await member.propose(RaiseFormat(2))).result, Applied)
            await member.propose_many([Register(PeerId(f"v{n}"), f"v{n}", 1, 1) for n in range(5)])
            await until(lambda: disk.format == 2)
            nursery.cancel_scope.cancel()
    assert stamped(home) == 2
    with stopped_log(home, PEER) as log:
        assert runs_of(log.state) == GOLDEN["runs"]
        assert log.state.format == 2
        assert len(log.state.workers) == 11


def test_the_format_is_raised_and_never_lowered() -> None:
    state = CoordinatorState(mesh="1000.a")
    assert isinstance(apply(state, 2, RaiseFormat(2)), Applied)
    assert isinstance(apply(state, 3, RaiseFormat(2)), Rejected)
    assert isinstance(apply(state, 4, RaiseFormat(1)), Rejected)
    assert state.format == 2
    assert decode_state(encode_state(state)) == state


def test_what_is_newer_stops_a_node_with_a_sentence() -> None:
    entry = Entry(7, 1, EntryKind.NORMAL, encode(RaiseFormat(NEXT)))
    with pytest.raises(StorageError, match=f"entry 7 .*{TOO_NEW}"):
        command_of(entry)
    newer = encode(Versioned(NEXT, b"whatever it will be"))
    assert format_of(newer) == NEXT
    with pytest.raises(StorageError, match=f"snapshot at 9 .*{TOO_NEW}"):
        state_of(Snapshot(9, 1, Configuration(), newer))
    with pytest.raises(RemoteProtocolError, match="format 0"):
        decode_state(encode(Versioned(0, b"")))


@pytest.mark.parametrize("data", [b"", b"\x83", encode(Versioned(2, b""))[:12], b"\x83" + b"k" + b"s.versioned", b"x"])
def test_the_format_of_anything_can_be_asked(data: bytes) -> None:
    assert format_of(data) in (1, 2)


def test_a_format_is_due_when_every_member_reads_it() -> None:
    a, b = PeerId("a"), PeerId("b")
    assert autopilot.format_due(1, [a, b], {a: 2, b: 2}) == 2
    assert autopilot.format_due(1, [a, b], {a: 2, b: 9}) == 2, "nobody reads a newer one than the oldest node"
    assert autopilot.format_due(1, [a, b], {a: 9, b: 9}) == LOG_FORMAT_NEWEST, (
        "no newer one than this node itself reads"
    )
    assert autopilot.format_due(1, [a, b], {a: 2, b: 1}) is None
    assert autopilot.format_due(1, [a, b], {a: 2}) is None, "who is away may come back as what it was"
    assert autopilot.format_due(2, [a, b], {a: 2, b: 1}) is None


PROGRAM = ("mesh.presence", "mesh.log_home", "mesh.autopilot")
"""What differs in a node of the version before: what it tells, founds and raises."""


def older(patch: pytest.MonkeyPatch) -> None:
    for module in PROGRAM:
        patch.setattr(f"{module}.LOG_FORMAT_NEWEST", 1)


def formats(mesh: Rig) -> dict[str, int]:
    return {peer: node.log.state.format for peer, node in mesh.nodes.items() if node.group is not None}


async def test_a_rolling_upgrade(autojump_clock: object, caplog: pytest.LogCaptureFixture) -> None:
    async with rig() as mesh:
        with pytest.MonkeyPatch.context() as patch:
            older(patch)
            for peer in "abc":
                await mesh.start(peer, knows="a")
            await mesh.formed()
            await until(lambda: mesh.voters() == {"a", "b", "c"})
        for peer in "cb":
            assert formats(mesh) == {"a": 1, "b": 1, "c": 1}
            await mesh.crash(peer)
            await mesh.start(peer, knows="abc")
            await mesh.formed()
            await trio.sleep(5)
            assert set(formats(mesh).values()) == {1}, "one of them is not upgraded yet"
        await mesh.crash("a")
        await mesh.start("a", knows="bc")
        await until(lambda: formats(mesh) == dict.fromkeys("abc", LOG_FORMAT_NEWEST))
        with pytest.MonkeyPatch.context() as patch:
            older(patch)
            await mesh.start("d", knows="a")
        await until(lambda: mesh.nodes["d"].settled == mesh.nodes["a"].settled)
        await trio.sleep(12)
        assert mesh.nodes["d"].group is None, "it works without a log, which it could not read"
        assert f"d can't read the log, in format {LOG_FORMAT_NEWEST}: update that node" in caplog.text
        await mesh.crash("d")
        await mesh.start("d", knows="a")
        await until(lambda: mesh.nodes["d"].group is not None)

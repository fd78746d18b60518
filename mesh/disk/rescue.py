"""What an operator does to the log of a node that is stopped: look at it, save a snapshot of it, found a mesh anew.

The home's lock is held all the while, so no node can run on it. Each change is one transaction on a file that was
checked whole before; a failure at any point leaves the home as it was.

The state is that after the last entry of the log, also where a majority is not known to have had it: what was committed
is among them if this node had it at all, and the commit index on disk may be behind (it is saved beside later entries).
Consul's recovery does the same; etcd's drops the tail, and with it what the node alone was able to save.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import trio

from mesh.disk.log import LOG_FILE, RaftDisk
from mesh.ports import Saved
from mesh.raft.log import RaftLog
from mesh.state.model import CoordinatorState, RunPhase
from mesh.state.rebirth import reborn
from mesh.state.replay import replay
from mesh.state.snapshot import decode_state, encode_state, snapshot_file
from protocols.errors import RemoteProtocolError, UsageError
from protocols.ids import PeerId
from protocols.membership import mesh_name
from protocols.raft import Configuration, HardState, Snapshot
from protocols.snapshots import MeshSnapshot, unpack

EMPTY = Saved(HardState(), None, ())


@dataclass(frozen=True, slots=True)
class StoppedLog:
    """The log of a node that does not run."""

    peer: PeerId
    disk: RaftDisk
    saved: Saved
    state: CoordinatorState
    configuration: Configuration
    index: int
    term: int
    """Of the last entry."""

    @property
    def unconfirmed(self) -> int:
        """Entries at the end that no majority is known to have had; none where this node alone is the majority."""
        if self.configuration.voters == (self.peer,) and not self.configuration.outgoing:
            return 0
        start = self.saved.snapshot.index if self.saved.snapshot else 0
        return self.index - max(start, self.saved.hard_state.commit)


@contextmanager
def stopped_log(home: Path, peer: PeerId) -> Iterator[StoppedLog]:
    """The log in a home that the caller has locked. `UsageError` if there is none; `StorageError` if it is damaged."""
    path = home / LOG_FILE
    if not path.exists():
        raise UsageError(f"{home} holds no log of a mesh")
    with RaftDisk(path, peer) as disk:
        saved = disk.load()
        if saved.snapshot is None:
            raise UsageError(f"{home} holds no log of a mesh: its node was about to join one")
        log = RaftLog(saved.snapshot, saved.entries, Configuration())
        state = replay(saved.snapshot, saved.entries)
        yield StoppedLog(peer, disk, saved, state, log.configurations.latest, log.last_index, log.last_term)


def snapshot_of(log: StoppedLog, now: float) -> bytes:
    """The file of `mesh snapshot save`, from a stopped node."""
    made = Snapshot(log.index, log.term, log.configuration, encode_state(log.state))
    return snapshot_file(made, log.state.mesh, log.peer, now, log.unconfirmed)


def read_snapshot(path: Path) -> tuple[MeshSnapshot, CoordinatorState]:
    """A file of `mesh snapshot save`, checked whole; `UsageError` names it and says what is wrong."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror or error}") from None
    return read_bytes(data, str(path))


def read_bytes(data: bytes, name: str) -> tuple[MeshSnapshot, CoordinatorState]:
    """The same for what such a file holds."""
    snapshot = unpack(data, name)
    try:
        return snapshot, decode_state(snapshot.state)
    except RemoteProtocolError as error:
        raise UsageError(f"{name} can't be restored ({error}): update this program") from None


def restore(home: Path, peer: PeerId, snapshot: MeshSnapshot, state: CoordinatorState) -> str:
    """Found a mesh from `state` in a locked home without a log; its name."""
    with RaftDisk(home / LOG_FILE, peer) as disk:
        saved = disk.load()
        if saved.snapshot is not None:
            raise UsageError(f"{home} holds the log of a mesh already: name a fresh --home")
        if saved != EMPTY:  # what a node kept that was about to join a mesh
            trio.run(disk.set_aside)
        return _found(disk, peer, state, snapshot.index, snapshot.term)


def recover(log: StoppedLog) -> tuple[str, Path]:
    """Found a mesh from the log's own state, in its place; its name, and where the log as it was is kept."""
    copy = log.disk.keep_copy()
    return _found(log.disk, log.peer, log.state, log.index, max(log.term, log.saved.hard_state.term)), copy


def _found(disk: RaftDisk, peer: PeerId, state: CoordinatorState, index: int, term: int) -> str:
    name = mesh_name(time.time_ns(), peer)
    reborn(state, name, index)
    founding = Snapshot(state.applied, term + 1, Configuration(voters=(peer,)), encode_state(state))
    trio.run(disk.save_snapshot, founding)
    return name


def run_counts(state: CoordinatorState) -> dict[str, int]:
    """What there is in a state: runs, open ones among them, and verdicts."""
    runs = list(state.runs.values())
    archived = list(state.archive.values())
    return {
        "runs": len(runs) + len(archived),
        "open_runs": sum(run.phase is not RunPhase.FINISHED for run in runs),
        "verdicts": sum(run.done for run in runs) + sum(sum(each.counts) for each in archived),
    }

"""Two messages that say less than they seem to: a snapshot that comes late, and a probe that carries a commit index."""

import random
from collections.abc import Sequence

from mesh.raft.raft import Raft, RaftOptions
from mesh.raft.ready import Configuration, Entry, EntryKind, HardState, Outgoing, Snapshot
from protocols.ids import PeerId
from protocols.raft import AppendEntries, AppendReply, InstallSnapshot

A, B = PeerId("a"), PeerId("b")
BOTH = Configuration(voters=(A, B))


def core(snapshot: Snapshot, entries: Sequence[Entry] = ()) -> Raft:
    return Raft(
        peer=A,
        options=RaftOptions(),
        rng=random.Random(1),
        hard_state=HardState(2, None, snapshot.index),
        snapshot=snapshot,
        entries=entries,
        configuration=Configuration(),
    )


def test_a_late_snapshot_takes_nothing_back() -> None:
    """Its member has compacted what it covers, and can't compare it with its log."""
    raft = core(Snapshot(10, 2, BOTH, b"ten"))
    raft.step(B, InstallSnapshot(2, 5, 1, BOTH, 0, b"five", True))
    ready = raft.ready()
    assert ready.snapshot is None
    assert ready.messages_after_sync == (Outgoing(B, AppendReply(2, 10)),)
    assert (raft.status().commit, raft.status().snapshot_index) == (10, 10)


def test_a_probe_commits_only_what_it_matched() -> None:
    """What stands behind the matching entry may be another leader's, whatever index is committed."""
    tail = [Entry(index, 2, EntryKind.NORMAL, b"of another leader") for index in (5, 6)]
    raft = core(Snapshot(3, 1, BOTH, b"three"), [Entry(4, 1, EntryKind.NORMAL, b"four"), *tail])
    raft.step(B, AppendEntries(3, 4, 1, (), 6))
    assert raft.status().commit == 4
    assert raft.ready().messages_after_sync == (Outgoing(B, AppendReply(3, 4)),)

"""A snapshot that comes late, at a member that has compacted what it covers, and can't compare it with its log."""

import random

from mesh.raft.raft import Raft, RaftOptions
from mesh.raft.ready import Configuration, HardState, Outgoing, Snapshot
from protocols.ids import PeerId
from protocols.raft import AppendReply, InstallSnapshot

A, B = PeerId("a"), PeerId("b")
BOTH = Configuration(voters=(A, B))


def test_a_late_snapshot_takes_nothing_back() -> None:
    raft = Raft(
        peer=A,
        options=RaftOptions(),
        rng=random.Random(1),
        hard_state=HardState(2, None, 10),
        snapshot=Snapshot(10, 2, BOTH, b"ten"),
        entries=(),
        configuration=Configuration(),
    )
    raft.step(B, InstallSnapshot(2, 5, 1, BOTH, 0, b"five", True))
    ready = raft.ready()
    assert ready.snapshot is None
    assert ready.messages_after_sync == (Outgoing(B, AppendReply(2, 10)),)
    assert (raft.status().commit, raft.status().snapshot_index) == (10, 10)

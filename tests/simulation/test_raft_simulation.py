"""Lives of simulated groups, a seed each; and that the simulator would notice if a fence of the core were missing."""

from collections.abc import Callable

import pytest
from raft_chaos import run
from raft_rig import Medium, Node, Rig

from mesh.raft.errors import LogLost
from mesh.raft.leader import Leader
from mesh.raft.log import RaftLog
from mesh.raft.reads import Read
from mesh.raft.ready import HardState, Ready
from mesh.raft.replication import Replication
from protocols.errors import RemoteProtocolError
from protocols.ids import PeerId
from protocols.raft import Entry


@pytest.mark.parametrize("seed", range(20))
def test_a_group_stays_safe_and_recovers(seed: int) -> None:
    rig = run(seed)
    assert max(rig.committed) > 3
    assert rig.reads_served > 0


def count_own_copy_unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Replication.acknowledged

    def acknowledged(self: Replication) -> dict[PeerId, int]:
        return real(self) | {self.member.peer: self.member.log.last_index}

    monkeypatch.setattr(Replication, "acknowledged", acknowledged)


def answer_before_the_sync(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Rig._check_entries

    def check_entries(self: Rig, node: Node, ready: Ready) -> None:
        real(self, node, ready)
        self._send(node, ready.messages_after_sync)

    monkeypatch.setattr(Rig, "_check_entries", check_entries)


def forget_votes(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Medium.save

    def save(self: Medium, hard_state: HardState | None, entries: tuple[Entry, ...]) -> None:
        real(self, hard_state and HardState(hard_state.term, None, hard_state.commit), entries)

    monkeypatch.setattr(Medium, "save", save)


def vote_for_any_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RaftLog, "up_to_date", lambda self, last_index, last_term: True)


def read_without_a_quorum(monkeypatch: pytest.MonkeyPatch) -> None:
    def enqueue(self: Leader, read: Read) -> None:
        self._answer(read, self.member.log.committed)

    monkeypatch.setattr(Leader, "_enqueue", enqueue)


def read_before_the_no_op(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Leader, "_established", property(lambda self: True))


@pytest.mark.parametrize(
    "fence",
    [
        count_own_copy_unsynced,
        answer_before_the_sync,
        forget_votes,
        vote_for_any_log,
        read_without_a_quorum,
        read_before_the_no_op,
    ],
    ids=lambda fence: fence.__name__,
)
def test_a_missing_fence_is_noticed(
    fence: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fence(monkeypatch)
    with pytest.raises((AssertionError, LogLost, RemoteProtocolError)):
        _run_many(60)


def _run_many(count: int) -> None:
    for seed in range(count):
        run(seed)

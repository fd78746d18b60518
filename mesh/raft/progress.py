"""What a leader knows of one member, and how fast it may send to it (etcd's tracker; thesis, section 10.2.1).

Three ways of sending, each with its own fields:
- Probing: the end of the common log is not known. One message, then wait for its answer (or for a heartbeat's).
- Replicating: it is known. Optimistic sending, bounded in messages and bytes in flight.
- Installing: the log lacks what the member needs. A snapshot, one chunk in flight.

Invariant: `match` < `next`, and `match` only grows, since it stands for what the member has on disk.
"""

from collections import deque
from dataclasses import dataclass, field

from protocols.raft import Snapshot


@dataclass(slots=True)
class Probing:
    waiting: bool = False


@dataclass(slots=True)
class Replicating:
    inflight: deque[tuple[int, int]] = field(default_factory=deque)
    """(last index, bytes) of each unanswered message, oldest first."""
    inflight_bytes: int = 0

    def sent(self, index: int, size: int) -> None:
        self.inflight.append((index, size))
        self.inflight_bytes += size

    def answered(self, match: int) -> None:
        """Everything up to `match` arrived."""
        while self.inflight and self.inflight[0][0] <= match:
            self.drop_oldest()

    def drop_oldest(self) -> None:
        self.inflight_bytes -= self.inflight.popleft()[1]


@dataclass(slots=True)
class Installing:
    snapshot: Snapshot
    offset: int = 0
    """Bytes that the member has."""
    waiting_ticks: int | None = None
    """Since the chunk at `offset` left; None: it has not."""


@dataclass(slots=True)
class Progress:
    next: int
    """Index of the next entry to send."""
    match: int = 0
    """The member's log is the leader's up to here, on the member's disk."""
    flow: Probing | Replicating | Installing = field(default_factory=Probing)
    silent_ticks: int = 0
    """Since the member was last heard."""
    round: int = 0
    """The newest round of reads that it answered."""
    told_commit: int = 0
    """The largest commit index sent with entries that it has."""

    def acknowledged(self, match: int) -> bool:
        """Whether that was news."""
        news = match > self.match
        self.match = max(self.match, match)
        self.next = max(self.next, match + 1)
        return news

    def refused(self, previous_index: int, hint_index: int) -> bool:
        """The member lacks `previous_index`: go back to its hint. False: an answer that came late."""
        if isinstance(self.flow, Replicating):
            if previous_index <= self.match:
                return False
            self.probe()
            return True
        if self.next - 1 != previous_index:
            return False
        self.next = max(min(previous_index, hint_index + 1), self.match + 1)
        self.flow = Probing()
        return True

    def probe(self) -> None:
        self.flow = Probing()
        self.next = self.match + 1

    def replicate(self) -> None:
        self.flow = Replicating()
        self.next = self.match + 1

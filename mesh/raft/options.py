"""Bounds and times of a Raft member."""

from dataclasses import dataclass

from protocols.raft import CHUNK_BYTES_MAX, ENTRY_BYTES_MAX

TICK_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class RaftOptions:
    heartbeat_ticks: int = 3
    election_ticks: int = 20
    """Silence after which a leader counts as gone; also how long a leader lasts without a quorum, and a transfer of
    leadership may take."""
    jitter_ticks: int = 20
    """The election timer runs for `election_ticks` and 0 to this many more."""
    suspect_ticks: int = 2
    """The election timer runs for 1 to this many, once the leader's process is seen to have died."""
    turn_ticks: int = 5
    """And for this many more for each voter before this one, by ID. All see the death in the same moment: timers that
    only chance keeps apart would meet every few times, and a split vote costs a timeout. Longer than an election takes
    on a busy machine: four messages and two syncs."""
    hang_ticks: int = 60
    """A `Ready` that is not done by then has a hung disk behind it. Longer than an election: a slow save beside which
    heartbeats leave is no reason to change the leader, since the others' copies commit."""
    append_bytes_max: int = 256 * 1024
    """Entries in one message; a single larger entry travels alone."""
    inflight_messages_max: int = 64
    """Unanswered `AppendEntries` to one member."""
    inflight_bytes_max: int = 4 * 1024 * 1024
    """Entries in unanswered `AppendEntries` to one member."""
    uncommitted_bytes_max: int = 8 * 1024 * 1024
    """Proposed entries that are not committed."""
    committed_bytes_max: int = 1024 * 1024
    """Committed entries in one `Ready`; a single larger entry comes alone."""
    entry_bytes_max: int = ENTRY_BYTES_MAX
    chunk_bytes: int = CHUNK_BYTES_MAX
    """Of a snapshot, in one message."""
    snapshot_bytes_max: int = 256 * 1024 * 1024
    trailing_entries: int = 256
    """Kept in memory behind a snapshot, so that a member a little behind needs no snapshot."""
    promotion_lag_max: int = 1000
    """Entries that a learner may be behind the commit index when it becomes a voter."""
    reads_max: int = 1024
    """Reads that wait at one member."""

    def __post_init__(self) -> None:
        if not 1 <= self.heartbeat_ticks < self.election_ticks:
            raise ValueError("heartbeats must be more frequent than elections")
        if self.suspect_ticks < 1 or self.jitter_ticks < 0 or self.turn_ticks < 0:
            raise ValueError("timers must run for at least a tick")

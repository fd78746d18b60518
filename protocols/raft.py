"""Raft's messages, and what a member keeps on disk (Ongaro & Ousterhout 2014; Ongaro's thesis).

Each message carries the term of its sender at the time of sending, but for `PreVote` and a granted `PreVoteReply`:
theirs is the term that an election would open. The sender itself is known from the connection. One class per message:
a refusal is no acceptance with other fields, so it is a class of its own.

A node may meet members of another mesh under the same swarm key, so what travels is a `GroupMessage`, which names the
mesh; a message of another mesh must never reach the core.
"""

import enum

from protocols.codec import message
from protocols.ids import PeerId

PROTOCOL = "/mesh/raft/1.0.0"

MESSAGE_BYTES_MAX = 512 * 1024
"""Any message of this module, encoded."""

ENTRY_BYTES_MAX = 384 * 1024
"""Data of one log entry."""

CHUNK_BYTES_MAX = 256 * 1024
"""Data of one `InstallSnapshot`."""

LOG_FORMAT_OLDEST, LOG_FORMAT_NEWEST = 1, 5
"""The formats of a log (its entries, its snapshots, its file) that this version reads, and writes where they are in
force. 1: the first one. 2: the log says itself which format it is in, by a command and in each snapshot, so that all
later ones can come while old and new nodes run side by side; its file names the node that it belongs to. 3: leases can
be preempted, a submitter's open runs and tests are limited; tests have needs, locks, devices and dependencies; of a bad
outcome that gets another try it is kept where it was; a test may be leased to a second worker. 4: what the mesh keeps
as content, and where; results are signed; verdicts are reused. 5: alerts, and workers in quarantine; a run names the
trace that it belongs to."""

LOG_FORMAT_CAPABILITY = "log.format"
"""Where a node's presence tells the newest format that it reads; one that does not tell reads the first."""


@message("r.hard")
class HardState:
    """Figure 2's persistent state, and the commit index (an optimisation that may be lost)."""

    term: int = 0
    vote: PeerId | None = None
    commit: int = 0


class EntryKind(enum.IntEnum):
    NORMAL = 0
    CONFIGURATION = 1
    NOOP = 2


@message("r.entry")
class Entry:
    index: int
    term: int
    kind: EntryKind
    data: bytes

    def __post_init__(self) -> None:
        if self.index < 1 or self.term < 1:
            raise ValueError(f"no entry has index {self.index} and term {self.term}")


@message("r.configuration")
class Configuration:
    """Who is in the group. In joint consensus `outgoing` is the old set of voters; otherwise it is empty."""

    voters: tuple[PeerId, ...] = ()
    outgoing: tuple[PeerId, ...] = ()
    learners: tuple[PeerId, ...] = ()


@message("r.snapshot")
class Snapshot:
    """The state machine at `index`, whole, and the configuration there."""

    index: int
    term: int
    configuration: Configuration
    data: bytes


@message("r.append")
class AppendEntries:
    """leader -> member: `entries` follow the one at `previous_index`. None: a probe, or news of the commit index."""

    term: int
    previous_index: int
    previous_term: int
    entries: tuple[Entry, ...]
    commit: int

    def __post_init__(self) -> None:
        if self.previous_index < 0 or self.previous_term < 0:
            raise ValueError("negative position")
        for offset, entry in enumerate(self.entries, start=1):
            if entry.index != self.previous_index + offset:
                raise ValueError(f"entry {entry.index} does not follow {self.previous_index + offset - 1}")


@message("r.append-ok")
class AppendReply:
    """member -> leader: up to `match` my log is yours, on disk."""

    term: int
    match: int


@message("r.append-no")
class AppendRefused:
    """member -> leader: I have no entry at `previous_index` with that term; look at `hint_index` (section 5.3)."""

    term: int
    previous_index: int
    hint_index: int
    hint_term: int


@message("r.heartbeat")
class Heartbeat:
    """leader -> member. `commit` is within what the member acknowledged. `round` numbers rounds of reads."""

    term: int
    commit: int
    round: int


@message("r.heartbeat-ok")
class HeartbeatReply:
    term: int
    round: int


@message("r.prevote")
class PreVote:
    """Would you vote for me in `term`? Changes nothing at the receiver (thesis, section 9.6)."""

    term: int
    last_index: int
    last_term: int


@message("r.prevote-answer")
class PreVoteReply:
    term: int
    granted: bool


@message("r.vote")
class Vote:
    """`transfer`: the leader itself asked for this election, so that being loyal to it is no reason to refuse."""

    term: int
    last_index: int
    last_term: int
    transfer: bool


@message("r.vote-answer")
class VoteReply:
    term: int
    granted: bool


@message("r.install")
class InstallSnapshot:
    """leader -> member: `data` at `offset` of the snapshot at `index`; `done` with the last of it."""

    term: int
    index: int
    snapshot_term: int
    configuration: Configuration
    offset: int
    data: bytes
    done: bool

    def __post_init__(self) -> None:
        if len(self.data) > CHUNK_BYTES_MAX:
            raise ValueError(f"a chunk of {len(self.data)} bytes is over the limit of {CHUNK_BYTES_MAX}")
        if self.index < 1 or self.snapshot_term < 1 or self.offset < 0:
            raise ValueError("no such snapshot")


@message("r.install-answer")
class SnapshotReply:
    """member -> leader: of the snapshot at `index` I have `offset` bytes: go on there."""

    term: int
    index: int
    offset: int


@message("r.timeout-now")
class TimeoutNow:
    """leader -> voter: campaign at once (thesis, section 3.10)."""

    term: int


@message("r.read")
class ReadIndex:
    """member -> leader: which index must I have applied, to read what is true now?"""

    term: int
    context: int


@message("r.read-answer")
class ReadIndexReply:
    term: int
    context: int
    index: int


@message("r.stale")
class StaleTerm:
    """Any member -> a leader of an earlier term: there is a newer term. Without it, a member whose term ran ahead
    could never be reached again by a leader that does not hear of that term."""

    term: int


RaftMessage = (
    AppendEntries
    | AppendReply
    | AppendRefused
    | Heartbeat
    | HeartbeatReply
    | PreVote
    | PreVoteReply
    | Vote
    | VoteReply
    | InstallSnapshot
    | SnapshotReply
    | TimeoutNow
    | ReadIndex
    | ReadIndexReply
    | StaleTerm
)

RAFT_MESSAGES = (
    AppendEntries,
    AppendReply,
    AppendRefused,
    Heartbeat,
    HeartbeatReply,
    PreVote,
    PreVoteReply,
    Vote,
    VoteReply,
    InstallSnapshot,
    SnapshotReply,
    TimeoutNow,
    ReadIndex,
    ReadIndexReply,
    StaleTerm,
)


@message("r.group")
class GroupMessage:
    """What is sent: a message, and the mesh (identity of its log) that it belongs to."""

    mesh: str
    message: RaftMessage

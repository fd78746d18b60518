"""What a member has in every role: its log, term and vote, its timer, and what waits to be handed out.

Roles read and change it; nobody else does. It survives a change of role, whose own fields do not.
"""

import random
from collections.abc import Sequence

from mesh.raft import quorum
from mesh.raft.configuration import is_voter, ordered
from mesh.raft.errors import LogLost
from mesh.raft.log import RaftLog
from mesh.raft.options import RaftOptions
from mesh.raft.ready import Outgoing, ReadState
from protocols.codec import encode
from protocols.ids import PeerId
from protocols.raft import (
    AppendEntries,
    Configuration,
    Entry,
    EntryKind,
    HardState,
    Heartbeat,
    InstallSnapshot,
    PreVoteReply,
    RaftMessage,
    Snapshot,
)

BESIDE_SYNC = (AppendEntries, Heartbeat, InstallSnapshot)
"""They promise nothing of their sender's own disk."""


class Member:
    def __init__(
        self,
        peer: PeerId,
        options: RaftOptions,
        rng: random.Random,
        hard_state: HardState,
        snapshot: Snapshot | None,
        entries: Sequence[Entry],
        configuration: Configuration,
    ) -> None:
        self.peer = peer
        self.options = options
        self.rng = rng
        self.term = hard_state.term
        self.vote = hard_state.vote
        self.leader: PeerId | None = None
        self.departures = 0
        """How often messages were handed out."""
        self.messages: list[Outgoing] = []
        self.messages_after_sync: list[Outgoing] = []
        self.reads: list[ReadState] = []
        self.reads_failed: list[int] = []
        self.snapshot_wanted = False
        """Somebody waits for a newer one."""
        founding = bool(configuration.voters) and snapshot is None and not entries and hard_state == HardState()
        self.log = RaftLog(snapshot, entries, Configuration() if founding else ordered(configuration))
        if founding:
            # Every founder writes this same entry, so that from here on the configuration is a function of the log.
            self.term = 1
            self.log.append([Entry(1, 1, EntryKind.CONFIGURATION, encode(ordered(configuration)))])
        if self.log.last_term > self.term:
            # A snapshot was saved, the hard state beside it was not: nothing was promised in that term yet.
            self.term, self.vote = self.log.last_term, None
        if hard_state.commit > self.log.last_index:
            raise LogLost(
                f"the log ends at {self.log.last_index} although {hard_state.commit} entries were committed here: "
                "the disk lost synced writes, and this node must start again with a fresh home"
            )
        self.log.commit(max(hard_state.commit, self.log.committed))
        self.reset_timer()

    @property
    def configuration(self) -> Configuration:
        return self.log.configurations.latest

    @property
    def electable(self) -> bool:
        """A voter by the committed configuration or a later one. One that an uncommitted entry removed may be the only
        one with that entry, and with the longest log: if it did not campaign, nobody could win (thesis, 4.2.2)."""
        return any(is_voter(each, self.peer) for each in self.log.configurations.since(self.log.committed))

    @property
    def loyal(self) -> bool:
        """Whether a leader was heard within the shortest election timeout: no election is due then (section 6)."""
        return self.leader is not None and self.elapsed < self.options.election_ticks

    @property
    def blank(self) -> bool:
        """Nothing was ever written here. Such a member might be one that lost its disk, and with it a vote."""
        return self.log.last_index == 0

    def send(self, to: PeerId, message: RaftMessage) -> None:
        if isinstance(message, BESIDE_SYNC):
            self.messages = [waiting for waiting in self.messages if not _supersedes(to, message, waiting)]
            self.messages.append(Outgoing(to, message))
        else:
            self.messages_after_sync.append(Outgoing(to, message))

    def enter_term(self, term: int) -> None:
        assert term >= self.term, "terms never fall"
        if term > self.term:
            self.term, self.vote = term, None
            # An answer that waits for its sync may speak of entries that the new leader replaces before that.
            self.messages_after_sync = [sent for sent in self.messages_after_sync if _outlives(sent.message, term)]

    def reset_timer(self) -> None:
        self.elapsed = 0
        self.timeout = self.options.election_ticks + self.rng.randint(0, self.options.jitter_ticks)

    def take_turn(self, gone: PeerId | None, missed: int = 0) -> None:
        """An election is due, and the others know it too: campaign in order of ID, without the leader that is `gone`,
        `missed` turns later than the first. A timer still, since nobody knows who else is gone."""
        rank = missed + sum(peer < self.peer for peer in quorum.voters(self.configuration) if peer != gone)
        self.timeout = self.elapsed + self.rng.randint(1, self.options.suspect_ticks) + rank * self.options.turn_ticks


def _outlives(message: RaftMessage, term: int) -> bool:
    """Whether a message is of use in `term`, which just began."""
    return message.term >= term or isinstance(message, PreVoteReply)


def _supersedes(to: PeerId, message: RaftMessage, waiting: Outgoing) -> bool:
    """Whether `message` tells all that `waiting` does: so heartbeats do not pile up behind a slow save."""
    if waiting.to != to:
        return False
    if isinstance(message, AppendEntries) and isinstance(waiting.message, AppendEntries):
        older, newer = waiting.message, message
        return not older.entries and not newer.entries and older.previous_index == newer.previous_index
    return isinstance(message, Heartbeat) and isinstance(waiting.message, Heartbeat)

"""The core's face: messages, ticks and proposals in, `Ready` out.

Owns the current role and carries out its transitions; sorts messages by term before a role sees them (section 5.1);
answers requests for votes, which are the same in every role.

Invariants: at most one `Ready` is out; what it held is taken as saved at `advance` and not before; nothing is in
`messages_after_sync` of one `Ready` that depends on a later one. Once a save hangs, nothing is counted and no leader
leads: a leader that can't write must make way, however well its network is.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from mesh.raft import voting
from mesh.raft.candidate import Campaign, Candidate, PreCandidate
from mesh.raft.configuration import Change
from mesh.raft.errors import NotLeader
from mesh.raft.follower import Follower
from mesh.raft.leader import Leader
from mesh.raft.member import Member
from mesh.raft.options import RaftOptions
from mesh.raft.ready import Outgoing, Ready
from mesh.raft.roles import (
    BecomeCandidate,
    BecomeFollower,
    BecomeLeader,
    BecomePreCandidate,
    Role,
    RoleName,
    Transition,
)
from protocols.errors import LocalProtocolError
from protocols.ids import PeerId
from protocols.raft import (
    AppendEntries,
    Configuration,
    Entry,
    HardState,
    Heartbeat,
    InstallSnapshot,
    PreVote,
    PreVoteReply,
    RaftMessage,
    Snapshot,
    StaleTerm,
    Vote,
)

__all__ = ["PeerStatus", "Raft", "RaftOptions", "RaftStatus", "RoleName"]

T = TypeVar("T")

FROM_LEADER = (AppendEntries, Heartbeat, InstallSnapshot)


@dataclass(frozen=True, slots=True)
class PeerStatus:
    """What the leader knows of a member."""

    match: int
    """Its log is the leader's up to here."""
    active: bool
    """Heard within an election timeout."""
    silent_ticks: int
    """Since it was last heard."""
    flow: str
    """"probing", "replicating" or "installing"."""


@dataclass(frozen=True, slots=True)
class RaftStatus:
    peer: PeerId
    role: RoleName
    term: int
    leader: PeerId | None
    commit: int
    applied: int
    first_index: int
    """Of the entries in memory."""
    last_index: int
    snapshot_index: int
    configuration: Configuration
    configuration_committed: bool
    transferee: PeerId | None
    peers: Mapping[PeerId, PeerStatus]
    """Of the other members; empty but at the leader."""

    @property
    def voters(self) -> tuple[PeerId, ...]:
        """Those of the configuration that is being entered."""
        return self.configuration.voters

    @property
    def learners(self) -> tuple[PeerId, ...]:
        return self.configuration.learners


@dataclass(frozen=True, slots=True)
class _Out:
    """What the `Ready` that is out promised to save and apply."""

    hard_state: HardState | None
    applied: int


class Raft:
    def __init__(
        self,
        *,
        peer: PeerId,
        options: RaftOptions,
        rng: random.Random,
        hard_state: HardState,
        snapshot: Snapshot | None,
        entries: Sequence[Entry],
        configuration: Configuration,
    ) -> None:
        """From what the disk holds. `configuration` founds a group: its first entry, the same at each founder. It is
        empty for a node that joins, and ignored where there is a log."""
        self._member = Member(peer, options, rng, hard_state, snapshot, entries, configuration)
        self._role: Role = Follower(self._member, None)
        self._saved = hard_state
        self._out: _Out | None = None
        self._hung_ticks = 0

    # Events

    def step(self, sender: PeerId, message: RaftMessage) -> None:
        """A message of this group from a peer. `RemoteProtocolError`: drop it; `LogLost`: stop this node."""
        member = self._member
        if sender == member.peer:
            raise LocalProtocolError("a message to oneself has no place in Raft")
        if isinstance(message, PreVote):
            voting.answer_pre_vote(member, sender, message)
        elif isinstance(message, Vote):
            self._vote(sender, message)
        elif isinstance(message, PreVoteReply) and message.granted:
            self._perform(self._role.step(sender, message))
        elif message.term < member.term:
            if isinstance(message, FROM_LEADER):
                member.send(sender, StaleTerm(member.term))
        else:
            self._current(sender, message)

    def _vote(self, sender: PeerId, message: Vote) -> None:
        member = self._member
        if voting.ignores(member, message):
            return
        if message.term > member.term:
            self._perform(BecomeFollower(message.term, None))
        voting.answer_vote(member, sender, message)

    def _current(self, sender: PeerId, message: RaftMessage) -> None:
        member = self._member
        from_leader = isinstance(message, FROM_LEADER)
        if message.term > member.term or (from_leader and isinstance(self._role, Campaign)):
            self._perform(BecomeFollower(message.term, sender if from_leader else None))
        self._perform(self._role.step(sender, message))

    def tick(self) -> None:
        if self._out is not None:
            self._hung_ticks += 1
        if self._hung_ticks < self._member.options.hang_ticks:
            self._perform(self._role.tick())
        elif isinstance(self._role, Leader):
            self._perform(BecomeFollower(self._member.term, None))

    def quiet_ticks(self) -> int:
        """How many of the next ticks do nothing but count, as long as nothing else happens: they may be given all at
        once, before whatever does. 0 while a `Ready` is out, whose save may hang."""
        return 0 if self._out is not None else self._role.quiet_ticks()

    def propose(self, data: bytes) -> int:
        """The index that the entry will have, if it is committed in this term. `NotLeader`, `Overloaded`."""
        return self.propose_many([data])[0]

    def propose_many(self, batch: Sequence[bytes]) -> list[int]:
        """All in a row, or none."""
        return self._leader().propose(batch)

    def propose_change(self, change: Change) -> int:
        """Change the group, through joint consensus where voters change: that is entered and left without further
        calls. `ChangeRefused` if it makes no sense, or another change is under way."""
        return self._leader().change(change)

    def read_index(self, context: int) -> None:
        """Ask from which index on a read is linearizable; a `ReadState` with this context will tell. `NotLeader`,
        `Overloaded`. The question may be lost on its way to the leader: ask again after a while, under another context.
        No context may come twice at one member, not even after a restart: its first answer may come late."""
        self._role.read(context)

    def transfer_leadership(self, to: PeerId) -> None:
        """Hand over to a voter once it has all; given up after an election timeout. Proposals are refused meanwhile."""
        self._leader().transfer(to)

    def suspect(self, peer: PeerId) -> None:
        """The transport saw the process of `peer` die (a reset connection, not mere silence)."""
        self._role.suspect(peer)

    # Snapshots

    def make_snapshot(self, index: int, data: bytes) -> Snapshot | None:
        """`data` is the state machine after the entry at `index`. None: a newer one came from the leader meanwhile."""
        log = self._member.log
        term = log.term(index)
        return None if term is None else Snapshot(index, term, log.configurations.at(index), data)

    def compact(self, snapshot: Snapshot) -> None:
        """The disk holds `snapshot` now, of entries that were applied: forget all but the last few of them."""
        assert snapshot.index <= max(self._member.log.applied, self._out.applied if self._out else 0)
        self._member.log.compact(snapshot, self._member.options.trailing_entries)

    # What is to be done

    def has_ready(self) -> bool:
        """False also while a `Ready` is out."""
        member, log = self._member, self._member.log
        return self._out is None and bool(
            member.messages
            or member.messages_after_sync
            or member.reads
            or member.reads_failed
            or member.snapshot_wanted
            or log.saved < log.last_index
            or log.restored is not None
            or log.applied < log.committed
            or (member.term, member.vote) != (self._saved.term, self._saved.vote)
        )

    def ready(self) -> Ready:
        """To be done as `mesh.raft.ready` says, and then `advance`."""
        assert self._out is None, "advance() comes before the next ready()"
        member, log = self._member, self._member.log
        entries = log.begin_save()
        committed: tuple[Entry, ...] = ()
        if log.applied < log.committed:
            committed = log.slice(log.applied + 1, log.committed, member.options.committed_bytes_max)
        snapshot, log.restored = log.restored, None
        wanted, member.snapshot_wanted = member.snapshot_wanted, False
        saving: HardState | None = None
        promised = (member.term, member.vote) != (self._saved.term, self._saved.vote)
        if promised or (entries and log.committed != self._saved.commit) or snapshot is not None:
            saving = HardState(member.term, member.vote, log.committed)
        self._out = _Out(saving, committed[-1].index if committed else log.applied)
        return Ready(
            hard_state=saving,
            snapshot=snapshot,
            entries=entries,
            messages=self.take_messages(),
            messages_after_sync=_drained(member.messages_after_sync),
            committed=committed,
            reads=_drained(member.reads),
            reads_failed=_drained(member.reads_failed),
            snapshot_wanted=wanted,
        )

    def take_messages(self) -> tuple[Outgoing, ...]:
        """What may leave at once, also while a `Ready` is out: so a slow sync, as opposed to a hung one, costs a
        leader neither its heartbeats nor its followers."""
        self._member.departures += 1
        return _drained(self._member.messages)

    def advance(self) -> None:
        """The `Ready` that is out was done."""
        out, log = self._out, self._member.log
        assert out is not None, "advance() comes after ready()"
        self._out = None
        self._hung_ticks = 0
        self._saved = out.hard_state or self._saved
        log.mark_saved()
        log.applied = max(log.applied, out.applied)
        self._perform(self._role.synced(self._saved.term, self._saved.vote))

    # What is so

    def status(self) -> RaftStatus:
        member, log, role = self._member, self._member.log, self._role
        leader = role if isinstance(role, Leader) else None
        return RaftStatus(
            peer=member.peer,
            role=role.name,
            term=member.term,
            leader=member.leader,
            commit=log.committed,
            applied=log.applied,
            first_index=log.first_index,
            last_index=log.last_index,
            snapshot_index=log.snapshot.index if log.snapshot else 0,
            configuration=member.configuration,
            configuration_committed=log.configurations.latest_index <= log.committed,
            transferee=leader.transferee if leader else None,
            peers=self._peers(leader) if leader else {},
        )

    def _peers(self, leader: Leader) -> dict[PeerId, PeerStatus]:
        limit = self._member.options.election_ticks
        return {
            peer: PeerStatus(
                progress.match,
                progress.silent_ticks < limit,
                progress.silent_ticks,
                type(progress.flow).__name__.lower(),
            )
            for peer, progress in leader.replication.progress.items()
        }

    def _leader(self) -> Leader:
        if not isinstance(self._role, Leader):
            raise NotLeader(self._member.leader)
        return self._role

    def _perform(self, transition: Transition | None) -> None:
        while transition is not None:
            self._role.leave()
            match transition:
                case BecomeFollower(term, leader, split):
                    self._member.enter_term(term)
                    self._role = Follower(self._member, leader)
                    if split:
                        self._member.take_turn(gone=None, missed=1)
                case BecomePreCandidate():
                    self._role = PreCandidate(self._member)
                case BecomeCandidate(transfer):
                    self._role = Candidate(self._member, transfer)
                case BecomeLeader():
                    self._role = Leader(self._member)
            transition = self._role.enter()


def _drained(items: list[T]) -> tuple[T, ...]:
    taken = tuple(items)
    items.clear()
    return taken

"""Leading: proposals into the log, commitment by counting copies of this term, changes of the group, reads.

A leader steps down by itself when it hears no quorum for an election timeout (so that a stale leader's heartbeats can't
keep members loyal that a quorum could elect another with), when it has left the group, and when its disk hangs.
"""

from collections.abc import Sequence
from typing import ClassVar

from mesh.raft import quorum
from mesh.raft.configuration import Change, changed, is_voter, left
from mesh.raft.errors import ChangeRefused, Overloaded
from mesh.raft.log import entry_bytes
from mesh.raft.member import Member
from mesh.raft.reads import Read, Reads
from mesh.raft.ready import ReadState
from mesh.raft.replication import Replication
from mesh.raft.roles import BecomeFollower, Role, RoleName, Transition
from protocols.codec import encode
from protocols.errors import LocalProtocolError, RemoteProtocolError
from protocols.ids import PeerId
from protocols.raft import (
    AppendEntries,
    AppendRefused,
    AppendReply,
    Configuration,
    Entry,
    EntryKind,
    Heartbeat,
    HeartbeatReply,
    InstallSnapshot,
    RaftMessage,
    ReadIndex,
    ReadIndexReply,
    SnapshotReply,
    TimeoutNow,
)


class Leader(Role):
    name: ClassVar[RoleName] = RoleName.LEADER

    def __init__(self, member: Member) -> None:
        super().__init__(member)
        member.leader = member.peer
        member.elapsed = 0
        self.replication = Replication(member)
        self._reads = Reads(member.options.reads_max)
        self._round_opened = -1
        """`Member.departures` when the newest round opened: until its heartbeats leave, more reads may join it."""
        self._heartbeat_ticks = 0
        self.transferee: PeerId | None = None
        self._transfer_ticks = 0
        log = member.log
        self.uncommitted_bytes = sum(
            entry_bytes(log.entry(index)) for index in range(log.committed + 1, log.last_index + 1)
        )

    def enter(self) -> Transition | None:
        self._append([(EntryKind.NOOP, b"")])
        return None

    def leave(self) -> None:
        member = self.member
        member.reads_failed += [read.context for read in self._reads.pending() if read.peer == member.peer]

    def tick(self) -> Transition | None:
        member = self.member
        self.replication.tick()
        if not self.replication.has_quorum():
            return BecomeFollower(member.term, None)
        if self.transferee is not None:
            self._transfer_ticks += 1
            if self._transfer_ticks >= member.options.election_ticks:
                self.transferee = None
        self._heartbeat_ticks += 1
        if self._heartbeat_ticks >= member.options.heartbeat_ticks:
            self._heartbeat_ticks = 0
            self.replication.heartbeat(self._reads.round)
        return None

    def quiet_ticks(self) -> int:
        """Until the next heartbeats. A lost quorum is noticed that much later, which only delays the stepping down."""
        return self.member.options.heartbeat_ticks - self._heartbeat_ticks - 1

    def step(self, sender: PeerId, message: RaftMessage) -> Transition | None:
        if isinstance(message, AppendEntries | Heartbeat | InstallSnapshot):
            raise RemoteProtocolError(f"{sender} leads term {message.term} too")
        if isinstance(message, ReadIndex):
            if not self._reads.full:  # else the member asks again after a while
                self._read(Read(sender, message.context))
            return None
        progress = self.replication.progress.get(sender)
        if progress is None:
            return None
        progress.silent_ticks = 0
        match message:
            case AppendReply(_, match):
                return self._on_append_reply(sender, match)
            case AppendRefused():
                self.replication.on_append_refused(sender, message)
            case HeartbeatReply(_, number):
                self.replication.on_heartbeat_reply(sender, number)
                self._release_reads()
            case SnapshotReply():
                self.replication.on_snapshot_reply(sender, message)
        return None

    def synced(self, term: int, vote: PeerId | None) -> Transition | None:
        return self._advance_commit()

    def suspect(self, peer: PeerId) -> None:
        self.replication.suspect(peer)

    # Proposals

    def propose(self, batch: Sequence[bytes]) -> list[int]:
        """All of them or none."""
        options = self.member.options
        for data in batch:
            if len(data) > options.entry_bytes_max:
                raise LocalProtocolError(
                    f"an entry of {len(data)} bytes is over the limit of {options.entry_bytes_max}"
                )
        if self.transferee is not None:
            raise Overloaded(f"the leadership is being handed to {self.transferee}")
        size = sum(map(len, batch))
        if self.uncommitted_bytes and self.uncommitted_bytes + size > options.uncommitted_bytes_max:
            raise Overloaded(f"{self.uncommitted_bytes} bytes of proposals wait for a quorum already")
        return self._append([(EntryKind.NORMAL, data) for data in batch])

    def change(self, change: Change) -> int:
        configurations = self.member.log.configurations
        if configurations.latest_index > self.member.log.committed or configurations.latest.outgoing:
            raise ChangeRefused("another change of the group is under way")
        if not self._established:
            raise ChangeRefused("this coordinator has committed nothing in its term yet")
        if self.transferee is not None:
            raise ChangeRefused(f"the leadership is being handed to {self.transferee}")
        target = changed(configurations.latest, change)
        for peer in sorted(set(target.voters) - set(configurations.latest.voters)):
            self._check_ready_to_vote(peer)
        return self._configure(target)

    def _check_ready_to_vote(self, peer: PeerId) -> None:
        """A voter with an empty log gives no vote (`voting`), and one far behind holds up every commit."""
        match, options = self.replication.progress[peer].match, self.member.options
        if match == 0 or match + options.promotion_lag_max < self.member.log.committed:
            raise ChangeRefused(f"{peer} can't vote yet: it has {match} of {self.member.log.committed} entries")

    def transfer(self, to: PeerId) -> None:
        if to == self.member.peer:
            return
        if not is_voter(self.member.configuration, to) or to not in self.replication.progress:
            raise ChangeRefused(f"{to} is no voter")
        self.transferee = to
        self._transfer_ticks = 0
        if not self._hand_over(to):
            self.replication.send(to, even_empty=True)

    def _configure(self, configuration: Configuration) -> int:
        return self._append([(EntryKind.CONFIGURATION, encode(configuration))])[0]

    def _append(self, batch: Sequence[tuple[EntryKind, bytes]]) -> list[int]:
        member, log = self.member, self.member.log
        first = log.last_index + 1
        entries = [Entry(first + offset, member.term, kind, data) for offset, (kind, data) in enumerate(batch)]
        log.append(entries)
        self.uncommitted_bytes += sum(map(entry_bytes, entries))
        if any(entry.kind is EntryKind.CONFIGURATION for entry in entries):
            self.replication.reconfigure()
            if self.transferee is not None and not is_voter(member.configuration, self.transferee):
                self.transferee = None
        for peer in self.replication.progress:
            self.replication.fill(peer)
        return [entry.index for entry in entries]

    # Commitment

    @property
    def _established(self) -> bool:
        """Whether an entry of this term is committed."""
        return self.member.log.term(self.member.log.committed) == self.member.term

    def _on_append_reply(self, sender: PeerId, match: int) -> Transition | None:
        if match > self.member.log.last_index:
            raise RemoteProtocolError(f"{sender} acknowledged entry {match}, which was never sent")
        if self.replication.on_append_reply(sender, match):
            transition = self._advance_commit()
            if transition is not None:
                return transition
        self.replication.fill(sender)
        if sender == self.transferee:
            self._hand_over(sender)
        return None

    def _advance_commit(self) -> Transition | None:
        """Count copies of entries of this term only (section 5.4.2): what lies before them is committed with them."""
        log = self.member.log
        index = quorum.agreed(self.member.configuration, self.replication.acknowledged())
        if index <= log.committed or log.term(index) != self.member.term:
            return None
        before = log.committed
        log.commit(index)
        self.uncommitted_bytes -= sum(entry_bytes(log.entry(i)) for i in range(before + 1, index + 1))
        for read in self._reads.take_early():
            self._enqueue(read)
        self.replication.broadcast()
        return self._after_change()

    def _after_change(self) -> Transition | None:
        """A joint configuration that is committed is left; a leader that is no voter of a committed one leaves."""
        member, configurations = self.member, self.member.log.configurations
        if configurations.latest_index > member.log.committed:
            return None
        if configurations.latest.outgoing:
            self._configure(left(configurations.latest))
            return None
        if is_voter(configurations.latest, member.peer):
            return None
        heirs = [peer for peer in configurations.latest.voters if peer in self.replication.progress]
        heir = max(heirs, key=lambda peer: (self.replication.progress[peer].match, peer))
        member.send(heir, TimeoutNow(member.term))
        return BecomeFollower(member.term, None)

    def _hand_over(self, to: PeerId) -> bool:
        """Ask for the election, if `to` has everything: then it wins."""
        if self.replication.progress[to].match < self.member.log.last_index:
            return False
        self.member.send(to, TimeoutNow(self.member.term))
        return True

    # Reads

    def read(self, context: int) -> None:
        self._read(Read(self.member.peer, context))

    def _read(self, read: Read) -> None:
        if self._established:
            self._enqueue(read)
        else:
            self._reads.add_early(read)

    def _enqueue(self, read: Read) -> None:
        log = self.member.log
        if quorum.voters(self.member.configuration) == (self.member.peer,):
            self._answer(read, log.committed)
            return
        if self._round_opened != self.member.departures:
            self._round_opened = self.member.departures
            self._reads.open_round()
            self.replication.heartbeat(self._reads.round)
        self._reads.add(read, log.committed)

    def _release_reads(self) -> None:
        if not self._reads.waiting:
            return
        number = quorum.agreed(self.member.configuration, self.replication.rounds(self._reads.round))
        for index, read in self._reads.answered(number):
            self._answer(read, index)

    def _answer(self, read: Read, index: int) -> None:
        if read.peer == self.member.peer:
            self.member.reads.append(ReadState(read.context, index))
        else:
            self.member.send(read.peer, ReadIndexReply(self.member.term, read.context, index))

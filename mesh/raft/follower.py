"""Following: entries and snapshots in, acknowledgements out (which leave once what they say is on disk).

A learner is a follower that is in no set of voters: it never campaigns.
"""

from typing import ClassVar

from mesh.raft import quorum
from mesh.raft.errors import NotLeader
from mesh.raft.member import Member
from mesh.raft.ready import ReadState
from mesh.raft.roles import BecomeCandidate, BecomePreCandidate, Role, RoleName, Transition
from protocols.errors import RemoteProtocolError
from protocols.ids import PeerId
from protocols.raft import (
    AppendEntries,
    AppendRefused,
    AppendReply,
    Heartbeat,
    HeartbeatReply,
    InstallSnapshot,
    RaftMessage,
    ReadIndex,
    ReadIndexReply,
    Snapshot,
    SnapshotReply,
    TimeoutNow,
)


class Follower(Role):
    name: ClassVar[RoleName] = RoleName.FOLLOWER

    def __init__(self, member: Member, leader: PeerId | None) -> None:
        super().__init__(member)
        member.leader = leader
        member.reset_timer()
        self._asked: dict[int, None] = {}
        """Contexts of reads that the leader has not answered, oldest first."""
        self._arriving: tuple[tuple[int, int], bytearray] | None = None
        """(index, term) of a snapshot, and what came of it so far."""

    def leave(self) -> None:
        self._fail_reads()

    def tick(self) -> Transition | None:
        member = self.member
        member.elapsed += 1
        if member.elapsed < member.timeout and not self._alone():
            return None
        if member.electable:
            return BecomePreCandidate()
        self._lose_leader()
        member.reset_timer()
        return None

    def quiet_ticks(self) -> int:
        return 0 if self._alone() else max(0, self.member.timeout - self.member.elapsed - 1)

    def _alone(self) -> bool:
        """A group of one need not wait for anybody."""
        return quorum.voters(self.member.configuration) == (self.member.peer,)

    def read(self, context: int) -> None:
        if self.member.leader is None:
            raise NotLeader(None)
        if len(self._asked) >= self.member.options.reads_max:  # the oldest is lost, or it would be answered by now
            oldest = next(iter(self._asked))
            del self._asked[oldest]
            self.member.reads_failed.append(oldest)
        self._asked[context] = None
        self.member.send(self.member.leader, ReadIndex(self.member.term, context))

    def suspect(self, peer: PeerId) -> None:
        """Liveness only: if the leader lives after all, its next heartbeat undoes this."""
        member = self.member
        if peer == member.leader:
            self._lose_leader()
            member.take_turn(gone=peer)

    def step(self, sender: PeerId, message: RaftMessage) -> Transition | None:
        match message:
            case AppendEntries() | Heartbeat() | InstallSnapshot():
                self._heard(sender)
                self._follow(sender, message)
            case TimeoutNow() if self.member.electable:
                return BecomeCandidate(transfer=True)
            case ReadIndexReply(_, context, index) if context in self._asked:
                del self._asked[context]
                self.member.reads.append(ReadState(context, index))
        return None

    def _follow(self, sender: PeerId, message: AppendEntries | Heartbeat | InstallSnapshot) -> None:
        match message:
            case AppendEntries():
                self._append(sender, message)
            case Heartbeat(term, commit, number):
                self.member.log.commit(commit)
                self.member.send(sender, HeartbeatReply(term, number))
            case InstallSnapshot():
                self._install(sender, message)

    def _heard(self, leader: PeerId) -> None:
        member = self.member
        if member.leader is None:
            member.leader = leader
            member.reset_timer()  # also undoes the short timer of a suspicion
        elif member.leader != leader:
            raise RemoteProtocolError(f"{leader} and {member.leader} both lead term {member.term}")
        member.elapsed = 0

    def _append(self, sender: PeerId, message: AppendEntries) -> None:
        log, term = self.member.log, self.member.term
        previous = message.previous_index
        if previous < log.committed:
            self.member.send(sender, AppendReply(term, log.committed))
            return
        if log.term(previous) != message.previous_term:
            hint = log.conflict(previous, message.previous_term)
            self.member.send(sender, AppendRefused(term, previous, hint, log.term(hint) or 0))
            return
        log.merge(message.entries)
        match = previous + len(message.entries)
        log.commit(min(message.commit, match))
        self.member.send(sender, AppendReply(term, match))

    def _install(self, sender: PeerId, message: InstallSnapshot) -> None:
        member, log = self.member, self.member.log
        if message.index <= log.committed:
            member.send(sender, AppendReply(member.term, log.committed))
            return
        if log.term(message.index) == message.snapshot_term:
            log.commit(message.index)  # the log has it all
            member.send(sender, AppendReply(member.term, message.index))
            return
        data = self._collect(message)
        if not (message.done and message.offset + len(message.data) == len(data)):
            member.send(sender, SnapshotReply(member.term, message.index, len(data)))
            return
        self._arriving = None
        log.restore(Snapshot(message.index, message.snapshot_term, message.configuration, bytes(data)))
        member.send(sender, AppendReply(member.term, message.index))

    def _collect(self, message: InstallSnapshot) -> bytearray:
        """What is here of the snapshot, with this chunk if it is the next one."""
        which = (message.index, message.snapshot_term)
        if self._arriving is None or self._arriving[0] != which:
            self._arriving = (which, bytearray())
        data = self._arriving[1]
        if message.offset == len(data):
            if len(data) + len(message.data) > self.member.options.snapshot_bytes_max:
                raise RemoteProtocolError(f"a snapshot is over {self.member.options.snapshot_bytes_max} bytes")
            data += message.data
        return data

    def _lose_leader(self) -> None:
        self.member.leader = None
        self._fail_reads()

    def _fail_reads(self) -> None:
        self.member.reads_failed += self._asked
        self._asked.clear()

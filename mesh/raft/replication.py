"""A leader's sending: to each member what it lacks, within its flow control.

Owns the progress of every member but the leader itself. Members that a change removed stay for a while, so that they
learn of it and do not campaign for ever; they count for nothing.

A member that was removed and taken in again may have set its log aside. To rebuild that log from entries in which it
was a voter still would let it vote, or lead, as what it was then, with no memory of what it promised (alone, where it
founded the group). So a blank one begins at a snapshot of later than it was removed; the log says when that was.

The leader's own `match` is `log.saved`: its copy of an entry counts once it is on its disk, like any other.
"""

from collections.abc import Mapping

from mesh.raft import quorum
from mesh.raft.log import entry_bytes
from mesh.raft.member import Member
from mesh.raft.progress import Installing, Probing, Progress, Replicating
from protocols.ids import PeerId
from protocols.raft import AppendEntries, AppendRefused, Heartbeat, InstallSnapshot, SnapshotReply


class Replication:
    def __init__(self, member: Member) -> None:
        self.member = member
        self.progress: dict[PeerId, Progress] = {}
        self._parting: dict[PeerId, tuple[int, int]] = {}
        """Removed members: index of the entry that removed them, and ticks that they may still take to get it."""
        self.reconfigure()

    def reconfigure(self) -> None:
        """The configuration changed: follow its members, and those who left for a while more."""
        member = self.member
        present = [peer for peer in quorum.members(member.configuration) if peer != member.peer]
        patience = 3 * member.options.election_ticks
        for peer in self.progress:
            if peer not in present:
                self._parting.setdefault(peer, (member.log.configurations.latest_index, patience))
        for peer in present:
            returned = self._parting.pop(peer, None) is not None  # who was removed may come back without its log
            if returned or peer not in self.progress:
                self.progress[peer] = Progress(next=member.log.last_index + 1)
        self.progress = {peer: self.progress[peer] for peer in sorted(self.progress)}

    def acknowledged(self) -> dict[PeerId, int]:
        """How far each member's disk has the log, the leader's included."""
        made = {peer: progress.match for peer, progress in self.progress.items()}
        made[self.member.peer] = self.member.log.saved
        return made

    def rounds(self, own: int) -> Mapping[PeerId, int]:
        return {self.member.peer: own} | {peer: progress.round for peer, progress in self.progress.items()}

    def has_quorum(self) -> bool:
        """Whether a quorum was heard within an election timeout (check-quorum; thesis, section 6.2)."""
        limit = self.member.options.election_ticks
        heard = [peer for peer, progress in self.progress.items() if progress.silent_ticks < limit]
        return quorum.has_quorum(self.member.configuration, [self.member.peer, *heard])

    def tick(self) -> None:
        for progress in self.progress.values():
            progress.silent_ticks += 1
            if isinstance(progress.flow, Installing) and progress.flow.waiting_ticks is not None:
                progress.flow.waiting_ticks += 1
        for peer, (index, ticks) in list(self._parting.items()):
            progress = self.progress[peer]
            if ticks == 0 or min(progress.match, progress.told_commit) >= index:
                del self._parting[peer], self.progress[peer]
            else:
                self._parting[peer] = (index, ticks - 1)

    def heartbeat(self, number: int) -> None:
        member = self.member
        for peer, progress in self.progress.items():
            commit = min(progress.match, member.log.committed)
            member.send(peer, Heartbeat(member.term, commit, number))

    def broadcast(self) -> None:
        for peer in self.progress:
            self.send(peer, even_empty=True)

    def fill(self, peer: PeerId) -> None:
        """Send new entries as long as there are some and the flow lets them."""
        while self.send(peer, even_empty=False):
            pass

    def send(self, peer: PeerId, even_empty: bool) -> bool:
        """One message of entries, or of the snapshot where the entries are gone. False: nothing was sent."""
        progress, log, options = self.progress[peer], self.member.log, self.member.options
        flow = progress.flow
        if isinstance(flow, Installing):
            return self._send_chunk(peer, flow)
        if isinstance(flow, Probing) and flow.waiting:
            return False
        full = isinstance(flow, Replicating) and self._full(flow)
        previous = progress.next - 1
        previous_term = log.term(previous)
        if previous_term is None or (previous == 0 and self._parted(peer)):
            return self._install(peer, progress)
        entries = () if full else log.slice(progress.next, log.last_index, options.append_bytes_max)
        if not entries and not even_empty:
            return False
        self.member.send(peer, AppendEntries(self.member.term, previous, previous_term, entries, log.committed))
        if isinstance(flow, Probing):
            flow.waiting = True
        elif isinstance(flow, Replicating) and entries:
            flow.sent(entries[-1].index, sum(map(entry_bytes, entries)))
            progress.next = entries[-1].index + 1
        progress.told_commit = max(progress.told_commit, min(log.committed, previous + len(entries)))
        return True

    def _full(self, flow: Replicating) -> bool:
        options = self.member.options
        return len(flow.inflight) >= options.inflight_messages_max or flow.inflight_bytes >= options.inflight_bytes_max

    def _install(self, peer: PeerId, progress: Progress) -> bool:
        if progress.silent_ticks >= self.member.options.election_ticks:
            return False  # nobody there to take it
        snapshot, parted = self.member.log.snapshot, self._parted(peer)
        if snapshot is None or snapshot.index < parted:
            assert parted, "entries go only behind a snapshot"
            self.member.snapshot_wanted = True
            return False
        progress.flow = Installing(snapshot)
        return self._send_chunk(peer, progress.flow)

    def _parted(self, peer: PeerId) -> int:
        """The index up to which this member's log must not be built again entry by entry; 0: there is none."""
        return 0 if peer in self._parting else self.member.log.configurations.parted(peer)

    def _send_chunk(self, peer: PeerId, flow: Installing) -> bool:
        """The chunk at the member's offset, unless it is under way and not late."""
        if flow.waiting_ticks is not None and flow.waiting_ticks < self.member.options.election_ticks:
            return False
        snapshot, start = flow.snapshot, flow.offset
        end = start + self.member.options.chunk_bytes
        self.member.send(
            peer,
            InstallSnapshot(
                self.member.term,
                snapshot.index,
                snapshot.term,
                snapshot.configuration,
                start,
                snapshot.data[start:end],
                end >= len(snapshot.data),
            ),
        )
        flow.waiting_ticks = 0
        return True

    def on_append_reply(self, peer: PeerId, match: int) -> bool:
        """Whether the member's log was news."""
        progress = self.progress[peer]
        news = progress.acknowledged(match)
        flow = progress.flow
        if isinstance(flow, Replicating):
            flow.answered(match)
        elif isinstance(flow, Probing):
            progress.replicate()
        elif match >= flow.snapshot.index or self.member.log.term(match) is not None:
            progress.replicate()  # what follows is at hand, or in a newer snapshot
        return news

    def on_append_refused(self, peer: PeerId, message: AppendRefused) -> None:
        progress = self.progress[peer]
        hint = message.hint_index
        if message.hint_term > 0:
            hint = self.member.log.conflict(hint, message.hint_term)
        if not isinstance(progress.flow, Installing) and progress.refused(message.previous_index, hint):
            self.send(peer, even_empty=True)

    def on_snapshot_reply(self, peer: PeerId, message: SnapshotReply) -> None:
        flow = self.progress[peer].flow
        if isinstance(flow, Installing) and flow.snapshot.index == message.index and flow.offset != message.offset:
            flow.offset = min(message.offset, len(flow.snapshot.data))
            flow.waiting_ticks = None
            self._send_chunk(peer, flow)

    def on_heartbeat_reply(self, peer: PeerId, number: int) -> None:
        """The member is there: a sign to try again whatever may have been lost."""
        progress = self.progress[peer]
        progress.round = max(progress.round, number)
        flow = progress.flow
        if isinstance(flow, Probing):
            flow.waiting = False
        elif isinstance(flow, Replicating) and self._full(flow):
            flow.drop_oldest()  # its answer may be lost
        if progress.match < self.member.log.last_index or not isinstance(flow, Replicating):
            self.send(peer, even_empty=True)

    def suspect(self, peer: PeerId) -> None:
        """The member's connection broke: whatever was under way to it is lost. It still counts as heard for a while, so
        that a broken connection that comes back at once costs no leadership."""
        progress = self.progress.get(peer)
        if progress is not None:
            progress.probe()

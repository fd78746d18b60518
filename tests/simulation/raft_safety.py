"""What must hold of a simulated group after every step, over all its nodes, the disks of dead ones included.

Of the paper (figure 3): Election Safety; Leader Append-Only; Log Matching (an entry's index and term determine its
content and its predecessor's term, hence all before it); Leader Completeness (a new leader has what was committed in
earlier terms); State Machine Safety (what is applied up to an index is the same everywhere, snapshots included).
Beside them:
- Terms and commit indexes never fall; a leader commits first, and what it commits is on the disks of a majority.
- Nothing that promises something leaves, and nothing is applied, before the disk has it; and after a save it has all.
- A read's index is at least every commit index that any node had when the read was asked.
- A leader that hears no quorum, or whose disk hangs, is one for so many ticks only.

The majorities are counted here, not by the core's own arithmetic: a fault there would hide itself.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from mesh.raft import invariants
from mesh.raft.leader import Leader
from mesh.raft.log import RaftLog
from mesh.raft.raft import Raft, RaftOptions
from mesh.raft.ready import Configuration, Entry, EntryKind, Outgoing, Ready
from mesh.raft.roles import Role
from protocols.codec import decode
from protocols.ids import PeerId
from protocols.raft import PreVote, PreVoteReply, Vote, VoteReply
from tests.simulation.life import Violation
from tests.simulation.raft_medium import Medium

INVARIANTS_EVERY = 8
"""Steps of a node that changed something, or as many as its log has entries, since they walk them all: they are about
one member, and dear. What is about the group is checked after every step."""

GRACE_TICKS = 2
"""Beyond the bound of the core: a message that came in the middle of a tick."""

GONE = 1_000_000
"""Added to the life of a node that is never to come back under its peer ID."""


@dataclass(slots=True)
class Node:
    peer: PeerId
    medium: Medium = field(default_factory=Medium)
    raft: Raft | None = None
    life: int = 0
    """Counts restarts: what was scheduled for an earlier life is void."""
    period_ms: int = 50
    """Of its clock's ticks."""
    sync_ms: int | None = 2
    """None: the disk hangs."""
    ticked_ms: int = 0
    """When its clock ticked last."""
    alarm_ms: int = 0
    """When the next of its ticks does something, at the latest."""
    ticks: int = 0
    saving: Ready | None = None
    saving_end: Entry | None = None
    """The end of the log when that was taken."""
    saving_since: int = 0
    """By its own clock, in ticks; so are the next two."""
    heard: dict[PeerId, int] = field(default_factory=dict)
    quorum_due: int = 0
    """It leads, by the same configuration, since then."""
    index: int = 0
    digest: bytes = b""
    """The state machine: a hash over all that was applied, up to `index`."""
    asked: dict[int, int] = field(default_factory=dict)
    """Reads under way: the commit index that the answer must reach."""
    role: Role | None = None
    """This and what follows: as last seen."""
    configuration: Configuration | None = None
    term: int = 0
    commit: int = 0
    end: Entry | None = None
    """The last of its log."""
    unchecked: int = 0
    check_after: int = 0

    @property
    def gone(self) -> bool:
        return self.life >= GONE


def is_majority(configuration: Configuration, peers: Iterable[PeerId]) -> bool:
    """Of both sets of voters."""
    present = set(peers)
    halves = [half for half in (configuration.voters, configuration.outgoing) if half]
    return bool(halves) and all(2 * len(present.intersection(half)) > len(half) for half in halves)


class Safety:
    def __init__(self, nodes: dict[PeerId, Node], options: RaftOptions, tell: Callable[[str], None]) -> None:
        self._nodes = nodes
        self._options = options
        self._tell = tell
        self.leaders: dict[int, PeerId] = {}
        """By term."""
        self._content: dict[tuple[int, int], tuple[int, Entry]] = {}
        self.committed: dict[int, tuple[int, int]] = {}
        """Index -> term of the entry, and term of the leader that committed it: all that any node ever knew."""
        self.last_committed = 0
        self.configurations: dict[tuple[int, int], Configuration] = {}
        """By index and term, of all that was ever written."""
        self._digests: dict[int, bytes] = {0: b""}

    # After every step

    def step(self, node: Node) -> None:
        raft = node.raft
        assert raft is not None
        member, role = raft._member, raft._role
        log = member.log
        end = log._entries[-1] if log._entries else None
        if role is node.role and end is node.end and log.committed == node.commit and member.term == node.term:
            return
        node.unchecked += 1
        if node.unchecked >= node.check_after:
            node.unchecked, node.check_after = 0, max(INVARIANTS_EVERY, log.last_index - log.first_index)
            invariants.check(raft)
        if member.term < node.term:
            raise Violation(f"{node.peer} went back to term {member.term} from {node.term}")
        node.term = member.term
        led, leads = type(node.role) is Leader, type(role) is Leader
        if role is not node.role:
            node.role = role
            node.configuration = None
            if leads:
                self._leads(node, log)
        elif leads and end is not node.end:
            self._append_only(node, log)
        node.end = end
        if leads and log.configurations.latest is not node.configuration:
            node.configuration, node.quorum_due = log.configurations.latest, node.ticks
        if log.committed != node.commit:
            self._commits(node, log, led or leads)

    def _leads(self, node: Node, log: RaftLog) -> None:
        other = self.leaders.setdefault(node.term, node.peer)
        if other != node.peer:
            raise Violation(f"Election Safety: {node.peer} and {other} lead term {node.term}")
        self._tell(f"{node.peer} leads term {node.term}")
        for index in range(log.first_index, self.last_committed + 1):
            term, committed_in = self.committed[index]
            if committed_in < node.term and log.term(index) != term:
                raise Violation(f"Leader Completeness: {node.peer} leads without entry {index} of term {term}")

    def _append_only(self, node: Node, log: RaftLog) -> None:
        before = node.end
        if before is not None and (
            log.last_index < before.index or (before.index >= log.first_index and log.entry(before.index) is not before)
        ):
            raise Violation(f"Leader Append-Only: {node.peer} had {before}")

    def _commits(self, node: Node, log: RaftLog, leading: bool) -> None:
        """`leading`: also one that left the lead with this step, as a leader does that its own commit removed."""
        if log.committed < node.commit:
            raise Violation(f"{node.peer} went back to commit {log.committed} from {node.commit}")
        for index in range(max(node.commit + 1, log.first_index), log.committed + 1):
            term = log.term(index)
            assert term is not None
            known = self.committed.get(index)
            if known is None:
                if not leading:
                    raise Violation(f"{node.peer} knows {index} as committed, which no leader committed")
                self.committed[index] = (term, node.term)
                self.last_committed = max(self.last_committed, index)
            elif known[0] != term:
                raise Violation(f"State Machine Safety: {node.peer} committed another entry at {index}")
        if leading:
            self._on_disks(node, log.committed, log.term(log.committed) or 0)
        node.commit = log.committed

    def _on_disks(self, node: Node, index: int, term: int) -> None:
        assert node.raft is not None
        holders = [peer for peer, each in self._nodes.items() if each.medium.holds(index, term)]
        if not is_majority(node.raft._member.configuration, holders):
            raise Violation(f"{node.peer} committed {index}, which is on the disks of {holders} only")

    # After the ticks of a leader that do something

    def leads_rightly(self, node: Node) -> None:
        raft, configuration = node.raft, node.configuration
        if raft is None or configuration is None or type(raft._role) is not Leader:
            return
        if node.saving is not None and node.ticks - node.saving_since > self._options.hang_ticks + GRACE_TICKS:
            raise Violation(f"{node.peer} leads beside a disk that hangs")
        since = node.ticks - self._options.election_ticks - GRACE_TICKS
        if node.quorum_due < since:
            heard = [peer for peer, at in node.heard.items() if at >= since]
            if not is_majority(configuration, [node.peer, *heard]):
                raise Violation(f"{node.peer} leads term {node.term} and hears {heard} only")

    # Before something leaves

    def ready(self, node: Node, ready: Ready) -> None:
        assert node.raft is not None
        log = node.raft._member.log
        for entry in ready.entries:
            previous = log.term(entry.index - 1)
            assert previous is not None
            known = self._content.setdefault((entry.index, entry.term), (previous, entry))
            if known[0] != previous or (known[1] is not entry and known[1] != entry):
                raise Violation(f"Log Matching: two entries at {entry.index} in term {entry.term}")
            if entry.kind is EntryKind.CONFIGURATION:
                self.configurations[entry.index, entry.term] = decode(entry.data, Configuration)

    def saved(self, node: Node) -> None:
        """A `Ready` leaves the whole log on the disk, as it was when it was taken."""
        end, medium = node.saving_end, node.medium
        if end is None or (medium.entries and medium.entries[-1] is end):
            return
        if not medium.holds(end.index, end.term):
            raise Violation(f"{node.peer} takes {end} as saved")

    def promises(self, node: Node, messages: Iterable[Outgoing]) -> None:
        """What leaves must be on the disk: its term, its vote, the entries that it acknowledges."""
        medium = node.medium
        durable = medium.hard_state
        for to, message in messages:
            name = type(message).__name__
            if name in _PROMISE_NOTHING:
                continue
            broken = not isinstance(message, PreVoteReply) and message.term > durable.term
            if name == "AppendReply":
                broken |= message.match > medium.last_index  # type: ignore[union-attr]
            elif isinstance(message, VoteReply) and message.granted and message.term == durable.term:
                broken |= durable.vote != to
            elif isinstance(message, Vote) and message.term == durable.term:
                broken |= durable.vote != node.peer
            if broken:
                raise Violation(f"{node.peer} says {message} before its disk has that")

    def applies(self, node: Node, index: int, digest: bytes) -> None:
        if index > node.medium.last_index:
            raise Violation(f"{node.peer} applies {index} before its disk has that")
        self.is_state(node, index, digest)

    def is_state(self, node: Node, index: int, digest: bytes) -> None:
        if self._digests.setdefault(index, digest) != digest:
            raise Violation(f"State Machine Safety: {node.peer} has another state at {index}")

    # What a group can afford

    def in_effect(self, founding: Configuration) -> list[Configuration]:
        """The newest committed configuration, and every one that may follow it."""
        base = max((key for key in self.configurations if self._is_committed(key)), default=None)
        if base is None:
            return [founding, *self.configurations.values()]
        return [each for key, each in self.configurations.items() if key == base or key[0] > base[0]]

    def _is_committed(self, key: tuple[int, int]) -> bool:
        return self.committed.get(key[0], (0, 0))[0] == key[1]


_PROMISE_NOTHING = {"AppendEntries", "Heartbeat", "InstallSnapshot", PreVote.__name__}
"""Of the sender's own disk. A leader's term is on its disk before it leads: its vote for itself counted only then."""

"""A simulated group of Raft cores: one seed drives clocks, network, disks, clients and faults.

After every event the paper's safety properties (figure 3) are checked over all nodes, dead ones' disks included:
- Election Safety: at most one leader a term.
- Log Matching: an entry's (index, term) determines its content and its predecessor's term, hence all before it.
- Leader Completeness: a new leader has every entry that anybody knows as committed.
- State Machine Safety: what is applied at an index is the same everywhere, snapshots included.
- Reads: an index given to a read is at least every commit index that any node had when the read was asked.
At the end everything is healed and progress is demanded.

`raft_chaos.run` drives it.
"""

import hashlib
import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from mesh.raft import invariants, quorum
from mesh.raft.configuration import Change
from mesh.raft.errors import ChangeRefused, NotLeader, Overloaded
from mesh.raft.raft import Raft, RaftOptions, RoleName
from mesh.raft.ready import Configuration, Entry, HardState, Outgoing, Ready, Snapshot
from protocols.codec import decode, encode
from protocols.ids import PeerId
from protocols.raft import MESSAGE_BYTES_MAX, RAFT_MESSAGES, RaftMessage

TICK_MS = 50.0
HEAL_MS_MAX = 20_000.0
GONE = 1_000_000
"""Added to the life of a node that lost its disk: it never comes back under its peer ID."""
INVARIANTS_EVERY = 8
"""Events. They are about one member, and dear; what is about the group is checked after every event."""

OPTIONS = RaftOptions(
    hang_ticks=20,
    append_bytes_max=400,
    inflight_messages_max=4,
    inflight_bytes_max=1500,
    uncommitted_bytes_max=6000,
    committed_bytes_max=600,
    chunk_bytes=64,
    trailing_entries=3,
    reads_max=16,
)
"""Small bounds, so that all of them are met."""


class Violation(AssertionError):
    """A safety property does not hold, or no progress was made after healing."""


@dataclass(slots=True)
class Medium:
    """What survives a crash."""

    hard_state: HardState = field(default_factory=HardState)
    snapshot: Snapshot | None = None
    entries: list[Entry] = field(default_factory=list)

    def save(self, hard_state: HardState | None, entries: tuple[Entry, ...]) -> None:
        if hard_state is not None:
            self.hard_state = hard_state
        if entries:
            self.entries = [entry for entry in self.entries if entry.index < entries[0].index]
            expected = self.entries[-1].index if self.entries else (self.snapshot.index if self.snapshot else 0)
            assert entries[0].index == expected + 1, "no gap on disk"
            self.entries += entries

    def save_snapshot(self, snapshot: Snapshot) -> None:
        if self.snapshot is not None and self.snapshot.index >= snapshot.index:
            return
        agrees = any((entry.index, entry.term) == (snapshot.index, snapshot.term) for entry in self.entries)
        self.entries = [entry for entry in self.entries if entry.index > snapshot.index] if agrees else []
        self.snapshot = snapshot


@dataclass(slots=True)
class Node:
    peer: PeerId
    medium: Medium = field(default_factory=Medium)
    raft: Raft | None = None
    life: int = 0
    """Counts restarts: what was scheduled for an earlier life is void."""
    pace: float = 1.0
    """Of its clock."""
    sync_ms: float = 2.0
    saving: Ready | None = None
    index: int = 0
    digest: bytes = b""
    """The state machine: a hash over all that was applied, up to `index`."""
    commit: int = 0
    term: int = 0
    asked: dict[int, tuple[int, float]] = field(default_factory=dict)
    """Reads under way: the commit index that the answer must reach, and when it was asked."""


@dataclass(slots=True)
class Faults:
    """Of the network, changed all along."""

    loss: float = 0.0
    duplication: float = 0.0
    delay_ms: tuple[float, float] = (0.2, 2.0)
    cut: set[tuple[PeerId, PeerId]] = field(default_factory=set)
    """Directed links that carry nothing."""


class Rig:
    def __init__(self, seed: int, founders: int, options: RaftOptions = OPTIONS) -> None:
        self.rng = random.Random(seed)
        self.options = options
        self.now = 0.0
        self.nodes: dict[PeerId, Node] = {}
        self.faults = Faults()
        self.leaders: dict[int, PeerId] = {}
        self.content: dict[tuple[int, int], tuple[int, bytes]] = {}
        self.committed: dict[int, int] = {}
        """Index -> term, of all that any node ever knew as committed."""
        self.digests: dict[int, bytes] = {0: b""}
        self.reads_served = 0
        self.story: list[str] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._sequence = 0
        self._names = 0
        self._context = 0
        self._checks = 0
        peers = [self._name() for _ in range(founders)]
        self.founding = Configuration(voters=tuple(peers))
        for peer in peers:
            self.start(peer)

    # Nodes

    def _name(self) -> PeerId:
        self._names += 1
        return PeerId(f"n{self._names:02}")

    def start(self, peer: PeerId) -> None:
        node = self.nodes.setdefault(peer, Node(peer))
        node.life += 1
        node.saving = None
        node.asked.clear()
        medium = node.medium
        node.raft = Raft(
            peer=peer,
            options=self.options,
            rng=random.Random(self.rng.random()),
            hard_state=medium.hard_state,
            snapshot=medium.snapshot,
            entries=tuple(medium.entries),
            configuration=self.founding if peer in self.founding.voters else Configuration(),
        )
        node.index = medium.snapshot.index if medium.snapshot else 0
        node.digest = medium.snapshot.data[:16] if medium.snapshot else b""
        node.commit, node.term = node.raft.status().commit, node.raft.status().term
        self.tell(f"{peer} starts at {medium.hard_state}, last {node.raft.status().last_index}")
        self._schedule_tick(node, node.life)
        self._pump(node)

    def crash(self, node: Node) -> None:
        """Writes that are not synced are lost, or just made it: nobody knows which."""
        if node.raft is None:
            return
        kept = node.saving is not None and self.rng.random() < 0.3
        if kept:
            self._write(node, whole=self.rng.random() < 0.7)
        self.tell(f"{node.peer} crashes, writes under way {'kept' if kept else 'lost'}")
        node.raft = None
        node.saving = None
        node.life += 1

    def alive(self) -> list[Node]:
        return [node for node in self.nodes.values() if node.raft is not None]

    # Time

    def at(self, delay_ms: float, what: Callable[[], None]) -> None:
        self._sequence += 1
        heapq.heappush(self._events, (self.now + delay_ms, self._sequence, what))

    def advance(self, ms: float) -> None:
        end = self.now + ms
        while self._events and self._events[0][0] <= end:
            self.now, _, what = heapq.heappop(self._events)
            what()
        self.now = end

    def _schedule_tick(self, node: Node, life: int) -> None:
        def tick() -> None:
            if node.life == life and node.raft is not None:
                node.raft.tick()
                self.settle_node(node)
                self._schedule_tick(node, life)

        self.at(TICK_MS * node.pace, tick)

    def tick(self, node: Node, count: int) -> None:
        """Its clock jumps ahead."""
        assert node.raft is not None
        for _ in range(count):
            node.raft.tick()
        self.settle_node(node)

    # Doing what a node's core wants

    def settle_node(self, node: Node) -> None:
        self.check(node)
        if node.saving is not None and node.raft is not None and self.rng.random() < 0.5:
            self._send(node, node.raft.take_messages())
        self._pump(node)

    def _pump(self, node: Node) -> None:
        raft = node.raft
        assert raft is not None
        if not raft.has_ready():
            return
        ready = raft.ready()
        self._check_entries(node, ready)
        node.saving = ready
        self._send(node, ready.messages)
        life = node.life
        delay = self.rng.uniform(0.3, 1.7) * node.sync_ms if ready.must_sync else 0.0

        def synced() -> None:
            if node.life == life:
                self._finish(node, ready)

        self.at(delay, synced)

    def _write(self, node: Node, whole: bool) -> None:
        """Snapshot and log are two writes: a crash may come between them."""
        ready = node.saving
        assert ready is not None
        if ready.snapshot is not None:
            node.medium.save_snapshot(ready.snapshot)
        if whole or ready.snapshot is None:
            node.medium.save(ready.hard_state, ready.entries)

    def _finish(self, node: Node, ready: Ready) -> None:
        raft = node.raft
        assert raft is not None
        self._write(node, whole=True)
        node.saving = None
        self._send(node, ready.messages_after_sync)
        if ready.snapshot is not None:
            node.index, node.digest = ready.snapshot.index, ready.snapshot.data[:16]
            self._check_digest(node)
        for entry in ready.committed:
            self._apply(node, entry)
        for read in ready.reads:
            self._serve(node, read.context, read.index)
        for context in ready.reads_failed:
            node.asked.pop(context, None)
        raft.advance()
        self._maybe_compact(node)
        self.settle_node(node)

    def _apply(self, node: Node, entry: Entry) -> None:
        if entry.index != node.index + 1:
            raise Violation(f"{node.peer} applies {entry.index} after {node.index}")
        node.index = entry.index
        node.digest = hashlib.blake2b(node.digest + encode(entry), digest_size=16).digest()
        self._check_digest(node)

    def _check_digest(self, node: Node) -> None:
        if self.digests.setdefault(node.index, node.digest) != node.digest:
            raise Violation(f"State Machine Safety: {node.peer} has another state at {node.index}")

    def _maybe_compact(self, node: Node) -> None:
        raft, held = node.raft, node.medium.snapshot
        assert raft is not None
        if node.index - (held.index if held else 0) >= 12 and self.rng.random() < 0.2:
            snapshot = raft.make_snapshot(node.index, node.digest + bytes(self.rng.randrange(300)))
            if snapshot is not None:
                node.medium.save_snapshot(snapshot)
                raft.compact(snapshot)

    # Network

    def _send(self, node: Node, messages: tuple[Outgoing, ...]) -> None:
        for to, message in messages:
            copies = 1 + (self.rng.random() < self.faults.duplication)
            for _ in range(copies):
                if self.rng.random() >= self.faults.loss:
                    self.at(self.rng.uniform(*self.faults.delay_ms), self._delivery(node.peer, to, message))

    def _delivery(self, sender: PeerId, to: PeerId, message: RaftMessage) -> Callable[[], None]:
        def deliver() -> None:
            node = self.nodes.get(to)
            if node is None or node.raft is None or (sender, to) in self.faults.cut:
                return
            arrived = message
            if self.rng.random() < 0.02:
                raw = encode(message)
                assert len(raw) < MESSAGE_BYTES_MAX
                arrived = decode(raw, *RAFT_MESSAGES)
                assert arrived == message
            node.raft.step(sender, arrived)
            self.settle_node(node)

        return deliver

    # Clients

    def leader(self) -> Node | None:
        """Who leads the newest term, if anybody."""
        leading = [node for node in self.alive() if node.raft and node.raft.status().role is RoleName.LEADER]
        return max(leading, key=lambda node: node.term, default=None)

    def propose(self, node: Node, data: bytes) -> int | None:
        assert node.raft is not None
        try:
            index = node.raft.propose(data)
        except (NotLeader, Overloaded):
            return None
        self.settle_node(node)
        return index

    def read(self, node: Node) -> int | None:
        assert node.raft is not None
        self._context += 1
        node.asked[self._context] = (max(self.committed, default=0), self.now)
        try:
            node.raft.read_index(self._context)
        except (NotLeader, Overloaded):
            del node.asked[self._context]
            return None
        self.settle_node(node)
        return self._context

    def _serve(self, node: Node, context: int, index: int) -> None:
        floor, _ = node.asked.pop(context)
        if index < floor:
            raise Violation(f"Reads: {node.peer} may read at {index} although {floor} was committed when it asked")
        self.reads_served += 1

    def change(self, node: Node, change: Change) -> None:
        assert node.raft is not None
        try:
            node.raft.propose_change(change)
        except (NotLeader, ChangeRefused):
            return
        self.tell(f"{node.peer} proposes {change}")
        self.settle_node(node)

    # Checks

    def check(self, node: Node) -> None:
        assert node.raft is not None
        raft = node.raft
        self._checks += 1
        if self._checks % INVARIANTS_EVERY == 0:
            invariants.check(raft)
        status = raft.status()
        if status.term < node.term or (status.commit < node.commit):
            raise Violation(f"{node.peer} went back: {status}")
        node.term = status.term
        if status.role is RoleName.LEADER and self.leaders.get(status.term) != node.peer:
            if status.term in self.leaders:
                raise Violation(f"Election Safety: two leaders in term {status.term}")
            self.leaders[status.term] = node.peer
            self.tell(f"{node.peer} leads term {status.term}")
            self._check_complete(node)
        if status.commit > node.commit:
            log = raft._member.log
            for index in range(max(node.commit + 1, log.first_index), status.commit + 1):
                term = log.term(index)
                assert term is not None
                if self.committed.setdefault(index, term) != term:
                    raise Violation(f"{node.peer} committed another entry at {index}")
            node.commit = status.commit

    def _check_complete(self, node: Node) -> None:
        assert node.raft is not None
        log = node.raft._member.log
        for index, term in self.committed.items():
            if index >= log.first_index and log.term(index) != term:
                raise Violation(f"Leader Completeness: {node.peer} leads without entry {index} of term {term}")

    def _check_entries(self, node: Node, ready: Ready) -> None:
        assert node.raft is not None
        for entry in ready.entries:
            previous = node.raft._member.log.term(entry.index - 1)
            assert previous is not None
            content = (previous, encode(entry))
            if self.content.setdefault((entry.index, entry.term), content) != content:
                raise Violation(f"Log Matching: two entries at {entry.index} in term {entry.term}")

    def tell(self, line: str) -> None:
        self.story.append(f"{self.now / 1000:8.3f} {line}")

    # The end

    def heal(self) -> None:
        """No more faults, everybody back; then a proposal and a read must get through."""
        self.tell("heal")
        self.faults = Faults()
        for node in self.nodes.values():
            node.pace, node.sync_ms = 1.0, 2.0
            if node.raft is None and node.life < GONE:
                self.start(node.peer)
        deadline = self.now + HEAL_MS_MAX
        goal: int | None = None
        term = 0
        while self.now < deadline:
            self.advance(100.0)
            leader = self.leader()
            if leader is None or leader.raft is None:
                continue
            if goal is None or term != leader.term:  # what an earlier leader took may be gone with it
                goal, term = self.propose(leader, b"after the heal"), leader.term
            members = [self.nodes[peer] for peer in quorum.members(leader.raft.status().configuration)]
            if self._read_works(leader) and goal and all(node.raft is None or node.index >= goal for node in members):
                return
        raise Violation(f"no progress {HEAL_MS_MAX / 1000:.0f} s after the heal")

    def _read_works(self, leader: Node) -> bool:
        before = self.reads_served
        self.read(leader)
        self.advance(50.0)
        return self.reads_served > before

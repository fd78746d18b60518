"""A simulated group of Raft cores on integer time: one seed drives clocks, network, disks, clients and faults.

Time is whole milliseconds. Of one millisecond, first the ticks are done that are due, in order of the nodes; then what
arrives and what is synced, in the order in which it was sent off. Ticks in which a node only counts are done when
something else happens to it (`raft_quiet`), so that a calm mesh costs little more than its messages.

`raft_safety` checks every step, `raft_group` adds clients and operators, `raft_chaos.run` drives all of it.
"""

import hashlib
import heapq
import random
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from mesh.raft.raft import Raft, RaftOptions
from mesh.raft.ready import Configuration, Entry, Outgoing, Ready
from protocols.codec import decode, encode
from protocols.ids import PeerId
from protocols.raft import MESSAGE_BYTES_MAX, RAFT_MESSAGES, RaftMessage
from tests.simulation.life import Violation
from tests.simulation.raft_medium import records_of
from tests.simulation.raft_quiet import quiet_ticks, skip
from tests.simulation.raft_safety import GONE, Node, Safety, is_majority

TICK_MS = 50
LATE_MS = 20
"""A message that takes longer counts as delayed."""
STORY_LINES_MAX = 200
ENCODE_EVERY = 50
"""Messages, of which one goes through bytes."""
NEVER = 1 << 60

OPTIONS = RaftOptions(
    heartbeat_ticks=6,
    hang_ticks=30,
    append_bytes_max=400,
    inflight_messages_max=4,
    inflight_bytes_max=1500,
    uncommitted_bytes_max=6000,
    committed_bytes_max=600,
    chunk_bytes=64,
    trailing_entries=3,
    reads_max=16,
)
"""Small bounds, so that all of them are met; heartbeats as `mesh.consensus` has them."""

_by_name = attrgetter("peer")

Event = tuple[Callable[[Any, Any, Any], None], Any, Any, Any]


@dataclass(slots=True)
class Weather:
    """Faults of the network and of scheduling."""

    loss: float = 0.0
    duplication: float = 0.0
    delay_ms: tuple[int, int] = (1, 1)
    cut: set[tuple[PeerId, PeerId]] = field(default_factory=set)
    """Directed links that carry nothing."""
    idle: float = 0.0
    """How likely something else comes between a `Ready` that saves nothing and its end."""

    @property
    def fair(self) -> bool:
        return not self.loss and not self.duplication and self.delay_ms == (1, 1)


class Rig:
    def __init__(self, seed: int, founders: int, options: RaftOptions = OPTIONS, skipping: bool = True) -> None:
        self.rng = random.Random(seed)
        self.options = options
        self.skipping = skipping
        self.now = 0
        self.nodes: dict[PeerId, Node] = {}
        self.weather = Weather()
        self.faults: Counter[str] = Counter()
        self.reads_served = 0
        self.story: deque[str] = deque(maxlen=STORY_LINES_MAX)
        self.safety = Safety(self.nodes, options, self.tell)
        self._events: dict[int, list[Event]] = {}
        self._alarms: dict[int, list[Node]] = {}
        self._busy: list[int] = []
        """Heap of the milliseconds in which there is something."""
        self._node_ms = 0
        self._counted_ms = 0
        self._arrivals: dict[tuple[PeerId, PeerId], int] = {}
        """When the last message of a link arrives, in foul weather."""
        self._names = 0
        self._context = 0
        self._delivered = 0
        peers = [self.new_name() for _ in range(founders)]
        self.founding = Configuration(voters=tuple(peers))
        for peer in peers:
            self.start(peer)

    # Nodes

    def new_name(self) -> PeerId:
        self._names += 1
        return PeerId(f"n{self._names:02}")

    def start(self, peer: PeerId) -> None:
        node = self.nodes.setdefault(peer, Node(peer))
        medium = node.medium
        if medium.full or node.gone:
            return
        if medium.rotten:
            self.faults["bit rot found"] += 1
            self.give_up(node, "finds that its log rotted")
            return
        medium.load()
        self._count_time()
        node.life += 1
        node.saving = None
        node.asked.clear()
        node.heard.clear()
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
        node.role, node.term, node.commit = None, node.raft._member.term, node.raft._member.log.committed
        node.ticked_ms, node.alarm_ms = self.now, NEVER
        self.tell(f"{peer} starts at {medium.hard_state}, last {medium.last_index}")
        self.settle(node)

    def crash(self, node: Node) -> None:
        """Of the writes that are not synced any prefix may have made it: nobody knows which."""
        if node.raft is None:
            return
        self.faults["crash"] += 1
        kept = torn = 0
        if node.saving is not None and self.rng.random() < 0.4:
            kept = self.rng.randint(1, records_of(node.saving) or 1)
            torn = self.rng.random() < 0.3
            node.medium.save_in_part(node.saving, kept, torn)
            self.faults["torn tail" if torn else "unsynced writes kept in part"] += 1
        self.tell(f"{node.peer} crashes, {kept} records of what it wrote are there{', the last torn' if torn else ''}")
        self._stop(node)

    def give_up(self, node: Node, why: str) -> None:
        """It never comes back under this peer ID."""
        self._stop(node)
        node.life += GONE
        self.tell(f"{node.peer} {why}: gone for ever")

    def _stop(self, node: Node) -> None:
        self._count_time()
        node.raft = node.saving = None
        node.life += 1

    def alive(self) -> list[Node]:
        return [node for node in self.nodes.values() if node.raft is not None]

    def bears_loss_of(self, peers: Iterable[PeerId]) -> bool:
        """Whether every configuration that may be in effect has a quorum that can come back without them."""
        lost = set(peers)
        left = [peer for peer, node in self.nodes.items() if not node.gone and not node.medium.rotten]
        left = [peer for peer in left if peer not in lost]
        return all(is_majority(each, left) for each in self.safety.in_effect(self.founding))

    # Time

    def _count_time(self) -> None:
        self._node_ms += (self.now - self._counted_ms) * sum(node.raft is not None for node in self.nodes.values())
        self._counted_ms = self.now

    @property
    def node_seconds(self) -> float:
        self._count_time()
        return self._node_ms / 1000

    def at(self, when: int) -> list[Event]:
        """What happens at a later millisecond."""
        events = self._events.get(when)
        if events is None:
            assert when > self.now
            events = self._events[when] = []
            heapq.heappush(self._busy, when)
        return events

    def advance(self, ms: int) -> None:
        end = self.now + ms
        busy = self._busy
        while busy and busy[0] <= end:
            self.now = now = heapq.heappop(busy)
            alarmed = self._alarms.pop(now, None)
            if alarmed is not None:
                if len(alarmed) > 1:
                    alarmed.sort(key=_by_name)
                for node in alarmed:
                    self._alarm(node)
            for handler, first, second, third in self._events.pop(now, ()):
                handler(first, second, third)
        self.now = end

    def _alarm(self, node: Node) -> None:
        """The tick is due that may do something, or was when the alarm was set."""
        raft = node.raft
        if raft is None or node.alarm_ms > self.now:
            return
        node.alarm_ms = NEVER
        owed = (self.now - node.ticked_ms) // node.period_ms
        quiet = quiet_ticks(raft) if self.skipping else 1
        if 0 < owed < quiet:
            self._skip(node, raft, owed)
        elif owed:
            assert owed == quiet, "an alarm came late"
            self._skip(node, raft, quiet - 1)
            self._tick(node, raft)
        self._set_alarm(node)

    def _set_alarm(self, node: Node) -> None:
        assert node.raft is not None
        quiet = quiet_ticks(node.raft) if self.skipping else 1
        due = node.ticked_ms + quiet * node.period_ms
        if due < node.alarm_ms:
            node.alarm_ms = due
            alarmed = self._alarms.get(due)
            if alarmed is None:
                self._alarms[due] = [node]
                heapq.heappush(self._busy, due)
            else:
                alarmed.append(node)

    def touch(self, node: Node) -> None:
        """Count the ticks that its clock owes by now: before its alarm, none of them does more."""
        raft = node.raft
        assert raft is not None
        assert node.alarm_ms > self.now
        owed = (self.now - node.ticked_ms) // node.period_ms
        if owed:
            self._skip(node, raft, owed)

    def _skip(self, node: Node, raft: Raft, ticks: int) -> None:
        node.ticked_ms += ticks * node.period_ms
        node.ticks += ticks
        if ticks:
            skip(raft, ticks)

    def _tick(self, node: Node, raft: Raft) -> None:
        node.ticked_ms += node.period_ms
        node.ticks += 1
        raft.tick()
        if node.saving is not None and raft._member.messages:
            self._send(node, raft.take_messages())  # beside the save
        self.settle(node)
        self.safety.leads_rightly(node)

    def jump(self, node: Node, ticks: int) -> None:
        """Its clock jumps ahead."""
        self.touch(node)
        for _ in range(ticks):
            if node.raft is not None:
                node.ticks += 1
                node.raft.tick()
        self.settle(node)

    def set_clock(self, node: Node, period_ms: int) -> None:
        if node.raft is not None:
            self.touch(node)
            node.ticked_ms = self.now
        node.period_ms = period_ms
        node.alarm_ms = NEVER
        if node.raft is not None:
            self._set_alarm(node)

    # Doing what a node's core wants

    def settle(self, node: Node) -> None:
        raft = node.raft
        assert raft is not None
        self.safety.step(node)
        while node.saving is None and raft.has_ready():
            ready = raft.ready()
            node.saving_end = node.end
            if ready.entries:
                self.safety.ready(node, ready)
            if ready.messages:
                self._send(node, ready.messages)
            if ready.must_sync or (self.weather.idle and self.rng.random() < self.weather.idle):
                self._save(node, ready)
            else:
                self._finish(node, raft, ready)
                self.safety.step(node)
        self._set_alarm(node)

    def _save(self, node: Node, ready: Ready) -> None:
        node.saving, node.saving_since = ready, node.ticks
        if node.sync_ms is not None or not ready.must_sync:
            longest = (node.sync_ms or 0) * 2 if ready.must_sync else 2
            self.at(self.now + 1 + int(self.rng.random() * longest)).append((self._synced, node, node.life, ready))

    def _synced(self, node: Node, life: int, ready: Ready) -> None:
        raft = node.raft
        if raft is None or node.life != life or node.saving is not ready:
            return
        self.touch(node)
        if ready.must_sync:
            if node.medium.full:
                self.faults["full disk"] += 1
                self.tell(f"{node.peer} stops: its disk is full")
                self._stop(node)
                return
            if ready.snapshot is not None:
                node.medium.save_snapshot(ready.snapshot)
            node.medium.save(ready.hard_state, ready.entries)
        node.saving = None
        self._finish(node, raft, ready)
        self.settle(node)

    def _finish(self, node: Node, raft: Raft, ready: Ready) -> None:
        """After the sync."""
        self.safety.saved(node)
        if ready.messages_after_sync:
            self._send(node, ready.messages_after_sync)
        if ready.snapshot is not None:
            node.index, node.digest = ready.snapshot.index, ready.snapshot.data[:16]
            self.safety.is_state(node, node.index, node.digest)
        for entry in ready.committed:
            self._apply(node, entry)
        for read in ready.reads:
            self._serve(node, read.context, read.index)
        for context in ready.reads_failed:
            node.asked.pop(context, None)
        raft.advance()
        if ready.committed or ready.snapshot_wanted:
            self._maybe_compact(node, raft, ready.snapshot_wanted)

    def _apply(self, node: Node, entry: Entry) -> None:
        if entry.index != node.index + 1:
            raise Violation(f"{node.peer} applies {entry.index} after {node.index}")
        node.index = entry.index
        content = b"%d %d %d %b" % (entry.index, entry.term, entry.kind, entry.data)
        node.digest = hashlib.blake2b(node.digest + content, digest_size=16).digest()
        self.safety.applies(node, node.index, node.digest)

    def _maybe_compact(self, node: Node, raft: Raft, wanted: bool) -> None:
        held = node.medium.snapshot
        if wanted or (node.index - (held.index if held else 0) >= 12 and self.rng.random() < 0.2):
            snapshot = raft.make_snapshot(node.index, node.digest + bytes(int(self.rng.random() * 300)))
            if snapshot is not None and not node.medium.full:
                node.medium.save_snapshot(snapshot)
                raft.compact(snapshot)

    # Network

    def _send(self, node: Node, messages: tuple[Outgoing, ...]) -> None:
        self.safety.promises(node, messages)
        weather, sender = self.weather, node.peer
        if weather.fair:
            events = self.at(self.now + 1)
            for to, message in messages:
                events.append((self._deliver, to, sender, message))
            return
        for to, message in messages:
            if self.rng.random() < weather.loss:
                self.faults["message lost"] += 1
                continue
            if self.rng.random() < weather.duplication:
                self.faults["message duplicated"] += 1
                self._post(sender, to, message)
            self._post(sender, to, message)

    def _post(self, sender: PeerId, to: PeerId, message: RaftMessage) -> None:
        delay = self.rng.randint(*self.weather.delay_ms)
        arrival = self.now + delay
        self.faults["message delayed"] += delay > LATE_MS
        self.faults["message reordered"] += arrival < self._arrivals.get((sender, to), 0)
        self._arrivals[sender, to] = arrival
        self.at(arrival).append((self._deliver, to, sender, message))

    def _deliver(self, to: PeerId, sender: PeerId, message: RaftMessage) -> None:
        node = self.nodes.get(to)
        if node is None or node.raft is None:
            return
        if self.weather.cut and (sender, to) in self.weather.cut:
            self.faults["message cut off"] += 1
            return
        self.touch(node)
        self._delivered += 1
        if self._delivered % ENCODE_EVERY == 0:
            raw = encode(message)
            assert len(raw) < MESSAGE_BYTES_MAX
            message = decode(raw, *RAFT_MESSAGES)
        node.heard[sender] = node.ticks
        node.raft.step(sender, message)
        self.settle(node)

    def _serve(self, node: Node, context: int, index: int) -> None:
        floor = node.asked.pop(context)
        if index < floor:
            raise Violation(f"Reads: {node.peer} may read at {index} although {floor} was committed when it asked")
        self.reads_served += 1

    def tell(self, line: str) -> None:
        self.story.append(f"{self.now / 1000:9.3f} {line}")

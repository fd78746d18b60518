"""The nodes of a script: a disk, a core that runs on it, and what no members of one group may ever contradict."""

import random

from mesh.raft import invariants
from mesh.raft.raft import Raft, RaftOptions, RoleName
from mesh.raft.ready import Configuration, Entry, HardState, Ready, Snapshot
from protocols.ids import PeerId


class Longest(random.Random):
    """Timers run as long as they may: loyalty to a silent leader ends after 20 ticks, elections begin after 25."""

    def randint(self, a: int, b: int) -> int:
        return b


class Group:
    """What all members of one group together must never contradict."""

    def __init__(self, options: RaftOptions) -> None:
        self.options = options
        self.applied: dict[int, Entry] = {}
        self.leaders: dict[int, PeerId] = {}

    def apply(self, entry: Entry) -> None:
        assert self.applied.setdefault(entry.index, entry) == entry, f"two entries were applied at {entry.index}"

    def lead(self, term: int, peer: PeerId) -> None:
        assert self.leaders.setdefault(term, peer) == peer, f"term {term} has two leaders"


class Host:
    """One node: what is on its disk, and its core while it runs."""

    def __init__(self, founding: Configuration, group: Group) -> None:
        self.founding = founding
        self.group = group
        self.raft: Raft | None = None
        self.hard_state = HardState()
        self.snapshot: Snapshot | None = None
        self.entries: tuple[Entry, ...] = ()
        self.doing: Ready | None = None
        self.applied = 0

    def start(self, peer: PeerId) -> None:
        self.raft = Raft(
            peer=peer,
            options=self.group.options,
            rng=Longest(),
            hard_state=self.hard_state,
            snapshot=self.snapshot,
            entries=self.entries,
            configuration=self.founding,
        )
        self.applied = self.snapshot.index if self.snapshot else 0

    def save_snapshot(self, ready: Ready) -> None:
        """As `mesh/disk/log.py`: what it covers goes, and everything if the log conflicts with it."""
        if ready.snapshot is not None:
            index, term = ready.snapshot.index, ready.snapshot.term
            fits = any((entry.index, entry.term) == (index, term) for entry in self.entries)
            self.snapshot = ready.snapshot
            self.entries = tuple(entry for entry in self.entries if fits and entry.index > index)

    def save(self, ready: Ready) -> None:
        self.save_snapshot(ready)
        if ready.hard_state is not None:
            self.hard_state = ready.hard_state
        if ready.entries:
            first = ready.entries[0].index
            self.entries = (*(entry for entry in self.entries if entry.index < first), *ready.entries)

    def check(self) -> None:
        if self.raft is not None:
            invariants.check(self.raft)
            now = self.raft.status()
            if now.role is RoleName.LEADER:
                self.group.lead(now.term, now.peer)

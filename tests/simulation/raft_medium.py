"""A member's disk as the core's contract sees it: a save is synced or it is not, and what is synced survives a crash.

Of a save that a crash interrupts, any prefix may be found again: the snapshot, then some of the entries, then the hard
state. A record that was torn, like one that rotted, does not match its checksum: a torn tail was never promised to
anybody and is cut off; a synced record that rotted means that the node must not come back (`Rotten`).
"""

from dataclasses import dataclass, field

from mesh.raft.ready import Entry, HardState, Ready, Snapshot
from protocols.errors import StorageError


class Rotten(StorageError):
    """A stored block does not match its checksum."""


@dataclass(slots=True)
class Medium:
    hard_state: HardState = field(default_factory=HardState)
    snapshot: Snapshot | None = None
    entries: list[Entry] = field(default_factory=list)
    torn: int | None = None
    """Index of an entry that is there in part."""
    rotten: bool = False
    full: bool = False
    """No save succeeds."""

    @property
    def last_index(self) -> int:
        return self.entries[-1].index if self.entries else (self.snapshot.index if self.snapshot else 0)

    def holds(self, index: int, term: int) -> bool:
        """Whether the entry is here, or something that stands for it."""
        if self.snapshot is not None and index <= self.snapshot.index:
            return True
        if not self.entries or (self.torn is not None and index >= self.torn):
            return False
        offset = index - self.entries[0].index
        return 0 <= offset < len(self.entries) and self.entries[offset].term == term

    def load(self) -> None:
        """What a restart finds before it believes the rest."""
        if self.rotten:
            raise Rotten("a block of the log does not match its checksum")
        if self.torn is not None:
            self._cut(self.torn)
            self.torn = None

    def save(self, hard_state: HardState | None, entries: tuple[Entry, ...]) -> None:
        if hard_state is not None:
            self.hard_state = hard_state
        if entries:
            self._cut(entries[0].index)
            assert entries[0].index == self.last_index + 1, "no gap on disk"
            self.entries += entries

    def save_in_part(self, ready: Ready, records: int, torn: bool) -> None:
        """The first `records` of snapshot, entries and hard state; `torn`: of the last one only some bytes."""
        if ready.snapshot is not None and records > 0:
            records -= 1
            if records == 0 and torn:
                return
            self.save_snapshot(ready.snapshot)
        kept = ready.entries[:records]
        self.save(ready.hard_state if records > len(ready.entries) and not torn else None, kept)
        if torn and 0 < records <= len(ready.entries):
            self.torn = kept[-1].index

    def save_snapshot(self, snapshot: Snapshot) -> None:
        if self.snapshot is not None and self.snapshot.index >= snapshot.index:
            return
        agrees = any((entry.index, entry.term) == (snapshot.index, snapshot.term) for entry in self.entries)
        self.entries = [entry for entry in self.entries if entry.index > snapshot.index] if agrees else []
        self.snapshot = snapshot

    def _cut(self, index: int) -> None:
        while self.entries and self.entries[-1].index >= index:
            self.entries.pop()


def records_of(ready: Ready) -> int:
    return (ready.snapshot is not None) + len(ready.entries) + (ready.hard_state is not None)

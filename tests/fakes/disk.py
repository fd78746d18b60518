"""A disk in memory: what is not synced when its node dies is lost. Implements the Disk port."""

import random
from collections.abc import Sequence

import trio

from mesh.ports import Saved
from mesh.raft.ready import Entry, HardState, Snapshot
from protocols.errors import StorageError


class FakeDisk:
    """Outlives the node that uses it. `sync` are the bounds of a sync, in seconds."""

    def __init__(self, seed: int = 0, sync: tuple[float, float] = (0.0005, 0.003)) -> None:
        self._rng = random.Random(seed)
        self.sync = sync
        self.hard_state = HardState()
        self.snapshot: Snapshot | None = None
        self.entries: tuple[Entry, ...] = ()
        self.aside: list[Saved] = []
        self.broken = False
        self.syncs = 0

    def load(self) -> Saved:
        return Saved(self.hard_state, self.snapshot, self.entries)

    async def _sync(self) -> None:
        await trio.sleep(self._rng.uniform(*self.sync))
        if self.broken:
            raise StorageError("the disk that holds the log is full")
        self.syncs += 1

    async def save(self, hard_state: HardState | None, entries: Sequence[Entry]) -> None:
        await self._sync()
        if hard_state is not None:
            self.hard_state = hard_state
        if entries:
            first = entries[0].index
            assert [entry.index for entry in entries] == list(range(first, first + len(entries)))
            kept = tuple(entry for entry in self.entries if entry.index < first)
            base = self.snapshot.index if self.snapshot else 0
            assert base < first <= base + len(kept) + 1, "a gap in the log"
            self.entries = kept + tuple(entries)

    async def save_snapshot(self, snapshot: Snapshot) -> None:
        await self._sync()
        at = next((entry for entry in self.entries if entry.index == snapshot.index), None)
        matches = at is not None and at.term == snapshot.term
        self.snapshot = snapshot
        self.entries = tuple(entry for entry in self.entries if entry.index > snapshot.index) if matches else ()

    async def set_aside(self) -> None:
        await self._sync()
        self.aside.append(self.load())
        self.hard_state, self.snapshot, self.entries = HardState(), None, ()

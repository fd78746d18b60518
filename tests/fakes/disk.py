"""A disk in memory, for the log of one member. Implements the Disk port.

A write is a transaction, as it is on the real one: after a crash all of it is there, or nothing (a torn tail is
discarded by its checksums). What is damaged is found when it is read, or never, if it was overwritten before. After the
first failed write nothing more is written, until the disk is opened again.
"""

import random
from collections import Counter
from collections.abc import Callable, Sequence

import trio

from mesh.ports import Saved
from mesh.raft.ready import Entry, HardState, Snapshot
from protocols.errors import StorageError

SYNC_SECONDS = (0.0005, 0.003)


class FakeDisk:
    """Outlives the node that uses it. `sync` are the bounds of a sync, in seconds."""

    def __init__(
        self, seed: int = 0, sync: tuple[float, float] = SYNC_SECONDS, faults: Counter[str] | None = None
    ) -> None:
        self._rng = random.Random(seed)
        self.sync = sync
        self.hard_state = HardState()
        self.snapshot: Snapshot | None = None
        self.entries: tuple[Entry, ...] = ()
        self.aside: list[Saved] = []
        self.broken = False
        self.hung: trio.Event | None = None
        """Syncs do not return before it is set."""
        self.rotten: set[int | str] = set()
        """Rows with a flipped bit: indexes of entries, "hard state", "snapshot"."""
        self.syncs = 0
        self.torn = 0.5
        """The probability that a write under way at a crash is not there after it."""
        self.faults = Counter() if faults is None else faults
        self._failed = False

    @property
    def last_index(self) -> int:
        """What is on disk ends there."""
        return self.entries[-1].index if self.entries else self.snapshot.index if self.snapshot else 0

    def open(self) -> None:
        """A new process does."""
        self._failed = False

    def load(self) -> Saved:
        for row in sorted(self.rotten, key=str):
            self.faults["damaged log found"] += 1
            raise StorageError(f"the log is damaged: row {row} has a wrong checksum")
        return Saved(self.hard_state, self.snapshot, self.entries)

    def rot(self) -> bool:
        """Flip a bit somewhere; whether there was anything to flip."""
        rows: list[int | str] = [entry.index for entry in self.entries]
        rows += ["snapshot"] if self.snapshot else []
        if rows:
            self.rotten.add(self._rng.choice([*rows, "hard state"]))
        return bool(rows)

    async def _transact(self, work: Callable[[], None]) -> None:
        if self._failed:
            raise StorageError("the disk that holds the log failed before")
        try:
            if self.hung is not None:
                await self.hung.wait()
            await trio.sleep(self._rng.uniform(*self.sync))
        except trio.Cancelled:
            kept = self._rng.random() >= self.torn and not self.broken
            self.faults["crash after an unsynced write" if kept else "torn write"] += 1
            if kept:
                work()
            raise
        if self.broken:
            self._failed = True
            raise StorageError("the disk that holds the log is full")
        self.syncs += 1
        work()

    async def save(self, hard_state: HardState | None, entries: Sequence[Entry]) -> None:
        await self._transact(lambda: self._save(hard_state, entries))

    def _save(self, hard_state: HardState | None, entries: Sequence[Entry]) -> None:
        if hard_state is not None:
            self.hard_state = hard_state
            self.rotten.discard("hard state")
        if entries:
            first = entries[0].index
            assert [entry.index for entry in entries] == list(range(first, first + len(entries)))
            kept = tuple(entry for entry in self.entries if entry.index < first)
            base = self.snapshot.index if self.snapshot else 0
            assert base < first <= base + len(kept) + 1, "a gap in the log"
            self.entries = kept + tuple(entries)
            self.rotten = {row for row in self.rotten if isinstance(row, str) or row < first}

    async def save_snapshot(self, snapshot: Snapshot) -> None:
        await self._transact(lambda: self._save_snapshot(snapshot))

    def _save_snapshot(self, snapshot: Snapshot) -> None:
        if self.snapshot is not None and self.snapshot.index >= snapshot.index:
            return
        at = next((entry for entry in self.entries if entry.index == snapshot.index), None)
        matches = at is not None and at.term == snapshot.term
        self.snapshot = snapshot
        self.entries = tuple(entry for entry in self.entries if entry.index > snapshot.index) if matches else ()
        self.rotten &= {"hard state", *(entry.index for entry in self.entries)}

    async def set_aside(self) -> None:
        await self._transact(self._set_aside)

    def _set_aside(self) -> None:
        self.aside.append(Saved(self.hard_state, self.snapshot, self.entries))
        self.hard_state, self.snapshot, self.entries = HardState(), None, ()
        self.rotten.clear()

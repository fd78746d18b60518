"""The log: a snapshot's position, the entries after it, and how far they are committed, applied and saved.

Invariants: entries are contiguous; terms never fall; `applied` <= `committed` <= `last_index`; `saved` <= `last_index`;
nothing at or below `committed` is ever truncated. The entries in memory may begin before the snapshot's index (the
trailing ones, kept for members a little behind), never after it.

All entries since the last compaction are in memory: the service bounds them by making snapshots. Rejected: reading them
back from the disk, which would put I/O, or a request for it, into the core.
"""

from collections.abc import Iterable, Sequence

from mesh.raft.configuration import Configurations
from mesh.raft.errors import LogLost
from protocols.errors import RemoteProtocolError
from protocols.raft import Configuration, Entry, Snapshot

ENTRY_OVERHEAD_BYTES = 48
"""What an entry costs beyond its data, on the wire and in memory."""


def entry_bytes(entry: Entry) -> int:
    return len(entry.data) + ENTRY_OVERHEAD_BYTES


class RaftLog:
    def __init__(self, snapshot: Snapshot | None, entries: Sequence[Entry], configuration: Configuration) -> None:
        """`configuration` holds before the first entry, if there is no snapshot."""
        self.snapshot = snapshot
        self._base_index = snapshot.index if snapshot else 0
        self._base_term = snapshot.term if snapshot else 0
        self._entries: list[Entry] = []
        self.configurations = Configurations(self._base_index, snapshot.configuration if snapshot else configuration)
        self.committed = self.applied = self.saved = self._base_index
        self.restored: Snapshot | None = None
        """Came from the leader, not handed out yet."""
        self.append(entries)
        self.saved = self._saving = self.last_index

    @property
    def first_index(self) -> int:
        """Of the entries in memory."""
        return self._base_index + 1

    @property
    def last_index(self) -> int:
        return self._base_index + len(self._entries)

    @property
    def last_term(self) -> int:
        return self._entries[-1].term if self._entries else self._base_term

    def term(self, index: int) -> int | None:
        """None: not here, compacted away or not written yet."""
        if index == self._base_index:
            return self._base_term
        if self.first_index <= index <= self.last_index:
            return self._entries[index - self.first_index].term
        return None

    def entry(self, index: int) -> Entry:
        return self._entries[index - self.first_index]

    def slice(self, first: int, last: int, bytes_max: int) -> tuple[Entry, ...]:
        """Entries `first` to `last`, as many as fit into `bytes_max`, at least one if there is one."""
        taken: list[Entry] = []
        size = 0
        for index in range(first, min(last, self.last_index) + 1):
            entry = self.entry(index)
            size += entry_bytes(entry)
            if taken and size > bytes_max:
                break
            taken.append(entry)
        return tuple(taken)

    def begin_save(self) -> tuple[Entry, ...]:
        """What is not on the disk yet; `mark_saved` says that it is."""
        self._saving = self.last_index
        return tuple(self._entries[self.saved - self._base_index :])

    def up_to_date(self, last_index: int, last_term: int) -> bool:
        """Whether a log that ends like this is at least as up to date as ours (section 5.4.1)."""
        return (last_term, last_index) >= (self.last_term, self.last_index)

    def append(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            assert entry.index == self.last_index + 1, f"entry {entry.index} after {self.last_index}"
            assert entry.term >= self.last_term, f"term {entry.term} after {self.last_term}"
            self.configurations.append(entry)  # refuses what it can't read, before anything changed
            self._entries.append(entry)

    def merge(self, entries: Sequence[Entry]) -> None:
        """Append what a leader sent, whose predecessor is ours; a conflicting tail of ours goes (section 5.3)."""
        for position, entry in enumerate(entries):
            if self.term(entry.index) != entry.term:
                self._truncate(entry.index)
                self.append(entries[position:])
                return

    def _truncate(self, index: int) -> None:
        if index <= self.committed:
            raise RemoteProtocolError(f"a leader wants to replace the committed entry {index}")
        del self._entries[index - self.first_index :]
        self.saved, self._saving = min(self.saved, self.last_index), min(self._saving, self.last_index)
        self.configurations.truncate(index)

    def commit(self, index: int) -> bool:
        """Whether that was news. `LogLost` if what is committed here isn't here."""
        if index > self.last_index:
            raise LogLost(
                f"the log ends at {self.last_index} although this node acknowledged {index}: "
                "its disk lost synced writes, and it must start again with a fresh home"
            )
        news = index > self.committed
        self.committed = max(self.committed, index)
        return news

    def conflict(self, index: int, term: int) -> int:
        """The largest index, not over `index`, whose entry may agree with a log that has `term` there: terms never
        fall, so nothing with a larger term does."""
        index = min(index, self.last_index)
        while (ours := self.term(index)) is not None and ours > term:
            index -= 1
        return index

    def mark_saved(self) -> None:
        """What the save that was begun last had of this log is on disk. What was replaced since is not; what stands
        before that must count, or it would be written once more, and a crash in the middle of that would lose it."""
        self.saved = max(self.saved, self._saving)

    def restore(self, snapshot: Snapshot) -> None:
        """The leader's snapshot takes the place of everything here."""
        assert snapshot.index > self.committed, "a snapshot never takes committed entries back"
        self._entries.clear()
        self._base_index, self._base_term = snapshot.index, snapshot.term
        self.configurations = Configurations(snapshot.index, snapshot.configuration)
        self.committed = self.applied = self.saved = self._saving = snapshot.index
        self.snapshot = self.restored = snapshot

    def compact(self, snapshot: Snapshot, trailing: int) -> None:
        """`snapshot` is of applied entries; of those, the last `trailing` stay. An older one changes nothing."""
        if self.snapshot is not None and snapshot.index <= self.snapshot.index:
            return
        self.snapshot = snapshot
        index = max(self._base_index, min(snapshot.index, self.saved) - trailing)
        term = self.term(index)
        assert term is not None
        del self._entries[: index - self._base_index]
        self._base_index, self._base_term = index, term
        self.configurations.compact(index)

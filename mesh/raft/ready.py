"""What the core hands out to be done, and what it is built from again after a restart.

The contract, in this order, by one task:

    ready = raft.ready()
    send ready.messages                          # beside the saving
    disk.save_snapshot(ready.snapshot), and make the state machine of it
    disk.save(ready.hard_state, ready.entries)   # synced, in one go
    send ready.messages_after_sync
    apply ready.committed, in order; serve ready.reads once their index is applied
    raft.advance()

`step`, `tick` and `propose` may be called between `ready` and `advance`, and after them `raft.take_messages()`: what
it gives may leave at once, too (heartbeats, beside a slow sync). Sending may fail silently; saving may not.
"""

from dataclasses import dataclass
from typing import NamedTuple

from protocols.ids import PeerId
from protocols.raft import Configuration, Entry, EntryKind, HardState, RaftMessage, Snapshot

__all__ = [
    "Configuration",
    "Entry",
    "EntryKind",
    "HardState",
    "Outgoing",
    "ReadState",
    "Ready",
    "Snapshot",
]


@dataclass(frozen=True, slots=True)
class ReadState:
    """A read asked for under `context` may be served once `index` is applied."""

    context: int
    index: int


class Outgoing(NamedTuple):
    to: PeerId
    message: RaftMessage


@dataclass(frozen=True, slots=True)
class Ready:
    hard_state: HardState | None
    """To be saved; None: as before (a commit index alone is saved with the next entries: it may be lost)."""
    snapshot: Snapshot | None
    """Came from the leader: save it first, and replace the state machine by it."""
    entries: tuple[Entry, ...]
    """To be saved; they replace whatever stands at their indexes and after."""
    messages: tuple[Outgoing, ...]
    """May leave at once: a leader's appends and heartbeats, which promise nothing of its own disk."""
    messages_after_sync: tuple[Outgoing, ...]
    """Must not leave before everything above is synced."""
    committed: tuple[Entry, ...]
    """To be applied, of every kind; all of them are saved once `entries` are."""
    reads: tuple[ReadState, ...]
    reads_failed: tuple[int, ...]
    snapshot_wanted: bool = False
    """A member waits for a snapshot newer than the log's: make one, when it suits, and `compact`."""
    """Contexts of reads that will get no answer, since the leader changed: ask again."""

    @property
    def must_sync(self) -> bool:
        return self.hard_state is not None or self.snapshot is not None or bool(self.entries)

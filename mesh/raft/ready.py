"""What the core hands out to be done, and what it is built from again after a restart."""

import enum
from dataclasses import dataclass

from protocols.codec import message
from protocols.ids import PeerId


@message("r.hard")
class HardState:
    """Figure 2's persistent state, and the commit index (an optimisation that may be lost)."""

    term: int = 0
    vote: PeerId | None = None
    commit: int = 0


class EntryKind(enum.IntEnum):
    NORMAL = 0
    CONFIGURATION = 1
    NOOP = 2


@message("r.entry")
class Entry:
    index: int
    term: int
    kind: EntryKind
    data: bytes


@message("r.configuration")
class Configuration:
    """Who is in the group. In joint consensus `outgoing` is the old set of voters; otherwise it is empty."""

    voters: tuple[PeerId, ...] = ()
    outgoing: tuple[PeerId, ...] = ()
    learners: tuple[PeerId, ...] = ()


@message("r.snapshot")
class Snapshot:
    """The state machine at `index`, whole, and the configuration there."""

    index: int
    term: int
    configuration: Configuration
    data: bytes


@dataclass(frozen=True, slots=True)
class ReadState:
    """A read asked for under `context` may be served once `index` is applied."""

    context: int
    index: int

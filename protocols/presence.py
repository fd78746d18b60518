"""Presence: what a node gossips of itself. Soft state, a hint: never in the log, never needed for safety."""

import enum
from collections.abc import Mapping

from protocols.codec import Value, message
from protocols.ids import Cid, PeerId

PROTOCOL = "/mesh/presence/1.0.0"

TOPIC = "mesh/presence/1"
"""Gossip: each message is one `Presence`."""

PRESENCES_PER_MESSAGE_MAX = 128


class Role(enum.StrEnum):
    """What a node is willing to do; AUTO is all of it."""

    AUTO = "auto"
    COORDINATOR = "coordinator"
    WORKER = "worker"
    CLIENT = "client"

    @property
    def works(self) -> bool:
        return self in (Role.AUTO, Role.WORKER)

    @property
    def votes(self) -> bool:
        return self in (Role.AUTO, Role.COORDINATOR)


class NodeState(enum.StrEnum):
    """How a node is seen by another."""

    ALIVE = "alive"
    SUSPECT = "suspect"
    DEAD = "dead"
    DRAINING = "draining"


@message("p.link")
class Link:
    """A live connection of the node that advertises it."""

    peer: PeerId
    rtt: float
    """Round-trip time, seconds (smoothed)."""


@message("p.neighbours")
class Neighbours:
    """Where the nodes of a mesh were last: what a restarted node dials, on its disk."""

    addresses: tuple[tuple[PeerId, tuple[str, ...]], ...]


@message("p.presence")
class Presence:
    """One node's advertisement of itself.

    Newer is larger `(incarnation, sequence)`. `capabilities` has the names of interface.md ("cpu.cores", "memory",
    "os", "python", "gpu", labels); `raft` tells where the node stands in the log's group ("voter", "learner", "").
    """

    peer: PeerId
    name: str
    role: Role
    incarnation: int
    """Nanoseconds since the epoch when the process started."""
    sequence: int
    addresses: tuple[str, ...]
    slots: int
    busy: int
    draining: bool
    capabilities: Mapping[str, Value]
    load: Mapping[str, Value]
    """"cpu.percent", "memory.available", "disk.free": numbers that change all the time."""
    bundles: tuple[Cid, ...]
    """Bundles that the node holds whole, newest first."""
    links: tuple[Link, ...]
    mesh: str = ""
    """Identity of the node's log (its founding), empty for a node that has found none."""
    raft: str = ""
    term: int = 0
    coordinator: PeerId | None = None
    runs: int = 0
    """Runs in the node's log; two meshes born apart compare it."""


@message("p.version")
class Version:
    """How new a presence is that somebody holds."""

    peer: PeerId
    incarnation: int
    sequence: int


@message("p.exchange")
class Exchange:
    """Anti-entropy: what I hold, and what of it you asked for (or, at first, myself)."""

    held: tuple[Version, ...]
    presences: tuple[Presence, ...]


@message("p.newer")
class Newer:
    """The answer to `Exchange`: what I hold newer than you, and what you hold newer than I."""

    presences: tuple[Presence, ...]
    wanted: tuple[PeerId, ...]

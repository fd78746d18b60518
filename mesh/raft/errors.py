"""What the core refuses to do, and what it finds broken."""

from protocols.errors import MeshError, StorageError
from protocols.ids import PeerId


class NotLeader(MeshError):
    """Only the leader can do that. `leader` is who it is, as far as this member knows."""

    exit_code = 11

    def __init__(self, leader: PeerId | None) -> None:
        super().__init__(f"the coordinator is {leader}" if leader else "there is no coordinator now")
        self.leader = leader


class Overloaded(MeshError):
    """A bound is reached; nothing was done, and the same may be tried again later."""

    exit_code = 12


class ChangeRefused(MeshError):
    """A change of the configuration that can't be made, or not now."""

    exit_code = 12


class LogLost(StorageError):
    """This member acknowledged entries that it no longer has: it must not go on under this peer ID."""

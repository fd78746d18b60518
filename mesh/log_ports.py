"""The ports of the replicated log: the disk under a member, and the member as services see it. See `mesh/ports.py`."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from mesh.raft.configuration import Change
from mesh.raft.raft import RaftStatus
from mesh.raft.ready import Configuration, Entry, HardState, Snapshot
from protocols.ids import PeerId


@dataclass(frozen=True, slots=True)
class Saved:
    """What a disk holds of a Raft member: all that it ever promised."""

    hard_state: HardState
    snapshot: Snapshot | None
    entries: tuple[Entry, ...]
    """Those after the snapshot, contiguous."""


class Disk(Protocol):
    """The durable half of a Raft member. Each call is synced to disk when it returns; `StorageError` if it can't be."""

    def load(self) -> Saved:
        """Everything, checked; `StorageError` on damage (never a guess)."""

    async def save(self, hard_state: HardState | None, entries: Sequence[Entry]) -> None:
        """Write both in one sync. Entries replace whatever stands at their indexes and after."""

    async def save_snapshot(self, snapshot: Snapshot) -> None:
        """Replace the snapshot; entries up to its index go, and all of them if the log conflicts with it."""

    async def set_aside(self) -> None:
        """Keep the log under another name and go on with an empty one, as a member that leaves its group does.
        The oldest of those set aside may be deleted; the newest never is."""


@dataclass(frozen=True, slots=True)
class Applied:
    """A command that took effect, at `index` of the log; `result` is what `apply` returned for it."""

    index: int
    result: Any


class ReplicatedLog(Protocol):
    """This node's member of the mesh's Raft group. `mesh.consensus.Consensus` is one."""

    @property
    def mesh(self) -> str:
        """The group's identity."""

    @property
    def state(self) -> Any:
        """The applied `CoordinatorState`. Ask again after every await: a snapshot replaces it."""

    @property
    def applied(self) -> int: ...

    @property
    def version(self) -> int:
        """Grows with each change of the applied index, the leader, the term or the configuration."""

    @property
    def leader(self) -> PeerId | None: ...

    @property
    def term(self) -> int: ...

    @property
    def is_leader(self) -> bool:
        """Leader, and the no-op that opens its term is applied: `state` holds all that was ever committed."""

    @property
    def configuration(self) -> Configuration: ...

    async def propose(self, command: Any, timeout: float = 10.0) -> Applied:
        """Commit and apply one command, on the leader. `NotLeader`: it will not take effect; `OutcomeUnknown` (a
        `NoQuorum`): it may, or may not."""

    async def propose_many(self, commands: Sequence[Any], timeout: float = 10.0) -> list[Applied]:
        """The same for several, in order and in one batch."""

    async def barrier(self, timeout: float = 10.0) -> int:
        """A linearizable read: when it returns, `state` holds all that was committed when it was called."""

    async def snapshot(self, timeout: float = 10.0) -> Snapshot:
        """The state after such a read, with its position and configuration."""

    def status(self) -> RaftStatus: ...

    async def wait_changed(self, since: int) -> int:
        """Until `version` is over `since`; what it is then."""


class Group(ReplicatedLog, Protocol):
    """The same for those who run it and change who is in it."""

    def suspect(self, peer: PeerId) -> None: ...

    async def run(self) -> None: ...

    async def lead(self, services: Callable[[], Awaitable[None]]) -> None: ...

    async def change(self, change: Change, timeout: float = 10.0) -> None: ...

    async def transfer(self, to: PeerId, timeout: float = 2.0) -> bool: ...

"""Ports: what services need of the outside, as Protocol classes. Adapters implement them, tests fake them.

Every method may be cancelled. Every wait has a bound, given by the caller or stated here.
"""

import enum
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from mesh.entries import Archived, ContentEntry, NamedContent
from mesh.raft.configuration import Change
from mesh.raft.raft import RaftStatus
from mesh.raft.ready import Configuration, Entry, HardState, Snapshot
from protocols.ids import NO_RUN, Cid, LeaseId, PeerId, RunId, TestIndex
from protocols.inputs import Inputs
from protocols.manifests import Manifest, Record
from protocols.presence import Link, NodeState, Presence

MESSAGE_BYTES_MAX = 900_000
"""Payload of one `send`, `call` or answer."""

CALL_SECONDS_DEFAULT = 10.0


class Clock(Protocol):
    """Time. Services wait on trio's clock, which tests replace; this one is for stamps that people read."""

    def now(self) -> float:
        """Seconds since the epoch."""


MessageHandler = Callable[[PeerId, bytes], None]
"""Takes a message; must not block. What it cannot keep, it drops."""

CallHandler = Callable[[PeerId, bytes], Awaitable[bytes]]
"""Answers a call. A `MeshError` that it raises reaches the caller as a `RemoteCallError` with the same text."""


class Network(Protocol):
    """Messages between nodes that share the swarm key, on long-lived streams (one a peer, protocol and direction).

    The adapter keeps the connections: it redials known addresses, measures round-trip times with heartbeats of its own,
    and notices a hung peer.
    """

    @property
    def peer_id(self) -> PeerId: ...

    def sign(self, data: bytes) -> bytes:
        """A signature by the key that is this node's peer ID."""

    def addresses(self) -> tuple[str, ...]:
        """Full multiaddrs, "/p2p/…" included, under which others can reach this node."""

    def links(self) -> Mapping[PeerId, Link]:
        """Peers with a live connection now."""

    def know(self, peer: PeerId, addresses: Sequence[str]) -> None:
        """Keep a connection to this peer from now on, at these addresses (replacing earlier ones)."""

    def forget(self, peer: PeerId) -> None:
        """Stop redialling this peer, and drop its connection."""

    def watch(self, changed: Callable[[PeerId, bool], None]) -> None:
        """Call `changed(peer, connected)` whenever a peer comes or goes; must not block."""

    def on_message(self, protocol: str, handler: MessageHandler) -> None: ...

    def on_call(self, protocol: str, handler: CallHandler) -> None: ...

    def send(self, peer: PeerId, protocol: str, payload: bytes) -> bool:
        """Queue one message, in order after earlier ones. False (dropped) without a connection or with a full queue."""

    async def call(self, peer: PeerId, protocol: str, payload: bytes, timeout: float = CALL_SECONDS_DEFAULT) -> bytes:
        """One request, one answer. `NodeUnavailable` if the peer can't be reached or does not answer in time;
        `RemoteCallError` if it refused. `peer` may be this node itself."""

    def subscribe(self, topic: str, handler: MessageHandler) -> None: ...

    async def publish(self, topic: str, payload: bytes) -> None: ...


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

    feed: Any
    """The `mesh.state.feed.Feed` of what it applied."""

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


@dataclass(frozen=True, slots=True)
class NodeView:
    """How this node sees another, or itself."""

    presence: Presence
    state: NodeState
    since: float
    """When it came into this state, on trio's clock."""
    heard: float
    """When it was last heard of, on trio's clock."""
    connected: bool


class Nodes(Protocol):
    """Who is here: soft state, gossiped. `mesh.presence.PresenceTable` is one."""

    def nodes(self) -> Mapping[PeerId, NodeView]:
        """Every node known, this one included."""

    @property
    def version(self) -> int: ...

    async def wait_changed(self, since: int) -> int:
        """Until `version` is over `since`; what it is then."""

    def update(self, **fields: Any) -> None:
        """Change fields of the own `Presence`. What matters is published at once, load with the next beat."""


@dataclass(frozen=True, slots=True)
class ContentStat:
    """Sizes in bytes of the local store."""

    blocks: int
    bytes: int
    pins: int


class PinOwner(enum.StrEnum):
    """For whom a node keeps a root."""

    USER = "user"
    MESH = "mesh"


PinKey = tuple[Cid, PinOwner, RunId]
"""What of a kept root is its own."""


@dataclass(frozen=True, slots=True)
class KeptRoot:
    """A root that this node keeps, whatever its quota says."""

    root: Cid
    owner: PinOwner
    reason: str
    run: RunId
    """Of something that is kept only while that run is open; 0 of all else."""
    since: float
    """Seconds since the epoch."""

    @property
    def key(self) -> PinKey:
        return (self.root, self.owner, self.run)


class Content(Protocol):
    """IPFS content: blocks by CID, trees by root. Local first, then from peers, every block verified."""

    async def put(self, data: bytes, codec: str = "raw") -> Cid:
        """Store one block ("raw", "dag-cbor" or "dag-pb"); on disk, synced, when it returns."""

    async def put_many(self, blocks: Sequence[bytes], codec: str = "raw") -> list[Cid]:
        """The same for many, in one sync."""

    async def get(self, cid: Cid, holders: Sequence[PeerId] = (), timeout: float = 30.0) -> bytes:
        """One block; `ContentNotFound` when nobody reachable has it within `timeout` seconds."""

    async def has(self, root: Cid) -> bool:
        """Whether the whole DAG under `root` is here."""

    async def fetch(self, root: Cid, holders: Sequence[PeerId] = (), timeout: float = 60.0) -> None:
        """Bring the whole DAG under `root` here (a stall, not the whole, is bounded by `timeout`)."""

    async def add_path(self, path: Path, names: Sequence[str] | None = None) -> Cid:
        """A file or directory as UnixFS; of a directory only the relative `names`, if given. Links that leave the tree
        are refused by name (`UsageError`)."""

    async def add_files(self, files: Mapping[str, bytes | Cid | Path]) -> Cid:
        """A UnixFS directory of "dir/name" -> content, or a CID that is already stored, or a local file."""

    async def checkout(self, root: Cid, target: Path, former: Path | None = None, remember: bool = False) -> None:
        """Write the tree under `root`, which is here, to `target`; complete or absent (see `EmbeddedContent`)."""

    def read(self, root: Cid, path: str = "", start: int = 0, stop: int | None = None) -> AsyncIterator[bytes]:
        """The bytes of the UnixFS file at `path` under `root`, from `start` to before `stop`, fetched as needed, in
        order."""

    async def look(self, root: Cid, path: str = "") -> ContentEntry:
        """What lies at `path` under `root`, fetched as needed; `UsageError` if nothing does."""

    async def entries(self, directory: Cid, most: int) -> Sequence[NamedContent]:
        """What is in a directory, sorted by name; fetched as needed. Of over `most` entries some, more than `most`."""

    def archive(self, entry: ContentEntry, deep: bool = True) -> AsyncIterator[bytes]:
        """A CAR file of the blocks on the way to an entry, and of all under it if `deep`; fetched before it begins."""

    async def export_archive(self, root: Cid, target: Path) -> Archived:
        """Write the CAR file of all under `root` to `target`, which must not exist; complete or absent."""

    async def import_archive(self, path: Path) -> Archived:
        """Store the blocks of a CAR file, each checked; `UsageError` names what is wrong with the file."""

    async def size(self, root: Cid) -> int:
        """Bytes of the DAG under `root`, as its root block tells, which is here; `ContentNotFound` if it is not."""

    async def pin(self, root: Cid, reason: str) -> None:
        """Keep what is here for the user of this node."""

    async def unpin(self, root: Cid) -> None:
        """Let go of what the user of this node had kept."""

    async def hold(self, roots: Sequence[Cid], reason: str, run: RunId = NO_RUN) -> None:
        """Keep what is here for the mesh, in one sync; with a `run`, for as long as that is open."""

    async def release(self, kept: Sequence[PinKey]) -> None:
        """Let go of what was held for the mesh."""

    async def kept(self) -> list[KeptRoot]:
        """All that stays here, by key: a root that stays for several reasons as often."""

    async def pins(self) -> Mapping[Cid, str]:
        """The same as root -> why, the user's reason before the mesh's."""

    async def stat(self) -> ContentStat: ...


@dataclass(frozen=True, slots=True)
class Job:
    """What a runner executes: a checked-out tree and how to run it."""

    root: Path
    arguments: tuple[str, ...]
    command: str | None
    files: tuple[str, ...]
    timeout: float
    python: str
    """Interpreter of the suite's environment."""
    variables: Mapping[str, str]
    slots: int
    run: str
    worker: PeerId
    first_slot: int = field(default=0, compare=False)
    """What the run's other workers have of its slots comes before this one's."""
    slots_total: int = field(default=0, compare=False)
    """Slots of the run, over all workers; 0: those of this one."""
    maxfail: int = 0
    """Tests that go wrong here after which no other starts, until more is known of the run; 0: no limit."""
    test_type: str = ""
    """The type of the tests that are run; empty: any."""
    reads: bool = False
    """Whether it is to be told what each test read."""
    share: str = field(default="", compare=False)
    """Unix socket where its processes find what the run's tests share; empty: nowhere."""


@dataclass(frozen=True, slots=True)
class CollectionFailed:
    """pytest's exit code (2: errors while collecting, 4: usage, 5: nothing collected) and what it printed."""

    exit_code: int
    output: str
    notes: bytes = b""
    """As in a manifest."""


@dataclass(frozen=True, slots=True)
class WorkItem:
    """One test to run for a lease. `attempt` counts from 1."""

    lease: LeaseId
    index: TestIndex
    id: str
    scope: str
    timeout: float = 0.0
    attempt: int = 1
    variables: tuple[tuple[str, str], ...] = ()
    """Of the process that runs it, which runs only tests with the same ones."""


@dataclass(frozen=True, slots=True)
class Started:
    lease: LeaseId
    index: TestIndex
    slot: int


@dataclass(frozen=True, slots=True)
class Finished:
    lease: LeaseId
    index: TestIndex
    record: Record
    artifacts: Path | None = None
    """Directory of artifacts that the test left, to be added and then removed by the receiver."""
    inputs: Inputs | None = None
    """What it read, where that is asked for and known."""


RunnerEvent = Started | Finished


@dataclass(frozen=True, slots=True)
class Tail:
    """What a running test has printed since: for stdout and stderr each what pytest captured and what escaped that."""

    pieces: tuple[bytes, ...]
    offsets: tuple[int, ...]
    """Where each piece ends in its stream."""
    skipped: int = 0
    """Bytes before the pieces that were left out: the test prints faster than it is read."""


class RunnerSession(Protocol):
    """Processes that run the tests of one job on this host. Leaving its context kills all of them."""

    def submit(self, items: Sequence[WorkItem]) -> None:
        """Queue tests, to be run in this order as slots come free; a scope stays on one slot while that is free."""

    def withdraw(self, lease: LeaseId) -> list[TestIndex]:
        """Take back the lease's tests that have not started; what they are."""

    def kill(self, lease: LeaseId) -> None:
        """Withdraw, and kill what runs of the lease; no event follows for it."""

    def tail(self, index: TestIndex, offsets: Sequence[int]) -> Tail | None:
        """More output of a test, from these offsets of its streams on; None if it does not run now."""

    def events(self) -> AsyncIterator[RunnerEvent]:
        """Each submitted test ends with exactly one `Finished`, also when its process crashes or hangs."""

    @property
    def endings(self) -> Sequence[str]:
        """What went wrong as its processes ended, in pytest's words: errors of fixtures that outlive a test. Some of
        them, if there are many."""


class Runner(Protocol):
    async def collect(self, job: Job) -> "Manifest | CollectionFailed":
        """Collect the job's tests, in pytest's order. The manifest's `bundle` is left empty for the caller."""

    def session(self, job: Job) -> AbstractAsyncContextManager[RunnerSession]: ...


class Outbox(Protocol):
    """Results that the coordinator has not acknowledged, on disk, in the order they came."""

    def items(self) -> list[tuple[str, bytes]]: ...

    async def put(self, key: str, payload: bytes) -> None: ...

    async def remove(self, key: str) -> None: ...

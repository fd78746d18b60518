"""Between the coordinator and its workers. Each request is answered; each may be sent again without harm."""

import enum

from protocols.codec import message
from protocols.commands import TaskRange
from protocols.ids import NO_RUN, Cid, LeaseId, PeerId, RunId, TestIndex
from protocols.manifests import Device, RunSpec

PROTOCOL = "/mesh/work/1.0.0"


@message("w.register")
class RegisterWorker:
    """worker -> coordinator, once per process and coordinator, after its outbox was offered."""

    name: str
    incarnation: int
    slots: int


@message("w.heartbeat")
class Heartbeat:
    """worker -> coordinator, every heartbeat interval and when something starts."""

    incarnation: int
    leases: tuple[LeaseId, ...]
    """What the worker holds; leases that it does not name are assigned to it again."""
    running: tuple[tuple[LeaseId, TestIndex], ...]
    """Tests under way now."""


@message("w.heartbeat-ok", later=1)
class HeartbeatAck:
    closed: tuple[LeaseId, ...]
    """Those of the worker's leases that are no longer open: drop them."""
    registered: bool
    """Whether the log knows this incarnation; if not, register."""
    hosted: int = 0
    """Leases of others for whose tests something is kept on the worker: who drains waits for them."""


@message("w.host")
class GangHost:
    """A host of a test that needs several at once."""

    peer: PeerId
    name: str
    addresses: tuple[str, ...]
    """IP addresses under which others reach it; a loopback address only if it has no other."""
    devices: tuple[Device, ...] = ()
    """What of it is kept for the test."""


@message("w.assign", later=5)
class Assign:
    """coordinator -> worker: a lease. No tasks: collect, and answer with `Collection`."""

    lease: LeaseId
    run: RunId
    spec: RunSpec
    manifest: Cid | None
    tasks: tuple[TaskRange, ...]
    holders: tuple[PeerId, ...]
    """Nodes that should have the bundle and the manifest."""
    first_slot: int = 0
    """Number of the worker's first slot among all slots of the run."""
    slots_total: int = 0
    """How many those are."""
    devices: tuple[Device, ...] = ()
    """What of this worker the lease holds for its tests alone."""
    hosts: tuple[GangHost, ...] = ()
    """Of a test that needs several: this worker first. Empty for others."""
    signed: bool = False
    """Whether records tell their origin and chunks are signed: from log format 4 on."""


@message("w.ready")
class MakeReady:
    """coordinator -> worker: you may get leases of this run, which another worker collects. A hint, of which nothing
    depends but how soon the first of them begins: it may get lost."""

    run: RunId
    spec: RunSpec
    holders: tuple[PeerId, ...]
    """As in `Assign`."""


@message("w.end-run")
class EndRun:
    """coordinator -> worker: the run has all its verdicts; end its processes, in order, and answer with `RunEnded`."""

    run: RunId


@message("w.run-ended")
class RunEnded:
    """What went wrong as they ended, in pytest's words: errors of fixtures that outlive a test."""

    errors: tuple[str, ...] = ()


@message("w.recall")
class RecallLease:
    """coordinator -> worker: give back what you have not started of a lease; or, if it is `closed`, stop all of it.

    May get lost: the first is asked again while it is wanted, the second is what a heartbeat's answer tells, too.
    """

    lease: LeaseId
    closed: bool = False


@message("w.collection")
class Collection:
    """worker -> coordinator: the end of a collect lease. `manifest` is None when collection failed."""

    lease: LeaseId
    manifest: Cid | None
    exit_code: int
    reason: str
    record: Cid | None


@message("w.result")
class Result:
    """worker -> coordinator: verdicts of a lease, their records in `chunk`, which the coordinator fetches first."""

    lease: LeaseId
    chunk: Cid
    tests: tuple[TestIndex, ...]
    outcomes: bytes
    durations: tuple[int, ...]


@message("w.giveback")
class GiveBack:
    """worker -> coordinator: tests that it holds and will not start. No tests: a collect lease."""

    lease: LeaseId
    tests: tuple[TestIndex, ...]
    reason: str = ""
    """Why this worker can't run them at all ("the bundle can't be had"); empty for a drain."""
    exit_code: int = 12
    """What the run ends with if no worker can."""


class CommandVerb(enum.StrEnum):
    """The command channel, as in the original framework."""

    DRAIN = "drain"
    STOP = "stop"
    RESTART = "restart"
    UPDATE = "update"


@message("w.command")
class NodeCommand:
    """any node -> any node: an operator's order."""

    verb: CommandVerb


@message("w.hold", later=1)
class Hold:
    """coordinator -> node: fetch this content whole, keep it, and answer when it is on disk. Without a reason and a run
    it stays only as long as there is room."""

    root: Cid
    holders: tuple[PeerId, ...]
    reason: str
    run: RunId = NO_RUN
    """Keep it as long as this run is open."""


ROOTS_PER_MESSAGE_MAX = 4096


@message("w.ask-have")
class AskHave:
    """coordinator -> node: which of these do you have whole, whatever you keep them for?"""

    roots: tuple[Cid, ...]


@message("w.have")
class Have:
    """The answer: a byte for each root, 1 or 0."""

    roots: bytes


@message("w.ask-named")
class AskNamed:
    """node -> coordinator: of what I hold for the mesh, which roots am I to keep, and which runs are open?"""

    roots: tuple[Cid, ...]
    runs: tuple[RunId, ...]


@message("w.named")
class Named:
    """The answer, by all that is committed: a byte for each, 1 or 0."""

    roots: bytes
    runs: bytes


@message("w.ask-due")
class AskDue:
    """node -> coordinator: what am I to hold? From the first root after this one on."""

    after: Cid


@message("w.due")
class Due:
    """The answer, ascending."""

    roots: tuple[Cid, ...]
    more: bool


@message("w.lost")
class Lost:
    """node -> coordinator: I was to hold these, and have them no more."""

    roots: tuple[Cid, ...]


@message("w.claim")
class ClaimName:
    """worker -> coordinator: a process of mine wants this name; answered when it has it, or after a while."""

    run: RunId
    name: str
    incarnation: int
    holder: int


@message("w.claimed")
class NameClaimed:
    """`mine`: the process has it. Otherwise its value, if it has one; neither: others hold it, ask again."""

    mine: bool
    value: Cid | None = None
    holders: tuple[PeerId, ...] = ()
    """Who should have the value."""


@message("w.settle")
class SettleName:
    """worker -> coordinator: the process gives the name up."""

    run: RunId
    name: str
    holder: int
    value: Cid | None = None


@message("w.tail")
class TailTest:
    """any node -> worker: more output of a test that runs there, from these places in its streams on."""

    run: RunId
    test: TestIndex
    offsets: tuple[int, ...] = ()


@message("w.tailed")
class Tailed:
    """Captured stdout, stdout that escaped the capture, and the same of stderr. No pieces: it does not run there."""

    pieces: tuple[bytes, ...]
    offsets: tuple[int, ...]
    """Where each piece ends."""
    skipped: int = 0
    """Bytes left out before the pieces."""


@message("w.ack")
class Ack:
    """Done; for a `Result`: committed, the worker may forget its outbox entry (also when it came too late to count)."""


@message("w.refused")
class Refused:
    """Not done. `coordinator` tells who to ask, when it is known to be another."""

    reason: str
    coordinator: PeerId | None = None

"""Commands: what the log holds. Decisions and CIDs, never payloads; applied by `mesh.state.apply`, in log order.

A command that no longer holds when it is applied (a closed lease, a finished run) changes nothing: apply is total.
"""

import enum

from protocols.alerts import AcknowledgeAlert, AlertsTold, ClearAlerts, Quarantine, RaiseAlerts, Release
from protocols.codec import message
from protocols.ids import Cid, LeaseId, PeerId, RunId, TestIndex
from protocols.manifests import Companion, Dependency, Device, Needs, RunSpec

TESTS_PER_COMMAND_MAX = 4096
"""Verdicts or returned tests in one command."""

PINS_PER_COMMAND_MAX = 128

REPLICAS_DEFAULT = 2
"""Nodes that keep what is pinned, where nothing else is asked for."""
REPLICAS_MAX = 16


@message("c.range")
class TaskRange:
    """A task: `count` tests of a manifest from `first`, that share a scope and a requirement.

    `losses` counts the attempts that ended with their node: such a task comes back halved.
    """

    first: int
    count: int
    requirement: int = 0
    losses: int = 0

    def __post_init__(self) -> None:
        if self.first < 0 or self.count < 1 or self.requirement < 0 or self.losses < 0:
            raise ValueError(f"not a range of tests: {self.first}+{self.count}")


@message("c.found")
class Found:
    """The first entry of a log: names the mesh. A log that has a name keeps it."""

    mesh: str


@message("c.format")
class RaiseFormat:
    """From here on the log is in format `version`: every member can read it. A format is never lowered."""

    version: int


@message("c.yield")
class Yield:
    """This mesh gives way to `mesh`, born apart under the same key. Holds only while it has had no run."""

    mesh: str


@message("c.register")
class Register:
    """A worker is here. A new incarnation means that whatever it ran before is lost, so its leases end at once."""

    worker: PeerId
    name: str
    incarnation: int
    slots: int


@message("c.submit")
class Submit:
    """Accepts a run; its ID is this entry's index. The same nonce again changes nothing and gives the same run."""

    nonce: bytes
    spec: RunSpec
    at: float
    """Seconds since the epoch, by the coordinator's clock: for people."""


@message("c.collected", later=2)
class Collected:
    """Closes a collect lease: what the run consists of."""

    lease: LeaseId
    manifest: Cid
    tests: int
    tasks: tuple[TaskRange, ...]
    """A partition of 0..tests."""
    requirements: tuple[tuple[str, str], ...] = (("", ""),)
    needs: tuple[Needs, ...] = ()
    """What the tests of each requirement take; empty: nothing special. In logs from format 3 on, as what follows."""
    dependencies: tuple[Dependency, ...] = ()


@message("c.uncollected")
class CollectFailed:
    """Closes a collect lease: there is nothing to run. `exit_code` is pytest's (5: nothing collected; 2: errors)."""

    lease: LeaseId
    exit_code: int
    reason: str
    record: Cid | None = None
    """A raw block with what pytest printed."""


@message("c.grant", later=2)
class Grant:
    """Leases tasks to a worker; the lease's ID is this entry's index. No tasks: a lease to collect the run.

    Tests that take more than a slot (`Needs.held`) are leased by themselves, one requirement a lease: the worker runs
    them one after another, and while the lease is open it holds their locks and these devices. A test that needs
    several hosts is leased alone: all its hosts are named at once, or it has none of them.
    """

    run: RunId
    worker: PeerId
    incarnation: int
    tasks: tuple[TaskRange, ...]
    devices: tuple[Device, ...] = ()
    companions: tuple[Companion, ...] = ()


@message("c.hedge")
class Hedge:
    """Leases a test to a second worker, while the lease that holds it stays as it is; the lease's ID is this entry's
    index. The first verdict counts, and ends the test in both. In logs from format 3 on."""

    lease: LeaseId
    """The one that holds the test."""
    test: TestIndex
    worker: PeerId
    incarnation: int


@message("c.complete")
class Complete:
    """Records verdicts. Counts for those tests alone that the lease still holds."""

    lease: LeaseId
    chunk: Cid
    tests: tuple[TestIndex, ...]
    outcomes: bytes
    """`Outcome.code` for each of `tests`."""
    durations: tuple[int, ...]
    """Microseconds for each of `tests`."""

    def __post_init__(self) -> None:
        if not len(self.tests) == len(self.outcomes) == len(self.durations):
            raise ValueError("tests, outcomes and durations differ in length")
        if max(self.outcomes, default=0) > 5:
            raise ValueError("unknown outcome")


@message("c.return")
class Return:
    """The worker gives back tests that it has not started (drain, preemption): no fault of theirs."""

    lease: LeaseId
    tests: tuple[TestIndex, ...]


@message("c.preempt")
class Preempt:
    """Takes a lease back, running tests included, for a run of higher priority: its open tests are pending again,
    without a loss. Each test bears that only so often (`PREEMPTIONS_MAX`). In logs from format 3 on."""

    lease: LeaseId
    run: RunId
    """For whom."""


@message("c.expire", later=1)
class Expire:
    """The worker is gone: the lease's open tests go back, halved, each with one more loss."""

    lease: LeaseId
    reason: str
    companion: PeerId = PeerId("")
    """Who is gone, if it is one of the lease's companions."""


@message("c.abandon")
class Abandon:
    """Gives a pending test the verdict `error`: it took its node with it too often, alone."""

    run: RunId
    test: TestIndex
    chunk: Cid


@message("c.skip")
class Skip:
    """Gives pending tests the verdict `skipped`, because one that they depend on did not pass. Counts for those of
    which that is true. In logs from format 3 on."""

    run: RunId
    tests: tuple[TestIndex, ...]
    chunk: Cid


@message("c.reuse")
class Reuse:
    """Gives pending tests the verdict `passed` of an earlier run, since nothing that they read has changed. Counts for
    those that wait for no other test. In logs from format 4 on."""

    run: RunId
    tests: tuple[TestIndex, ...]
    chunk: Cid
    durations: tuple[int, ...]
    """Microseconds that each of `tests` took when it ran."""

    def __post_init__(self) -> None:
        if len(self.tests) != len(self.durations):
            raise ValueError("tests and durations differ in length")


@message("c.cancel")
class Cancel:
    """Ends a run with the verdicts that it has; 2 is pytest's code for an interruption."""

    run: RunId
    reason: str
    exit_code: int = 2


@message("c.finish")
class Finish:
    """Closes a run: its report is built and held by enough nodes. `exit_code` as interface.md has it."""

    run: RunId
    report: Cid | None
    exit_code: int
    at: float
    reason: str = ""


@message("c.claim")
class Claim:
    """A process of a worker wants a name to itself: to compute the value that goes by it, or to do something alone."""

    run: RunId
    name: str
    worker: PeerId
    incarnation: int
    holder: int
    """Tells this worker's processes apart."""


@message("c.settle")
class Settle:
    """It gives the name up, with the value (a raw block) that from now on goes by it, if any."""

    run: RunId
    name: str
    worker: PeerId
    holder: int
    value: Cid | None = None


class PinKind(enum.StrEnum):
    """For what a root is kept: one of the things that a run names, or a user."""

    BUNDLE = "bundle"
    MANIFEST = "manifest"
    REPORT = "report"
    SELECTION = "selection"
    USER = "user"


@message("c.pin")
class PinRoot:
    """A user has content kept on so many nodes. In logs from format 4 on, as the next two. What runs name is pinned
    by the commands that name it."""

    root: Cid
    replicas: int
    reason: str
    at: float
    """Seconds since the epoch, by the coordinator's clock."""


@message("c.reference")
class PinReference:
    """One reason of a pin; `since` says as of when, since it may have been given anew."""

    root: Cid
    kind: PinKind
    since: float


@message("c.unpin")
class Unpin:
    """Takes these reasons away, but for what an open run needs; a root that has none left is no longer pinned."""

    references: tuple[PinReference, ...]


@message("c.placement")
class Placement:
    """Nodes that have `root` whole and pinned now, and nodes that no longer count. `size` in bytes; 0: not known."""

    root: Cid
    held: tuple[PeerId, ...]
    lost: tuple[PeerId, ...] = ()
    size: int = 0


@message("c.placed")
class Placed:
    """Who holds what. Tells changes and not who holds it now: what several say of one root adds up."""

    placements: tuple[Placement, ...]


Command = (
    Found
    | RaiseFormat
    | Yield
    | Register
    | Submit
    | Collected
    | CollectFailed
    | Grant
    | Hedge
    | Complete
    | Return
    | Preempt
    | Expire
    | Abandon
    | Skip
    | Reuse
    | Cancel
    | Finish
    | Claim
    | Settle
    | PinRoot
    | Unpin
    | Placed
    | RaiseAlerts
    | ClearAlerts
    | AcknowledgeAlert
    | AlertsTold
    | Quarantine
    | Release
)
COMMANDS = (
    Found,
    RaiseFormat,
    Yield,
    Register,
    Submit,
    Collected,
    CollectFailed,
    Grant,
    Hedge,
    Complete,
    Return,
    Preempt,
    Expire,
    Abandon,
    Skip,
    Reuse,
    Cancel,
    Finish,
    Claim,
    Settle,
    PinRoot,
    Unpin,
    Placed,
    RaiseAlerts,
    ClearAlerts,
    AcknowledgeAlert,
    AlertsTold,
    Quarantine,
    Release,
)

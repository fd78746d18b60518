"""The replicated state, as data. `apply` is its only writer; every voter that applied the same entries holds the same.

Invariants (`invariants.check` asserts them): each run's tests are partitioned into pending, leased and done; a lease
belongs to one live incarnation of one worker and holds at least one test, or collects; a verdict, once recorded, stays.
A hedge is a lease beside that partition: its test is leased to another worker already, and counted once. A lease whose
test needs several hosts is its worker's alone; on its companions it takes slots and devices, and ends with any of them.

A run of a million tests is about 30 MB: flat arrays for what is known of each test, tasks (ranges) for where it is.
Order: `runs`, `leases` and `workers` are dicts in order of insertion, which is the log's order on every voter.
"""

import enum
from array import array
from dataclasses import dataclass, field

from mesh.state import ranges
from mesh.state.dependencies import NO_VERDICT as NO_VERDICT
from mesh.state.dependencies import Barriers
from protocols.alerts import AlertKind, Finding, Quarantine
from protocols.codec import message
from protocols.commands import PinKind, TaskRange
from protocols.ids import AlertId, Cid, LeaseId, PeerId, RunId
from protocols.manifests import NOTHING, Companion, Device, Needs, Outcome, RunSpec
from protocols.raft import LOG_FORMAT_OLDEST

Task = TaskRange
"""The unit of scheduling: contiguous tests of a manifest that share a scope and a requirement."""

RUN_TESTS_MAX = 4_000_000
RUNS_OPEN_MAX = 1_000
"""Unfinished runs; a submission beyond them is refused. So it is beyond the next three."""
RUNS_OPEN_PER_SUBMITTER_MAX = 200
TESTS_OPEN_MAX = 8_000_000
"""Tests without a verdict, over all unfinished runs."""
TESTS_OPEN_PER_SUBMITTER_MAX = RUN_TESTS_MAX
RUNS_DETAILED_MAX = 64
"""Finished runs kept whole, as long as they have at most `DETAILED_TESTS_MAX` tests in all."""
DETAILED_TESTS_MAX = 2_000_000
RUNS_SUMMARISED_MAX = 1_000
WORKERS_MAX = 1_024
"""Registrations kept; beyond them the oldest without a lease is forgotten."""
LEASES_PER_WORKER_MAX = 64
LOSSES_MAX = 3
"""Attempts that may end with their node before a test is abandoned; the last of them had the node to itself."""
PREEMPTIONS_MAX = 2
"""Times that a test may be taken from its worker, perhaps while it runs, for a run of higher priority."""
TRIES_MAX = 16
"""Bad outcomes of one test before its verdict that are kept; more are only counted."""
COLLECT_LOSSES_MAX = 3
"""Collections that may end with their node before the run fails."""

PINS_MAX = 16_384
"""Roots that are pinned. Open runs and users can't fill it: beyond it, what is oldest of finished runs is let go."""
USER_PINS_MAX = 4_096
HOLDERS_MAX = 32
"""Of a pin."""

ALERTS_MAX, ALERTS_ACTIVE_MAX = 500, 250
"""Alerts that are kept, and those among them that are not over; a new one beyond the second number is not raised."""
QUARANTINED_MAX = 64

NO_WORKER = PeerId("")
NO_LEASE = LeaseId(0)


class RunPhase(enum.StrEnum):
    """Where a run stands."""

    COLLECTING = "collecting"
    RUNNING = "running"
    REPORTING = "reporting"
    FINISHED = "finished"


@dataclass(frozen=True, slots=True)
class Completion:
    """Verdicts that were accepted together: one step of a run's history, and the unit of a follower's cursor.

    The i-th test has the i-th outcome (its code), duration (microseconds) and attempt (from 1). A test that no lease
    ended (abandoned, skipped for another one, or with the verdict of an earlier run) has `NO_WORKER` and `NO_LEASE`.
    """

    chunk: Cid
    worker: PeerId
    lease: LeaseId
    tests: "array[int]"
    outcomes: bytes
    durations: "array[int]"
    attempts: bytes


@message("s.failure")
class Failure:
    """Why a run has no tests to run: pytest's exit code, what it said, and the raw block with all that it printed."""

    exit_code: int
    reason: str
    record: Cid | None = None


@dataclass(slots=True)
class Lease:
    """Tests of one run in the hands of one incarnation of a worker."""

    id: LeaseId
    run: RunId
    worker: PeerId
    incarnation: int
    open: list[Task]
    """Tests without a verdict yet; empty only for a collect lease."""
    collects: bool = False
    alone: bool = False
    """A single test, and its hosts have held nothing else since: if one of them dies, this test may be why."""
    devices: tuple[Device, ...] = ()
    needs: Needs = NOTHING
    """What each of its tests takes; they are of one requirement if that is anything to hold."""
    hedges: LeaseId = NO_LEASE
    """If it is a hedge: the lease that holds its one test, and in which that is counted. 0: it is none."""
    companions: tuple[Companion, ...] = ()
    """If its one test needs several hosts: the others, beside its worker."""

    @property
    def hosts(self) -> tuple[PeerId, ...]:
        """Its worker, and the companions."""
        return (self.worker, *(companion.worker for companion in self.companions))


@dataclass(frozen=True, slots=True)
class Claimed:
    """Who holds a shared name, and for which run."""

    run: RunId
    worker: PeerId
    holder: int


@dataclass(slots=True)
class Worker:
    peer: PeerId
    name: str
    incarnation: int
    slots: int
    registered: int
    """Log index of the registration of this incarnation."""
    losses: int = 0
    """Leases that expired on this peer, over all incarnations."""
    leases: list[LeaseId] = field(default_factory=list)
    """Open ones, ascending."""
    hosted: list[LeaseId] = field(default_factory=list)
    """Open leases of which it is a companion, ascending."""

    @property
    def is_idle(self) -> bool:
        """It holds nothing, and is nobody's companion."""
        return not self.leases and not self.hosted


@dataclass(slots=True)
class Run:
    """One submission, its tests, and what became of them."""

    id: RunId
    nonce: bytes
    spec: RunSpec
    submitted_at: float
    phase: RunPhase = RunPhase.COLLECTING
    manifest: Cid | None = None
    tests: int = 0
    requirements: tuple[tuple[str, str], ...] = (("", ""),)
    needs: tuple[Needs, ...] = ()
    """What the tests of each requirement take; empty: nothing special."""
    barriers: Barriers | None = field(default=None, compare=False)
    """The dependencies between its tests, if there are any."""
    pending: list[Task] = field(default_factory=ranges.TaskList)
    leases: list[LeaseId] = field(default_factory=list)
    """Open ones, ascending; while collecting, at most one."""
    leased: int = 0
    hedges: dict[int, LeaseId] = field(default_factory=dict)
    """Test -> the lease that hedges it. At most one; the test is also in the lease that holds it."""
    done: int = 0
    counts: list[int] = field(default_factory=lambda: [0] * len(Outcome))
    """Verdicts by `Outcome.code`."""
    microseconds: int = 0
    """Sum of `durations`."""
    outcomes: bytearray = field(default_factory=bytearray)
    """`Outcome.code` of each test, or `NO_VERDICT`."""
    durations: "array[int]" = field(default_factory=lambda: array("q"))
    """Microseconds of each test's verdict; 0 before it."""
    attempts: bytearray = field(default_factory=bytearray)
    """Attempts of each test that ended without its verdict (at most 254 are counted)."""
    retried: dict[int, int] = field(default_factory=dict)
    """Test -> bad outcomes that were not recorded, because the spec allows retries."""
    tries: list[Completion] = field(default_factory=list)
    """These outcomes, as they came (at most `TRIES_MAX` of a test). In logs from format 3 on."""
    failed_on: dict[int, tuple[PeerId, ...]] = field(default_factory=dict)
    """Test -> the workers of its `tries`, in that order."""
    preempted: dict[int, int] = field(default_factory=dict)
    """Test -> times that it was taken back for another run (at most `PREEMPTIONS_MAX`)."""
    chunks: list[Completion] = field(default_factory=list)
    workers: list[PeerId] = field(default_factory=list)
    """Those that were ever granted a part of this run, in that order."""
    collect_losses: int = 0
    failure: Failure | None = None
    cancelled: str | None = None
    """The reason of a cancellation."""
    cancel_code: int = 2
    """And the exit code that it gives the run."""
    report: Cid | None = None
    exit_code: int | None = None
    reason: str = ""
    finished_at: float | None = None
    values: dict[str, Cid] = field(default_factory=dict)
    """What its tests computed once for all: name -> block."""

    def needs_of(self, requirement: int) -> Needs:
        return self.needs[requirement] if requirement < len(self.needs) else NOTHING

    @property
    def reused(self) -> int:
        """Tests with the verdict of an earlier run: alone among those that no lease ended they have passed."""
        passed = Outcome.PASSED.code
        return sum(done.outcomes.count(passed) for done in self.chunks if done.worker == NO_WORKER)

    @property
    def pending_tests(self) -> int:
        """Tests in `pending`."""
        return self.tests - self.leased - self.done if self.phase is RunPhase.RUNNING else 0

    @property
    def state(self) -> str:
        """The run's state for people: one of interface.md's words."""
        if self.exit_code is not None:
            return final_state(self.exit_code, self.cancelled is not None)
        if self.phase is RunPhase.COLLECTING and not self.leases:
            return "queued"
        return self.phase.value


@message("s.summary", later=1)
class RunSummary:
    """What is kept of a run that finished long ago; the rest is in its report."""

    id: RunId
    nonce: bytes
    name: str
    project: str
    submitter: PeerId
    bundle: Cid
    priority: int
    test_type: str
    submitted_at: float
    finished_at: float
    manifest: Cid | None
    tests: int
    counts: tuple[int, ...]
    microseconds: int
    report: Cid | None
    exit_code: int
    cancelled: bool
    reason: str
    reused: int = 0

    @property
    def state(self) -> str:
        return final_state(self.exit_code, self.cancelled)


@message("s.pin-reason")
class PinReason:
    """Why a root is pinned."""

    kind: PinKind
    run: RunId
    """The newest one that named it so; `NO_RUN`: a user did."""
    text: str
    since: float
    """Seconds since the epoch."""
    replicas: int


@message("s.pin")
class Pin:
    """A root whose whole DAG stays on so many nodes as its reasons want at most."""

    root: Cid
    reasons: tuple[PinReason, ...]
    """One of a kind at most, in the order of their kinds."""
    holders: tuple[PeerId, ...] = ()
    """Nodes that were told to keep it and said that they do, ascending: dead ones, too, until others have replaced
    them."""
    size: int = 0
    """Bytes, as its root block tells; 0: not known."""

    @property
    def wanted(self) -> int:
        return max(reason.replicas for reason in self.reasons)


@message("s.alert")
class Alert:
    """Something that somebody should know, and whether they do. Times in seconds since the epoch."""

    id: AlertId
    finding: Finding
    """As it was seen last."""
    since: float
    last_seen: float
    cleared_at: float | None = None
    acknowledged_by: str = ""
    acknowledged_at: float | None = None
    told: bool = False
    """Whether the sinks were told of it; `told_end`: and that it is over."""
    told_end: bool = False

    @property
    def about(self) -> tuple[AlertKind, str]:
        """What it is about: at most one active alert is."""
        return self.finding.kind, self.finding.subject


@dataclass(slots=True)
class CoordinatorState:
    """All that the mesh has agreed on."""

    applied: int = 0
    """Index of the last entry applied."""
    mesh: str = ""
    """The name that the founding entry gave."""
    yielded: str = ""
    """The mesh that this one gave way to; it accepts nothing since."""
    format: int = LOG_FORMAT_OLDEST
    """Of the log, as it is in force; only grows."""
    runs: dict[RunId, Run] = field(default_factory=dict)
    """Unfinished runs, and the newest finished ones."""
    archive: dict[RunId, RunSummary] = field(default_factory=dict)
    """Finished runs that are no longer in `runs`, in the order in which they left it."""
    finished: list[RunId] = field(default_factory=list)
    """Finished runs in `runs`, in the order in which they finished."""
    leases: dict[LeaseId, Lease] = field(default_factory=dict)
    workers: dict[PeerId, Worker] = field(default_factory=dict)
    locks: dict[str, LeaseId] = field(default_factory=dict)
    """Who holds each named lock that is held: one open lease."""
    nonces: dict[bytes, RunId] = field(default_factory=dict)
    """Nonces of all runs in `runs` and `archive`."""

    claims: dict[str, Claimed] = field(default_factory=dict)
    """Shared names that are held now."""
    pins: dict[Cid, Pin] = field(default_factory=dict)
    """The pinset: what the mesh keeps, and where. In logs from format 4 on."""
    alerts: dict[AlertId, Alert] = field(default_factory=dict)
    """In the order in which they were raised. In logs from format 5 on, as the next."""
    quarantine: dict[PeerId, Quarantine] = field(default_factory=dict)
    """Workers that get no new leases."""
    pin_changes: int = field(default=0, compare=False)
    """Of `pins`, as far as this copy of the state has seen: so that nobody need look again."""

    def worker_names(self) -> dict[PeerId, str]:
        return {peer: worker.name for peer, worker in self.workers.items()}

    def open_tests(self, peer: PeerId) -> int:
        """Tests that a worker holds."""
        worker = self.workers.get(peer)
        return sum(ranges.size(self.leases[lease].open) for lease in worker.leases) if worker else 0


def final_state(exit_code: int, cancelled: bool) -> str:
    """ "passed", "failed", "cancelled" or "error", from a finished run's exit code."""
    if exit_code in (0, 1):
        return "failed" if exit_code else "passed"
    return "cancelled" if cancelled and exit_code == 2 else "error"

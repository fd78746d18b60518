"""Content: what is kept as IPFS blocks. A spec says what to run, a manifest what was collected, records what
happened."""

import enum

from protocols.codec import message
from protocols.ids import Cid, LeaseId, PeerId, RunId, TestIndex
from protocols.inputs import UNSEEN

SPEC_BYTES_MAX = 64 * 1024
"""A run's spec, encoded: it goes into the log."""

SHARE_MAX = 100
DEADLINE_SECONDS_MAX = 30 * 86_400
PREEMPT_MODES = ("never", "waiting", "grace", "now")
"""What a run may take from those of much lower priority: nothing; tests that have not started; running ones, too, after
a grace; or these at once."""

AFTER_MAX = 16
"""Runs that one run may wait for."""

THOUSAND = 1_000
"""Processors, devices and a host's disk and network are counted in thousandths: sums stay exact."""
LOCKS_MAX, LOCK_CHARACTERS_MAX = 16, 100
"""Locks that one test may hold, and the length of their names."""
NEED_MAX = 2**53
"""Of any amount that a test needs."""
HOSTS_MAX = 8
"""Hosts that one test may need at once."""

OUTPUT_BYTES_MAX = 256 * 1024
"""What a record keeps of each captured stream: its first and its last half of this; what it drops, it counts."""


class Outcome(enum.StrEnum):
    """The verdict of a test, in pytest's words."""

    PASSED = "passed"
    FAILED = "failed"
    ERROR = "error"
    SKIPPED = "skipped"
    XFAILED = "xfailed"
    XPASSED = "xpassed"

    @property
    def code(self) -> int:
        """The one byte that stands for it in the log."""
        return _CODES.index(self)

    @classmethod
    def of_code(cls, code: int) -> "Outcome":
        return _CODES[code]

    @property
    def bad(self) -> bool:
        return self in (Outcome.FAILED, Outcome.ERROR)


_CODES = (Outcome.PASSED, Outcome.FAILED, Outcome.ERROR, Outcome.SKIPPED, Outcome.XFAILED, Outcome.XPASSED)


@message("m.spec", later=11)
class RunSpec:
    """One request to execute a suite, or commands, once: everything that the mesh needs to know of it."""

    bundle: Cid
    """UnixFS directory: the tree under test."""
    name: str
    """Base name of the tree's root: the directory that holds it on a worker has that name."""
    project: str
    """What durations are remembered by, such as "networkx"."""
    submitter: PeerId
    arguments: tuple[str, ...] = ()
    """pytest's arguments, relative to the bundle's root."""
    command: str | None = None
    """Not pytest: a shell command, `{}` standing for each of `files` where there are any."""
    files: tuple[str, ...] = ()
    priority: int = 50
    requires: str = ""
    prefers: str = ""
    test_type: str = ""
    worker_count: int = 0
    """At most this many workers; 0: no limit."""
    retries: int = 0
    timeout: float = 0.0
    """Seconds a test may take; 0: no limit."""
    environment: str = "ambient"
    variables: tuple[tuple[str, str], ...] = ()
    """Environment variables of the tests."""
    python: str = ""
    """A version such as "3.12", or an interpreter's path on the worker; empty: the worker's own Python."""
    maxfail: int = 0
    """Bad verdicts after which the run ends, and nothing of it starts any more; 0: no limit."""
    selection: Cid | None = None
    """A `Selection`, as a UnixFS file: only those of the collected tests are run."""
    share: int = 1
    """How many parts of its priority band's slots this run claims, beside others that claim theirs."""
    deadline: float = 0.0
    """Seconds from the submission after which the results are of no use; 0: none."""
    preempt: str = "grace"
    """What it may take from runs of much lower priority: one of `PREEMPT_MODES`."""
    after: tuple[RunId, ...] = ()
    """Runs that must have ended well before this one starts; their reports are handed to its tests."""
    hedge: bool = False
    """Whether a test that takes far longer than expected may be run by a second worker meanwhile."""
    cached: bool = False
    """Whether a test that passed takes that verdict again, instead of running, while nothing that it read changed."""
    cached_allow: tuple[str, ...] = ()
    """What such a test may have used all the same: some of `protocols.inputs.UNSEEN`, sorted."""
    trace: str = ""
    """The W3C `traceparent` under which the run's spans are told; empty: none. In logs from format 5 on."""

    def __post_init__(self) -> None:
        if not 0 <= self.priority <= 100:
            raise ValueError(f"priority {self.priority} is not within 0 to 100")
        if not 1 <= self.share <= SHARE_MAX:
            raise ValueError(f"share {self.share} is not within 1 to {SHARE_MAX}")
        if not 0 <= self.deadline <= DEADLINE_SECONDS_MAX:
            raise ValueError(f"deadline {self.deadline:g} is not within 0 to {DEADLINE_SECONDS_MAX} seconds")
        if self.preempt not in PREEMPT_MODES:
            raise ValueError(f"preempt {self.preempt!r} is not one of {', '.join(PREEMPT_MODES)}")
        if len(self.after) > AFTER_MAX:
            raise ValueError(f"a run follows at most {AFTER_MAX} others, not {len(self.after)}")
        if list(self.cached_allow) != sorted(set(self.cached_allow) & set(UNSEEN)):
            raise ValueError(f"cached_allow takes some of {', '.join(UNSEEN)}, sorted")


@message("m.test")
class CollectedTest:
    """One collected test. `scope` is what it shares fixtures with (its module, or its xdist_group)."""

    id: str
    """pytest's node ID, relative to the bundle's root; or the shell command's name."""
    scope: str
    requirement: int = 0
    """Index into the manifest's `requirements`."""
    timeout: float = 0.0


@message("m.environment")
class EnvironmentInfo:
    """What a suite was collected in, so that a later run can tell whether it is in the same, or build it again."""

    kind: str
    """ "ambient" or "uv"."""
    digest: str
    """Of what the environment was made from (uv), or of what was found in it (ambient)."""
    implementation: str
    python: str
    """Such as "3.12.1"."""
    platform: str
    """Such as "linux-x86_64"."""
    distributions: Cid | None = None
    """A raw block: the installed distributions, a line "name version" each, sorted."""


@message("m.needs", later=1)
class Needs:
    """What a test takes while it runs, and when it should: the markers `resources`, `exclusive` and `priority`.

    Amounts but `memory` and `hosts` are in thousandths (`THOUSAND`). A GPU is shared by those who take less than a
    whole one.
    """

    cpu: int = THOUSAND
    memory: int = 0
    """Bytes."""
    gpu: int = 0
    disk: int = 0
    """Of what its host's disk can do; `network` likewise."""
    network: int = 0
    locks: tuple[str, ...] = ()
    """Names, sorted: each is held by one test in the whole mesh at a time."""
    priority: int = 0
    """Within the run, the larger the earlier."""
    hosts: int = 1
    """At once: it runs on one of them, and the same is kept for it on each of the others, its companions."""

    def __post_init__(self) -> None:
        if not 1 <= self.hosts <= HOSTS_MAX:
            raise ValueError(f"a test needs 1 to {HOSTS_MAX} hosts")
        amounts = (self.cpu, self.memory, self.gpu, self.disk, self.network)
        if not all(0 <= amount <= NEED_MAX for amount in amounts) or abs(self.priority) > NEED_MAX:
            raise ValueError("a need is out of bounds")
        if self.gpu > THOUSAND and self.gpu % THOUSAND:
            raise ValueError("GPUs are taken whole, or a share of one")
        if max(self.disk, self.network) > THOUSAND:
            raise ValueError("a host has one disk and one network")
        if len(self.locks) > LOCKS_MAX or list(self.locks) != sorted(set(self.locks)):
            raise ValueError(f"at most {LOCKS_MAX} locks, sorted")
        if any(not 0 < len(lock) <= LOCK_CHARACTERS_MAX for lock in self.locks):
            raise ValueError("the name of a lock is too long, or empty")

    @property
    def held(self) -> bool:
        """Whether anything has to be kept for the test while it runs, beside the slot that any test takes."""
        amounts = (self.memory, self.gpu, self.disk, self.network, self.locks)
        return self.cpu > THOUSAND or self.hosts > 1 or any(amounts)


NOTHING = Needs()


@message("m.device")
class Device:
    """`share` thousandths of a device of the worker that has the lease; `name` as its probe, or a label, has it."""

    name: str
    share: int = THOUSAND

    def __post_init__(self) -> None:
        if not 0 < self.share <= THOUSAND:
            raise ValueError(f"no device has {self.share} thousandths")


@message("m.companion")
class Companion:
    """Another worker of a lease whose test needs several hosts: what the test takes is kept for it there, and nothing
    of ours runs there for it."""

    worker: PeerId
    incarnation: int
    devices: tuple[Device, ...] = ()


@message("m.dep")
class Dependency:
    """`count` tests of a manifest from `first` each wait for each of the `on_count` tests from `on`."""

    first: int
    count: int
    on: int
    on_count: int
    """0: for a test that is not a part of the run, so that those who wait are skipped."""
    passed: bool = True
    """Each must have passed, else those that wait are skipped; False: the order is all that matters."""

    def __post_init__(self) -> None:
        if self.first < 0 or self.count < 1 or self.on < 0 or self.on_count < 0:
            raise ValueError("not a dependency between ranges of tests")


@message("m.manifest", later=5)
class Manifest:
    """The ordered list of collected tests of a bundle."""

    bundle: Cid
    tests: tuple[CollectedTest, ...]
    requirements: tuple[tuple[str, str], ...] = (("", ""),)
    """(requires, prefers) expressions that the markers asked for, beside the run's own."""
    environment: EnvironmentInfo | None = None
    notes: bytes = b""
    """What pytest says of a collection beside its tests (`pytest_side/telling.py`); empty: nothing is known."""
    needs: tuple[Needs, ...] = ()
    """What the tests of each requirement take; empty: nothing special."""
    dependencies: tuple[Dependency, ...] = ()
    setting: str = ""
    """The environment and variables in which it was collected, as an `InputTable` has them; of cached runs only."""

    def needs_of(self, requirement: int) -> Needs:
        return self.needs[requirement] if requirement < len(self.needs) else NOTHING


@message("m.origin")
class Origin:
    """Where records come from, and all that it takes to run their tests again: a block that each of them links."""

    run: RunId
    spec: RunSpec
    """As the worker was told it, which links the bundle."""
    manifest: Cid
    environment: EnvironmentInfo | None
    """The worker's own."""
    variables: tuple[tuple[str, str], ...]
    """Environment variables that the mesh chose for the tests beside those of the spec, such as PYTHONHASHSEED."""


@message("m.phase")
class Phase:
    """setup, call or teardown of an attempt."""

    name: str
    outcome: str
    duration: float


@message("m.record", later=6)
class Record:
    """What is kept of one attempt at a test. Times in seconds; `started` since the epoch."""

    test: str
    outcome: Outcome
    duration: float
    started: float
    worker: PeerId
    slot: int
    attempt: int
    phases: tuple[Phase, ...] = ()
    message: str = ""
    """One line: why it failed, was skipped, crashed."""
    longrepr: str = ""
    """The traceback as pytest prints it."""
    stdout: str = ""
    stderr: str = ""
    log: str = ""
    dropped: int = 0
    """Bytes of output left out, over all streams."""
    signal: int = 0
    """The signal that killed the test's process; 0: none."""
    properties: tuple[tuple[str, str], ...] = ()
    artifacts: Cid | None = None
    """UnixFS directory of what the test left in `mesh_artifacts`."""
    warnings: tuple[str, ...] = ()
    """Each as pytest prints it: "path:line: Category: message", and the line of source."""
    reruns: int = 0
    """Tries that failed before, in the same process (`flaky(reruns=)`, `--reruns`): `phases` has them all."""
    subtests: tuple[Phase, ...] = ()
    """Those that did not pass, each with its description; they count towards the test's outcome."""
    reports: bytes = b""
    """pytest's reports and warnings of the attempt (`pytest_side/telling.py`), for a client that replays them. Empty
    where a test passed without a word, its process died, or it says too much."""
    origin: Cid | None = None
    """An `Origin`, as a block. From log format 4 on."""
    reused: Cid | None = None
    """Of a test that did not run: the record of the attempt whose verdict this is."""

    @property
    def flaky(self) -> bool:
        """Passed, but not at once."""
        return self.reruns > 0 and self.outcome is Outcome.PASSED


@message("m.selection")
class Selection:
    """Which tests of a bundle to run: by ID, or by file (an ID without "::")."""

    tests: tuple[str, ...]
    otherwise_all: bool = False
    """Whether everything is run when none of them is there."""
    first: bool = False
    """Whether the others follow, too."""


@message("m.uncollected")
class Uncollected:
    """What pytest said when nothing could be collected. `notes` as in a manifest."""

    output: bytes
    notes: bytes = b""


@message("m.chunk", later=6)
class Chunk:
    """Records that travel together: `records[i]` is the encoded record of `tests[i]`. From log format 4 on it is
    signed: one signature for all, since the records' own hashes follow from what is signed."""

    tests: tuple[TestIndex, ...]
    records: tuple[bytes, ...]
    run: RunId = RunId(0)
    lease: LeaseId = LeaseId(0)
    """0: made by a coordinator, of tests that ran nowhere."""
    worker: PeerId = PeerId("")
    """Whose key signed it."""
    origin: Cid | None = None
    signature: bytes = b""
    inputs: bytes = b""
    """What these tests read, a packed `InputTable`; of cached runs only."""


@message("m.seal")
class Seal:
    """What the coordinator that closed a run signs: everything that its report holds beside this."""

    run: RunId
    coordinator: PeerId
    closed: float
    """Seconds since the epoch."""
    workers: tuple[tuple[PeerId, str], ...]
    """Those whose verdicts count, and coordinators that ended tests which ran nowhere; each with its name."""
    origins: int
    """Files `origins/N.cbor` of the report."""
    chunks: int
    """Files `chunks/N.cbor`."""
    entries: tuple[tuple[str, Cid], ...]
    """Each file or directory at the report's root, by name."""
    signature: bytes = b""

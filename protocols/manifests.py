"""Content: what is kept as IPFS blocks. A spec says what to run, a manifest what was collected, records what
happened."""

import enum

from protocols.codec import message
from protocols.ids import Cid, PeerId, TestIndex

SPEC_BYTES_MAX = 64 * 1024
"""A run's spec, encoded: it goes into the log."""

SHARE_MAX = 100
DEADLINE_SECONDS_MAX = 30 * 86_400
PREEMPT_MODES = ("never", "waiting", "grace", "now")
"""What a run may take from those of much lower priority: nothing; tests that have not started; running ones, too, after
a grace; or these at once."""

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


@message("m.spec")
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
    share: int = 1
    """How many parts of its priority band's slots this run claims, beside others that claim theirs."""
    deadline: float = 0.0
    """Seconds from the submission after which the results are of no use; 0: none."""
    preempt: str = "grace"
    """What it may take from runs of much lower priority: one of `PREEMPT_MODES`."""

    def __post_init__(self) -> None:
        if not 0 <= self.priority <= 100:
            raise ValueError(f"priority {self.priority} is not within 0 to 100")
        if not 1 <= self.share <= SHARE_MAX:
            raise ValueError(f"share {self.share} is not within 1 to {SHARE_MAX}")
        if not 0 <= self.deadline <= DEADLINE_SECONDS_MAX:
            raise ValueError(f"deadline {self.deadline:g} is not within 0 to {DEADLINE_SECONDS_MAX} seconds")
        if self.preempt not in PREEMPT_MODES:
            raise ValueError(f"preempt {self.preempt!r} is not one of {', '.join(PREEMPT_MODES)}")


@message("m.test")
class CollectedTest:
    """One collected test. `scope` is what it shares fixtures with (its module, or its xdist_group)."""

    id: str
    """pytest's node ID, relative to the bundle's root; or the shell command's name."""
    scope: str
    requirement: int = 0
    """Index into the manifest's `requirements`."""
    timeout: float = 0.0


@message("m.manifest")
class Manifest:
    """The ordered list of collected tests of a bundle."""

    bundle: Cid
    tests: tuple[CollectedTest, ...]
    requirements: tuple[tuple[str, str], ...] = (("", ""),)
    """(requires, prefers) expressions that the markers asked for, beside the run's own."""


@message("m.phase")
class Phase:
    """setup, call or teardown of an attempt."""

    name: str
    outcome: str
    duration: float


@message("m.record")
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


@message("m.chunk")
class Chunk:
    """Records that travel together: `records[i]` is the encoded record of `tests[i]`."""

    tests: tuple[TestIndex, ...]
    records: tuple[bytes, ...]

"""Content: what is kept as IPFS blocks. A spec says what to run, a manifest what was collected, records what
happened."""

import enum

from protocols.codec import message
from protocols.ids import Cid, PeerId, TestIndex

SPEC_BYTES_MAX = 64 * 1024
"""A run's spec, encoded: it goes into the log."""

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
    python: str = ""
    """A version such as "3.12", or an interpreter's path on the worker; empty: the worker's own Python."""
    maxfail: int = 0
    """Bad verdicts after which the run ends, and nothing of it starts any more; 0: no limit."""
    selection: Cid | None = None
    """A `Selection`, as a UnixFS file: only those of the collected tests are run."""

    def __post_init__(self) -> None:
        if not 0 <= self.priority <= 100:
            raise ValueError(f"priority {self.priority} is not within 0 to 100")


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


@message("m.manifest")
class Manifest:
    """The ordered list of collected tests of a bundle."""

    bundle: Cid
    tests: tuple[CollectedTest, ...]
    requirements: tuple[tuple[str, str], ...] = (("", ""),)
    """(requires, prefers) expressions that the markers asked for, beside the run's own."""
    environment: EnvironmentInfo | None = None
    notes: bytes = b""
    """What pytest says of a collection beside its tests (`pytest_side/telling.py`); empty: nothing is known."""


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
    warnings: tuple[str, ...] = ()
    """Each as pytest prints it: "path:line: Category: message", and the line of source."""
    reruns: int = 0
    """Tries that failed before, in the same process (`flaky(reruns=)`, `--reruns`): `phases` has them all."""
    subtests: tuple[Phase, ...] = ()
    """Those that did not pass, each with its description; they count towards the test's outcome."""
    reports: bytes = b""
    """pytest's reports and warnings of the attempt (`pytest_side/telling.py`), for a client that replays them. Empty
    where a test passed without a word, its process died, or it says too much."""

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


@message("m.chunk")
class Chunk:
    """Records that travel together: `records[i]` is the encoded record of `tests[i]`."""

    tests: tuple[TestIndex, ...]
    records: tuple[bytes, ...]

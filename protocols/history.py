"""Finished runs as each voter keeps them after the log has forgotten them: numbers, and columns of results."""

from protocols.codec import message
from protocols.ids import Cid, PeerId, RunId


@message("h.run")
class PastRun:
    """What a finished run came to. Times in seconds; `submitted_at` and `at` since the epoch."""

    key: str
    """The same wherever it is learnt from: the report's CID, or the mesh and the number of a run without one."""
    run: RunId
    mesh: str
    project: str
    name: str
    state: str
    exit_code: int
    submitted_at: float
    at: float
    """When it finished."""
    tests: int
    counts: tuple[int, ...]
    """By `Outcome.code`."""
    test_seconds: float
    reused: int
    queue_seconds: float | None
    """From its submission until a test of it was first with a worker; None: nobody saw it."""
    slots: int
    """Of the workers that took part; 0: not known."""
    report: Cid | None
    manifest: Cid | None
    workers: tuple[tuple[PeerId, str], ...]
    """Each with its name then."""
    flaky: tuple[int, ...] = ()
    """Tests that were bad, were tried again, and then were not (at most `FLAKY_MAX`)."""
    tries: tuple[tuple[int, int], ...] = ()
    """Bad tries before a verdict: the test, and its worker's place in `workers` (at most `TRIES_MAX`)."""
    coverage: float | None = None
    """Part of the lines that ran (and of the branches, where they were measured), 0 to 1; None: not known."""

    @property
    def wall_seconds(self) -> float:
        return max(0.0, self.at - self.submitted_at)

    @property
    def utilisation(self) -> float | None:
        """Part of its workers' slots that ran tests, from the first one on."""
        span = (self.wall_seconds - (self.queue_seconds or 0.0)) * self.slots
        return min(1.0, self.test_seconds / span) if span > 0 else None


FLAKY_MAX = 1_000
TRIES_MAX = 5_000

COVERAGE_FILE = "coverage.json"
"""In the report of a run that measured its coverage: `{"percent": 0 to 100}`."""
COVERAGE_DATA = ".coverage."
"""How the names of coverage.py's data files begin, among what tests leave."""

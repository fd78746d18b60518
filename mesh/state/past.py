"""What is kept of a finished run for the long term: from the state, packed in a few bytes a result, and back.

Results are columns, one value a test in the manifest's order, so that equal neighbours compress to nothing. Durations
are split into planes, the lowest bytes of all of them first: the upper ones of short tests are zeros. Test IDs stand
beside them, once for all runs of the same tests.
"""

import hashlib
import json
import zlib
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from mesh.state.completions import pack, unpack
from mesh.state.model import NO_VERDICT, NO_WORKER, Run, RunPhase, RunSummary
from mesh.state.report import who_ran
from protocols.errors import RemoteProtocolError
from protocols.history import COVERAGE_FILE, FLAKY_MAX, TRIES_MAX, PastRun
from protocols.ids import PeerId
from protocols.manifests import Outcome

DURATION_PLANES = 5
"""Bytes of a duration: 12 days in microseconds. What took longer is kept as that."""
DURATION_MAX = 256**DURATION_PLANES - 1

WORKERS_MAX = 255
"""Of a run, that are told apart."""
NOBODY = 255
"""In `Results.workers`: no worker ended it, or one beyond those that are told apart."""

GOOD, BAD, NEITHER = 0, 1, 2
_KIND = {
    Outcome.PASSED: GOOD,
    Outcome.XFAILED: GOOD,
    Outcome.XPASSED: GOOD,
    Outcome.FAILED: BAD,
    Outcome.ERROR: BAD,
    Outcome.SKIPPED: NEITHER,
}
KINDS = bytes(_KIND[Outcome.of_code(code)] if code < len(Outcome) else NEITHER for code in range(256))
"""By an outcome's code, or for `translate`: what it says of a test. `NO_VERDICT` says as little as a skip."""
TIMED = (Outcome.PASSED.code, Outcome.XPASSED.code)
"""Outcomes whose durations can be compared: what fails ends early, or late."""

SEPARATOR = "\0"
"""Between test IDs; in one it would be replaced."""
_REPLACEMENT = "\ufffd"

_LEVEL = 6


@dataclass(frozen=True, slots=True)
class Results:
    """Columns: outcome code (`NO_VERDICT`: none), microseconds, place in `PastRun.workers` (`NOBODY`) and number of the
    attempt of each test's verdict."""

    outcomes: bytes
    durations: "array[int]"
    workers: bytes
    attempts: bytes


@dataclass(frozen=True, slots=True)
class Whole:
    """A past run with its results; `digest` stands for the list of its tests."""

    run: PastRun
    digest: bytes
    results: Results


@dataclass(frozen=True, slots=True)
class Seen:
    """One test in one past run, as its columns have it."""

    run: PastRun
    index: int
    outcome: int
    duration: int
    worker: int
    attempt: int

    @property
    def host(self) -> tuple[PeerId, str]:
        """The worker of its verdict, and its name then; empty: not known."""
        return self.run.workers[self.worker] if self.worker < len(self.run.workers) else (NO_WORKER, "")


def past_run(
    mesh: str, run: Run | RunSummary, names: Mapping[PeerId, str], started: float | None, slots: int
) -> PastRun:
    """A finished run's numbers. `started`: when a test of it was first with a worker, seconds since the epoch; `slots`:
    those of its workers."""
    assert run.exit_code is not None, "only a finished run is past"
    assert run.finished_at is not None, "a finished run has its time"
    what = run.spec if isinstance(run, Run) else run
    return PastRun(
        key=run.report or f"{mesh}/{run.id}",
        run=run.id,
        mesh=mesh,
        project=what.project,
        name=what.name,
        state=run.state,
        exit_code=run.exit_code,
        submitted_at=run.submitted_at,
        at=run.finished_at,
        tests=run.tests,
        counts=tuple(run.counts),
        test_seconds=run.microseconds / 1e6,
        reused=run.reused,
        queue_seconds=None if started is None else max(0.0, started - run.submitted_at),
        slots=slots,
        report=run.report,
        manifest=run.manifest,
        workers=tuple((peer, names.get(peer, "")) for peer in workers_of(run)) if isinstance(run, Run) else (),
        flaky=_flaky(run) if isinstance(run, Run) else (),
        tries=_tries(run) if isinstance(run, Run) else (),
    )


def covered_part(data: bytes) -> float:
    """0 to 1, as a report's `COVERAGE_FILE` has it; `RemoteProtocolError` for what is none."""
    try:
        percent = float(json.loads(data)["percent"])
    except (ValueError, KeyError, TypeError):
        raise RemoteProtocolError(f"{COVERAGE_FILE} does not say how much was covered") from None
    if not 0.0 <= percent <= 100.0:
        raise RemoteProtocolError(f"{COVERAGE_FILE} says that {percent} % was covered")
    return percent / 100.0


def workers_of(run: Run) -> tuple[PeerId, ...]:
    """Those that are told apart, in the order of `Results.workers`."""
    return tuple(run.workers[:WORKERS_MAX])


def _flaky(run: Run) -> tuple[int, ...]:
    bad = {outcome.code for outcome in Outcome if outcome.bad}
    found = (test for test in sorted(run.retried) if run.outcomes[test] not in bad and run.outcomes[test] != NO_VERDICT)
    return tuple(test for test, _ in zip(found, range(FLAKY_MAX), strict=False))


def _tries(run: Run) -> tuple[tuple[int, int], ...]:
    places = {peer: place for place, peer in enumerate(workers_of(run))}
    found = ((test, places.get(tried.worker, NOBODY)) for tried in run.tries for test in tried.tests)
    return tuple(one for one, _ in zip(found, range(TRIES_MAX), strict=False))


def results_of(run: Run) -> Results:
    """The columns of a run whose phase is finished."""
    assert run.phase is RunPhase.FINISHED, "a finished run changes no more"
    places = {peer: place for place, peer in enumerate(workers_of(run))}
    peers, attempts = who_ran(run)
    workers = bytes(places.get(peer or NO_WORKER, NOBODY) for peer in peers)
    return Results(bytes(run.outcomes), run.durations[:], workers, attempts.tobytes())


def flips_of(kinds: Sequence[int]) -> int:
    """How often a test changed from good to bad or back."""
    return sum(one != other for one, other in pairwise(kinds))


def pack_results(results: Results) -> bytes:
    durations = array("Q", (min(max(each, 0), DURATION_MAX) for each in results.durations))
    raw = pack(durations)
    planes = (raw[plane::8] for plane in range(DURATION_PLANES))
    return zlib.compress(b"".join((results.outcomes, results.workers, results.attempts, *planes)), _LEVEL)


def unpack_results(data: bytes, tests: int) -> Results:
    """`RemoteProtocolError` for what is not the columns of so many tests."""
    size = (3 + DURATION_PLANES) * tests
    engine = zlib.decompressobj()
    try:
        raw = engine.decompress(data, size + 1)
    except zlib.error as error:
        raise RemoteProtocolError(f"results of a past run are damaged: {error}") from None
    if len(raw) != size or not engine.eof:
        raise RemoteProtocolError(f"results of a past run are not those of {tests} tests")
    columns = [raw[start : start + tests] for start in range(0, size, tests)] if tests else [b""] * 3
    spread = bytearray(8 * tests)
    for plane, column in enumerate(columns[3:]):
        spread[plane::8] = column
    return Results(columns[0], unpack("Q", spread), columns[1], columns[2])


def pack_names(tests: Sequence[str]) -> tuple[bytes, bytes]:
    """(digest, packed) of a list of test IDs; equal lists have the same digest."""
    joined = SEPARATOR.join(test.replace(SEPARATOR, _REPLACEMENT) for test in tests).encode("utf-8", "surrogatepass")
    return hashlib.sha256(joined).digest(), zlib.compress(joined, _LEVEL)


def unpack_names(data: bytes) -> list[str]:
    """`RemoteProtocolError` for what is not packed names."""
    try:
        joined = zlib.decompress(data)
        return joined.decode("utf-8", "surrogatepass").split(SEPARATOR) if joined else []
    except (zlib.error, UnicodeDecodeError) as error:
        raise RemoteProtocolError(f"names of past tests are damaged: {error}") from None


def place_of(test: str, data: bytes) -> int | None:
    """Where a test stands in packed names, without making a list of them; None: nowhere."""
    try:
        joined = zlib.decompress(data)
    except zlib.error as error:
        raise RemoteProtocolError(f"names of past tests are damaged: {error}") from None
    mark = SEPARATOR.encode()
    padded = mark + joined + mark
    found = padded.find(mark + test.encode("utf-8", "surrogatepass") + mark)
    return None if found < 0 else padded.count(mark, 0, found)

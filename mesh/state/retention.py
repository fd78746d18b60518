"""What is kept of finished runs: the newest whole, older ones as summaries, the oldest not at all.

Decided when a run finishes, from the state alone, so that every voter forgets the same. A report outlives its run
here: it is content, found by its CID.
"""

from mesh.state.model import (
    DETAILED_TESTS_MAX,
    RUNS_DETAILED_MAX,
    RUNS_SUMMARISED_MAX,
    CoordinatorState,
    Run,
    RunSummary,
)

MICROSECONDS_MAX = 2**63 - 1
"""Of a run's tests in a summary. Durations are what workers say, each within 64 bits; their sum may not be, and a
summary that can't be encoded would stop every voter at its next snapshot."""


def retain(state: CoordinatorState) -> None:
    """Bring the finished runs within their bounds; the newest one always stays whole."""
    detailed = sum(state.runs[run].tests for run in state.finished)
    while len(state.finished) > 1 and (len(state.finished) > RUNS_DETAILED_MAX or detailed > DETAILED_TESTS_MAX):
        oldest = state.runs.pop(state.finished.pop(0))
        detailed -= oldest.tests
        state.archive[oldest.id] = summary(oldest)
    while len(state.archive) + len(state.finished) > RUNS_SUMMARISED_MAX:
        forgotten = state.archive.pop(next(iter(state.archive)))
        del state.nonces[forgotten.nonce]


def summary(run: Run) -> RunSummary:
    """A finished run without its tests."""
    assert run.exit_code is not None, "only a finished run is summed up"
    assert run.finished_at is not None, "a finished run has its time"
    return RunSummary(
        id=run.id,
        nonce=run.nonce,
        name=run.spec.name,
        project=run.spec.project,
        submitter=run.spec.submitter,
        bundle=run.spec.bundle,
        priority=run.spec.priority,
        test_type=run.spec.test_type,
        submitted_at=run.submitted_at,
        finished_at=run.finished_at,
        manifest=run.manifest,
        tests=run.tests,
        counts=tuple(run.counts),
        microseconds=min(run.microseconds, MICROSECONDS_MAX),
        report=run.report,
        exit_code=run.exit_code,
        cancelled=run.cancelled is not None,
        reason=run.reason,
        reused=run.reused,
    )

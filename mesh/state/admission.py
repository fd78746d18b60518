"""Admission: which submissions the mesh takes on. Decided in the log, so that two at once can't both be the last one.

Limits are of what is open: a run leaves them when it is over, a test when it has its verdict. How many tests a run has
is known only after its collection, so a submitter may exceed its tests by one run, and gets no further ones until they
are down again. Rejected: a queue before the queue (a submitter who is told at once can decide; one who waits without a
number can't), limits in the coordinator alone (a new one would not know what the old one had just let in).
"""

from mesh.state.model import (
    RUNS_OPEN_MAX,
    RUNS_OPEN_PER_SUBMITTER_MAX,
    TESTS_OPEN_MAX,
    TESTS_OPEN_PER_SUBMITTER_MAX,
    CoordinatorState,
    RunPhase,
)
from protocols.manifests import RunSpec

LOG_FORMAT_MIN = 3
"""Limits beside that of all runs are part of the log's meaning from this format on."""


def refusal(state: CoordinatorState, spec: RunSpec) -> str:
    """Why the run can't be taken on now, for people; empty if it can. Time linear in the open runs."""
    if len(state.runs) - len(state.finished) >= RUNS_OPEN_MAX:
        return f"{RUNS_OPEN_MAX} runs are unfinished already, the most that a mesh takes on"
    if state.format < LOG_FORMAT_MIN:
        return ""
    runs, tests, everything = 0, 0, 0
    for run in state.runs.values():
        if run.phase is RunPhase.FINISHED:
            continue
        waiting = run.pending_tests + run.leased
        everything += waiting
        if run.spec.submitter == spec.submitter:
            runs += 1
            tests += waiting
    if runs >= RUNS_OPEN_PER_SUBMITTER_MAX:
        return f"this submitter has {runs} unfinished runs, and {RUNS_OPEN_PER_SUBMITTER_MAX} is the limit for one"
    if tests >= TESTS_OPEN_PER_SUBMITTER_MAX:
        return f"this submitter has {tests} tests waiting, and {TESTS_OPEN_PER_SUBMITTER_MAX} is the limit for one"
    if everything >= TESTS_OPEN_MAX:
        return f"{everything} tests are waiting already, and {TESTS_OPEN_MAX} is the limit of a mesh"
    return ""

"""Runs that come after others: when they may start, what they are handed, and when they never will; and runs that are
late for their deadline.

A run names only runs that were accepted before it, so there are no circles. What the log has forgotten has ended long
ago, nobody knows how: whoever comes after it does not start.
"""

import dataclasses

from mesh.scheduler.feasibility import Reason
from mesh.scheduler.waiting import Waiting
from mesh.state.model import CoordinatorState, Run, RunPhase
from protocols.commands import Cancel
from protocols.errors import MeshFailed
from protocols.ids import PeerId, RunId
from protocols.manifests import RunSpec

REPORTS_VARIABLE, RUNS_VARIABLE = "MESH_UPSTREAM_REPORT", "MESH_UPSTREAM_RUN"
"""Environment variables of the tests: the CIDs of the reports, and the runs, in the order of `after`, with spaces."""


def unfinished(state: CoordinatorState, spec: RunSpec) -> list[RunId]:
    """Those that a run waits for."""
    return [run for run in spec.after if run in state.runs and state.runs[run].phase is not RunPhase.FINISHED]


def failed(state: CoordinatorState, run: Run) -> Cancel | None:
    """The end of a run that waits for one that did not pass."""
    for before in run.spec.after:
        found = state.runs.get(before) or state.archive.get(before)
        if found is None:
            return Cancel(run.id, f"it comes after run {before}, which the mesh has forgotten")
        if found.exit_code:
            return Cancel(run.id, f"it comes after run {before}, which is {found.state}")
    return None


def hindrance(state: CoordinatorState, run: Run, now: float) -> Cancel | Waiting | None:
    """What keeps a run from being collected, if anything does: for good, or until others have ended."""
    before = unfinished(state, run.spec)
    never = failed(state, run)
    if never is not None or not before:
        return never
    reasons = tuple(Reason(PeerId(""), f"run {one}", "has not ended") for one in before)
    return Waiting(run.id, "", 0, max(0.0, now - run.submitted_at), reasons)


def late(state: CoordinatorState, now: float) -> list[Cancel]:
    """Ends of runs whose deadline passed: what they would still find out is of no use to anybody."""
    return [_missed(run) for run in state.runs.values() if _is_late(run, now)]


def _is_late(run: Run, now: float) -> bool:
    is_open = run.phase in (RunPhase.COLLECTING, RunPhase.RUNNING)
    return is_open and 0 < run.spec.deadline <= now - run.submitted_at


def _missed(run: Run) -> Cancel:
    done = f"{run.done} of {run.tests} tests had their verdict" if run.tests else "nothing was collected"
    reason = f"the deadline of {run.spec.deadline:g} s passed: {done}"
    return Cancel(run.id, reason, MeshFailed.exit_code)


def handed_over(state: CoordinatorState, spec: RunSpec) -> RunSpec:
    """The spec with what its tests are told of the runs before it."""
    if not spec.after:
        return spec
    found = [state.runs.get(run) or state.archive.get(run) for run in spec.after]
    reports = " ".join(one.report or "" for one in found if one is not None)
    told = {REPORTS_VARIABLE: reports, RUNS_VARIABLE: " ".join(map(str, spec.after))}
    return dataclasses.replace(spec, variables=tuple(sorted({**told, **dict(spec.variables)}.items())))

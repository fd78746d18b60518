"""The answers of `mesh plan`: what runs would be made of, by the newest run of the same, and how they would go.

Nothing is proposed, pinned or sent to a worker. The rehearsal shares the coordinator's loop a step at a time, one after
another, and for so long at most.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import trio

from mesh.coordinator.history import HINT_SECONDS, Error, History
from mesh.ports import Nodes
from mesh.scheduler.durations import Estimates
from mesh.scheduler.hopeless import PROBING
from mesh.scheduler.outlook import Outlook
from mesh.scheduler.rehearsal import Asked, Rehearsal
from mesh.state.model import CoordinatorState, Run, RunPhase
from mesh.views import plans
from protocols.client import PlanRuns
from protocols.errors import ContentNotFound, MeshFailed
from protocols.ids import Cid, PeerId, RunId
from protocols.manifests import CollectedTest, Manifest, RunSpec
from protocols.presence import NodeState

REHEARSAL_SECONDS_MAX = 20.0
"""Of one rehearsal, work of others in between; then it is cut short."""
PAUSE_SECONDS = 0.002
"""Between two steps: the coordinator's own work goes first."""
SETTLE_LOOKS_MAX, SETTLE_LOOK_SECONDS = 50, 0.1
"""How often those who have just come are looked for, and the pause between two looks."""
WAITING_MAX = 16
"""Rehearsals that wait for one to end."""


@dataclass(frozen=True, slots=True)
class _Made:
    """What a run would be made of. `source`: "run", "collected", "files", or "unknown" (then it has no tests)."""

    source: str
    manifest: Manifest
    run: Run | None = None
    """Whose tests these are, if the source is a run; else the project's newest, if there is one."""


class PlanDesk:
    """Rehearses runs for users."""

    def __init__(
        self,
        *,
        history: History,
        nodes: Nodes,
        outlook: Callable[[], Outlook],
        estimates: Callable[[], dict[RunId, Estimates]],
    ) -> None:
        self._history = history
        self._nodes = nodes
        self._outlook = outlook
        self._estimates = estimates
        self._turn = trio.Lock()

    async def plan(self, peer: PeerId, request: PlanRuns) -> dict[str, Any]:
        """The document of `mesh plan`. `peer` has the manifests that the request names."""
        if self._turn.statistics().tasks_waiting >= WAITING_MAX:
            raise MeshFailed(f"{WAITING_MAX} plans are waited for already: ask again in a minute")
        await self._settled()
        state = self._outlook().state
        made = [
            await self._made(state, spec, manifest, peer)
            for spec, manifest in zip(request.specs, request.manifests, strict=True)
        ]
        asked = [
            Asked(_with_files(spec, one), one.manifest, await self._estimated(state, spec.project, one.manifest))
            for spec, one in zip(request.specs, made, strict=True)
        ]
        errors = {spec.project: await self._history.error(state, spec.project) for spec in request.specs}
        async with self._turn:
            rehearsal = await self._rehearsed([one for one in asked if one.manifest.tests])
        others = sum(run.phase is not RunPhase.FINISHED for run in state.runs.values())
        runs = [_run_document(of, one, errors[of.spec.project]) for of, one in zip(asked, made, strict=True)]
        outcome = await trio.to_thread.run_sync(rehearsal.outcome)  # of a copy of its own, and long among many workers
        return plans.plan_document(outcome, runs, others)

    async def _estimated(self, state: CoordinatorState, project: str, manifest: Manifest) -> Estimates:
        """For how long all of it takes, not each test."""
        return (await self._history.estimates(state, project, manifest)).in_bulk()

    async def _settled(self) -> None:
        """A node that has just come may not have registered, or not have looked yet what it has."""
        for _ in range(SETTLE_LOOKS_MAX):
            if self._all_told():
                return
            await trio.sleep(SETTLE_LOOK_SECONDS)

    def _all_told(self) -> bool:
        """Whether every worker that is here, and there is one, is known with all that it has."""
        nodes = [view.presence for view in self._nodes.nodes().values() if view.state is NodeState.ALIVE]
        views = self._outlook().views
        here = [views.get(presence.peer) for presence in nodes if presence.role.works and presence.slots]
        return bool(here) and all(view is not None and view.alive and PROBING not in view.capabilities for view in here)

    async def _made(self, state: CoordinatorState, spec: RunSpec, manifest: Cid | None, peer: PeerId) -> _Made:
        if manifest is not None:
            return _Made("collected", await self._history.manifest(manifest, (peer,)), newest(state, spec.project))
        if spec.command is not None:
            names = spec.files or (spec.command,)
            tests = tuple(CollectedTest(name, name) for name in names)
            return _Made("files", Manifest(spec.bundle, tests), newest(state, spec.project))
        found = same(state, spec)
        if found is not None and found.manifest is not None:
            try:
                known = await self._history.manifest(found.manifest, tuple(found.workers), HINT_SECONDS)
                return _Made("run", known, found)
            except ContentNotFound:
                pass  # of a mesh that was restored without its content
        return _Made("unknown", Manifest(spec.bundle, ()), newest(state, spec.project))

    async def _rehearsed(self, asked: list[Asked]) -> Rehearsal:
        outlook = self._outlook()
        rehearsal = Rehearsal(outlook.state, outlook.views, self._estimates(), asked, outlook.now)
        with trio.move_on_after(REHEARSAL_SECONDS_MAX):
            for _ in rehearsal.steps():
                await trio.sleep(PAUSE_SECONDS)
        return rehearsal


def _with_files(spec: RunSpec, made: _Made) -> RunSpec:
    """Who has the files of the run before has most of those of the next one."""
    return dataclasses.replace(spec, bundle=made.run.spec.bundle) if made.run is not None else spec


def same(state: CoordinatorState, spec: RunSpec) -> Run | None:
    """The newest finished run of the same project and arguments, whose tests are likely those of such a run."""
    for run_id in reversed(state.finished):
        run = state.runs[run_id]
        wanted = (spec.project, spec.arguments, spec.command, spec.files, spec.test_type, None)
        before = run.spec
        found = (before.project, before.arguments, before.command, before.files, before.test_type, before.selection)
        if found == wanted and run.tests:
            return run
    return None


def newest(state: CoordinatorState, project: str) -> Run | None:
    """The newest finished run of a project."""
    finished = (state.runs[run_id] for run_id in reversed(state.finished))
    return next((run for run in finished if run.spec.project == project), None)


def _run_document(asked: Asked, made: _Made, error: Error | None) -> dict[str, Any]:
    return plans.run_document(
        spec=asked.spec,
        source=made.source,
        tests=len(made.manifest.tests),
        seconds=asked.estimates.total(0, len(asked.estimates)),
        known=asked.estimates.known,
        before=made.run,
        error=None
        if error is None
        else {
            "run": str(error.run),
            "median_relative": round(error.median, 4),
            "tests": error.tests,
            "under_upper_estimate": round(error.under, 4),
            "pace": round(error.pace, 4),
            "median_relative_at_pace": round(error.at_pace, 4),
        },
    )

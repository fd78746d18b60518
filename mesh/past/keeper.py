"""Fills a voter's history: each run as it finishes, and after a restart all that finished meanwhile.

A run's numbers come from the state, its tests' names from its manifest and what they covered from its report, which are
content. When a test of it was first with a worker stands nowhere in the log: each voter notes it as it sees it, and
knows nothing of what it slept through.
"""

import logging
from dataclasses import replace

import trio

from mesh.histories import RunHistory
from mesh.manifests import Manifests
from mesh.past.covered import coverage
from mesh.ports import Clock, Content, ReplicatedLog
from mesh.state.model import CoordinatorState, Run, RunPhase
from mesh.state.past import past_run, results_of
from protocols.errors import ContentNotFound, MeshError, RemoteProtocolError
from protocols.ids import RunId

log = logging.getLogger(__name__)

LOOK_SECONDS = 0.1
"""Between two looks at a log that changes all the time."""

MANIFEST_SECONDS = 30.0
"""For which the list of a run's tests is looked for; without it only the run's numbers are kept."""

COVERAGE_SECONDS = 10.0
"""For which a report that has just been made is asked what the run covered."""

REST_SECONDS = 60.0
"""After a failure of the disk, before the next attempt."""


class PastKeeper:
    """For as long as this node is a member of the log's group."""

    def __init__(self, history: RunHistory, content: Content, manifests: Manifests, clock: Clock) -> None:
        self._history = history
        self._content = content
        self._manifests = manifests
        self._clock = clock
        self._started: dict[RunId, float] = {}
        """When a test of an open run was first seen with a worker, seconds since the epoch."""
        self._missed: frozenset[RunId] | None = None
        """Runs that had begun before this node looked first."""
        self._done: set[RunId] = set()
        """Finished runs that there is nothing to do about."""

    async def keep(self, replica: ReplicatedLog) -> None:
        """Until cancelled."""
        self._started.clear()
        self._missed = None
        self._done.clear()
        while True:
            version = replica.version
            state: CoordinatorState = replica.state
            self._note_starts(state)
            try:
                await self._keep_finished(replica)
            except MeshError as error:
                log.warning("the history of runs is not kept: %s", error)
                await trio.sleep(REST_SECONDS)
            await trio.sleep(LOOK_SECONDS)
            await replica.wait_changed(version)

    def _note_starts(self, state: CoordinatorState) -> None:
        now = self._clock.now()
        under_way = [
            run.id
            for run in state.runs.values()
            if run.phase is not RunPhase.COLLECTING and (run.leased or run.done) and run.id not in self._started
        ]
        if self._missed is None:
            self._missed = frozenset(under_way)
        for run in under_way:
            if run not in self._missed and run not in self._done:
                self._started[run] = now

    async def _keep_finished(self, replica: ReplicatedLog) -> None:
        state: CoordinatorState = replica.state
        finished = [run for run in (*state.archive, *state.finished) if run not in self._done]
        for run_id in finished:
            state = replica.state
            run = state.runs.get(run_id) or state.archive.get(run_id)
            if run is None:
                continue
            peers = run.workers if isinstance(run, Run) else ()
            slots = sum(state.workers[peer].slots for peer in peers if peer in state.workers)
            past = past_run(replica.mesh, run, state.worker_names(), self._started.get(run_id), slots)
            if isinstance(run, Run) and run.tests and not self._history.has(past.key, whole=True):
                results, tests = results_of(run), await self._tests(run)
                if tests is not None and run.report is not None:
                    past = replace(past, coverage=await coverage(self._content, run.report, COVERAGE_SECONDS))
                await self._history.add(past, tests or (), None if tests is None else results, self._clock.now())
            elif not self._history.has(past.key):
                await self._history.add(past, now=self._clock.now())
            self._done.add(run_id)
            self._started.pop(run_id, None)
        self._done &= {*state.archive, *state.finished}

    async def _tests(self, run: Run) -> list[str] | None:
        """Names of the run's tests; None where nobody has them."""
        if run.manifest is None:
            return None
        try:
            manifest = await self._manifests.get(run.manifest, tuple(run.workers), MANIFEST_SECONDS, keep=False)
        except (ContentNotFound, RemoteProtocolError) as error:
            log.info("of run %d the numbers alone are kept: %s", run.id, error)
            return None
        return [test.id for test in manifest.tests] if len(manifest.tests) == run.tests else None

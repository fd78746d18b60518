"""How long tests took in earlier runs of the same project: what the order of a new run follows.

Nothing is kept beside the log: durations stand in the replicated state of finished runs, test names in their
manifests, which are content. A new coordinator builds the same again.
"""

import statistics
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from mesh.ports import Content
from mesh.scheduler.durations import Estimates, estimate
from mesh.state.model import CoordinatorState, Run
from protocols.codec import decode
from protocols.errors import ContentNotFound
from protocols.ids import Cid, PeerId, RunId
from protocols.manifests import Manifest

MANIFESTS_MAX = 16
"""Decoded manifests kept in memory."""

MANIFEST_SECONDS = 120.0
"""For which one is looked for; a run whose manifest is nowhere then ends without a report."""

HINT_SECONDS = 5.0
"""The same where it is only for how long tests took."""


@dataclass(frozen=True, slots=True)
class Error:
    """How far durations were off: of `run`, as the run before it would have had them expected."""

    run: RunId
    median: float
    """Of |expected - actual| / actual, over `tests`."""
    tests: int


class History:
    """Manifests, and estimated durations, by run."""

    def __init__(self, content: Content) -> None:
        self._content = content
        self._manifests: OrderedDict[Cid, Manifest] = OrderedDict()
        self._durations: dict[str, tuple[RunId, dict[str, float]]] = {}

    async def manifest(self, cid: Cid, holders: tuple[PeerId, ...] = (), timeout: float = MANIFEST_SECONDS) -> Manifest:
        """The manifest, from memory, this node's store, or a node that has it; `ContentNotFound` after `timeout`."""
        known = self._manifests.get(cid)
        if known is None:
            await self._content.fetch(cid, holders, timeout)
            data = b"".join([part async for part in self._content.read(cid)])
            known = decode(data, Manifest)
        self._manifests[cid] = known
        self._manifests.move_to_end(cid)
        while len(self._manifests) > MANIFESTS_MAX:
            self._manifests.popitem(last=False)
        return known

    async def estimates(self, state: CoordinatorState, project: str, manifest: Manifest) -> Estimates:
        """Expected seconds of each test of the manifest."""
        return estimate([test.id for test in manifest.tests], await self._known(state, project))

    async def error(self, state: CoordinatorState, project: str) -> Error | None:
        """Of the project's newest finished run; None if there are not two whose manifests can be had."""
        runs = _finished(state, project)
        newest, before = next(runs, None), next(runs, None)
        if newest is None or before is None:
            return None
        actual, known = await self._seconds(newest), await self._seconds(before)
        if not actual or not known:
            return None
        expected = estimate(list(actual), known)
        errors = [abs(guess - took) / took for guess, took in zip(expected, actual.values(), strict=True)]
        return Error(newest.id, statistics.median(errors), len(errors))

    async def _known(self, state: CoordinatorState, project: str) -> dict[str, float]:
        """Seconds by test ID, from the newest finished run of the project."""
        run = next(_finished(state, project), None)
        if run is None:
            return {}
        cached = self._durations.get(project)
        if cached is None or cached[0] != run.id:
            cached = self._durations[project] = (run.id, await self._seconds(run))
        return cached[1]

    async def _seconds(self, run: Run) -> dict[str, float]:
        """What the tests of a finished run took, by ID; empty if its manifest is nowhere."""
        assert run.manifest is not None, "a run with tests has a manifest"
        try:
            tests = (await self.manifest(run.manifest, tuple(run.workers), HINT_SECONDS)).tests
        except ContentNotFound:  # of a mesh that was restored without its content
            return {}
        return {test.id: run.durations[i] / 1e6 for i, test in enumerate(tests) if run.durations[i] > 0}


def _finished(state: CoordinatorState, project: str) -> Iterator[Run]:
    """Finished runs of a project that have verdicts, the newest first."""
    for run_id in reversed(state.finished):
        run = state.runs[run_id]
        if run.spec.project == project and run.tests and run.done and run.manifest is not None:
            yield run

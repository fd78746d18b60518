"""How long tests took in earlier runs of the same project: what the order of a new run follows.

Nothing is kept beside the log: durations stand in the replicated state of finished runs, test names in their
manifests, which are content. A new coordinator builds the same again.
"""

from collections import OrderedDict

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

    async def _known(self, state: CoordinatorState, project: str) -> dict[str, float]:
        """Seconds by test ID, from the newest finished run of the project."""
        run = _newest(state, project)
        if run is None or run.manifest is None:
            return {}
        cached = self._durations.get(project)
        if cached is None or cached[0] != run.id:
            try:
                tests = (await self.manifest(run.manifest, tuple(run.workers), HINT_SECONDS)).tests
            except ContentNotFound:  # of a mesh that was restored without its content
                tests = ()
            seconds = {test.id: run.durations[i] / 1e6 for i, test in enumerate(tests) if run.durations[i] > 0}
            cached = self._durations[project] = (run.id, seconds)
        return cached[1]


def _newest(state: CoordinatorState, project: str) -> Run | None:
    for run_id in reversed(state.finished):
        run = state.runs[run_id]
        if run.spec.project == project and run.tests and run.done:
            return run
    return None

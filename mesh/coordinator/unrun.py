"""Verdicts of tests that no lease ended: those that took their node with them, and those that depend on what did not
pass. Their records are made here, as content; whether they count, the log decides.
"""

import dataclasses
import logging
from collections.abc import Sequence
from dataclasses import dataclass

from mesh.content.unixfs.cid import as_raw
from mesh.coordinator.history import History
from mesh.coordinator.replicas import Replicas
from mesh.ports import Clock, Content, Network, Nodes, ReplicatedLog
from mesh.scheduler.waiting import Skipped
from mesh.state.model import NO_VERDICT, Run
from mesh.state.signing import LOG_FORMAT_MIN, signed_chunk
from protocols.codec import encode_block
from protocols.commands import Abandon, Skip
from protocols.errors import MeshError
from protocols.ids import Cid, PeerId, RunId, TestIndex
from protocols.manifests import Chunk, Manifest, Outcome, Record

log = logging.getLogger(__name__)

ABANDONED = "the node that ran this test died, each time that it ran alone"
ENDED = {
    Outcome.FAILED: "failed",
    Outcome.ERROR: "ended in an error",
    Outcome.SKIPPED: "was skipped",
    Outcome.XFAILED: "failed as expected",
}


@dataclass(frozen=True, slots=True)
class Recording:
    """What those need who record verdicts that no lease ended."""

    network: Network
    content: Content
    replicas: Replicas
    history: History
    log: ReplicatedLog
    nodes: Nodes
    clock: Clock

    async def keep(self, run: RunId, tests: Sequence[TestIndex], records: Sequence[Record], inputs: bytes = b"") -> Cid:
        """A chunk of these tests' records, signed by this node, as content that lies on two nodes."""
        me = self.network.peer_id
        encoded = tuple(encode_block(record) for record in records)
        chunk = Chunk(tuple(tests), encoded, inputs=inputs)
        if self.log.state.format >= LOG_FORMAT_MIN:
            chunk = signed_chunk(dataclasses.replace(chunk, run=run, worker=me), self.network.sign)
        cids = await self.content.put_many([*encoded, encode_block(chunk)], "dag-cbor")
        root = as_raw(cids[-1])
        await self.replicas.secure(root, me, self.nodes.nodes(), run=run)
        return root


class UnrunTests:
    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._history = recording.history
        self._log = recording.log
        self._busy = False
        self._newest: tuple[Sequence[tuple[RunId, TestIndex]], Sequence[Skipped]] = ((), ())

    async def record(self, abandons: Sequence[tuple[RunId, TestIndex]], skips: Sequence[Skipped]) -> None:
        """What the newest plan says of tests that no lease ends. Content may take its time to come: other plans are
        made meanwhile, of which the last one is next."""
        self._newest = (abandons, skips)
        if self._busy:
            return
        self._busy = True
        try:
            while any(self._newest):
                (abandons, skips), self._newest = self._newest, ((), ())
                for run, test in abandons:
                    await self._abandon(run, test)
                for skipped in skips:
                    await self._skip(skipped)
        finally:
            self._busy = False

    async def _abandon(self, run_id: RunId, test: TestIndex) -> None:
        """Record the verdict of a test that took its node with it, alone, too often."""
        run: Run | None = self._log.state.runs.get(run_id)
        if run is None or run.manifest is None or run.outcomes[test] != NO_VERDICT:
            return
        try:
            manifest = await self._history.manifest(run.manifest, tuple(run.workers))
            chunk = await self._chunk(run_id, manifest, (test,), Outcome.ERROR, ABANDONED)
            await self._log.propose(Abandon(run_id, test, chunk))
        except MeshError as error:
            log.warning("test %d of run %d can't be abandoned yet: %s", test, run_id, error)

    async def _skip(self, skipped: Skipped) -> None:
        """Record that tests are skipped, and for which other one."""
        run: Run | None = self._log.state.runs.get(skipped.run)
        if run is None or run.manifest is None:
            return
        tests = tuple(test for test in skipped.tests if run.outcomes[test] == NO_VERDICT)
        if not tests:
            return
        try:
            manifest = await self._history.manifest(run.manifest, tuple(run.workers))
            why = "depends on a test that is not a part of this run"
            if skipped.on is not None:
                ended = ENDED.get(Outcome.of_code(run.outcomes[skipped.on]), "did not pass")
                why = f"depends on {manifest.tests[skipped.on].id}, which {ended}"
            chunk = await self._chunk(skipped.run, manifest, tests, Outcome.SKIPPED, why)
            await self._log.propose(Skip(skipped.run, tests, chunk))
        except MeshError as error:
            log.warning("tests of run %d can't be skipped yet: %s", skipped.run, error)

    async def _chunk(
        self, run: RunId, manifest: Manifest, tests: Sequence[TestIndex], outcome: Outcome, why: str
    ) -> Cid:
        """Records of tests that ran nowhere."""
        now = self._recording.clock.now()
        nobody = PeerId("")
        records = [
            Record(manifest.tests[test].id, outcome, 0.0, now, nobody, 0, 1, message=why, longrepr=why)
            for test in tests
        ]
        return await self._recording.keep(run, tests, records)

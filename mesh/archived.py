"""Runs of long ago: their details, read from their reports. The log keeps a line of them, the report has everything.

Read where somebody asks, and kept for the next questions about the same; a report that is too large for a page is not
read: `mesh results` writes it out.
"""

import json
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import trio

from mesh.ports import Content
from mesh.run_views import RunViews
from mesh.state.verify import SEAL_FILE, record_cid
from mesh.views import restored
from mesh.views.restored import Step
from protocols.codec import decode
from protocols.errors import MeshError, UsageError
from protocols.ids import Cid, PeerId, RunId
from protocols.manifests import Chunk, Manifest, Record, Seal

RUNS_MAX = 2
"""That are kept."""
TESTS_MAX = 20_000
"""Of a run that is read: 2 s of a processor's time."""
CHUNKS_MAX = 4_096
RECORDS_AT_ONCE = 50
CONTENT_SECONDS = 10.0
"""How long each part is looked for."""

REPORT_BYTES_MAX = 16 * 1024 * 1024
"""Of `report.json`."""

CHUNKS = "chunks"


class Archive:
    def __init__(self, *, content: Content, manifest: Callable[[Cid, tuple[PeerId, ...]], Awaitable[Manifest]]) -> None:
        self._content = content
        self._manifest = manifest
        self._kept: OrderedDict[RunId, RunViews] = OrderedDict()
        self._turn = trio.Lock()

    async def views(self, run: Mapping[str, Any]) -> RunViews:
        """Of a run, given its document. `UsageError`: it can't be read."""
        number = RunId(int(run["run"]))
        async with self._turn:
            if number not in self._kept:
                self._kept[number] = await self._read(run)
            self._kept.move_to_end(number)
            while len(self._kept) > RUNS_MAX:
                self._kept.popitem(last=False)
            return self._kept[number]

    async def _read(self, run: Mapping[str, Any]) -> RunViews:
        report = run["report"]
        if report is None or run["manifest"] is None:
            raise UsageError(f"of run {run['run']} no details are left, and it has no report")
        if run["tests"] > TESTS_MAX:
            raise UsageError(
                f"of run {run['run']} only the report is left, and its {run['tests']} tests are too many to be read "
                f"from it for a page: `mesh results {run['run']} -o DIR` writes it out"
            )
        verdicts = await self._verdicts(Cid(report))
        steps = [await self._step(cid, verdicts) for cid in await self._chunks(Cid(report))]
        names = await self._names(Cid(report))
        state = restored.restored(run, steps, names)
        return RunViews(content=self._content, state=lambda: state, manifest=self._manifest)

    async def _chunks(self, report: Cid) -> list[Cid]:
        """The blocks in the report's directory of chunks, in the log's order."""
        folder = await self._content.look(report, CHUNKS)
        entries = await self._content.entries(folder.cid, CHUNKS_MAX)
        return [entry.cid for entry in sorted(entries, key=lambda entry: entry.name)[:CHUNKS_MAX]]

    async def _verdicts(self, report: Cid) -> dict[Cid, int]:
        """The records of the verdicts, each with the number of its attempt: `report.json` says which they are."""
        entry = await self._content.look(report, "report.json")
        if entry.size > REPORT_BYTES_MAX:
            raise UsageError(f"the report {report} is too long to be read for a page: {entry.size} bytes")
        data = b"".join([part async for part in self._content.read(entry.cid)])
        tests = (await trio.to_thread.run_sync(json.loads, data))["tests"]
        return {Cid(test["record"]): max(1, test["attempt"]) for test in tests if test["record"]}

    async def _step(self, cid: Cid, verdicts: Mapping[Cid, int]) -> Step:
        chunk = decode(await self._content.get(cid, (), CONTENT_SECONDS), Chunk)
        told = []
        for number, (test, data) in enumerate(zip(chunk.tests, chunk.records, strict=True)):
            if number % RECORDS_AT_ONCE == RECORDS_AT_ONCE - 1:
                await trio.lowlevel.checkpoint()
            told.append(restored.told(test, decode(data, Record), verdicts.get(record_cid(data), 0)))
        return Step(cid, chunk.worker, chunk.lease, told)

    async def _names(self, report: Cid) -> dict[PeerId, str]:
        """Of the workers, by the seal; none of a report that has no seal."""
        try:
            entry = await self._content.look(report, SEAL_FILE)
            data = b"".join([part async for part in self._content.read(entry.cid)])
            return dict(decode(data, Seal).workers)
        except MeshError:
            return {}

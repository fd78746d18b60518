"""What this node's API tells of a run's tests and of what waits: asked of the coordinator, and read from content.

Without a coordinator a member answers from its own log, and says so. Records are read here, where somebody asks for
them, and not by the coordinator: they may be long, and the node that asks has them afterwards.
"""

import dataclasses
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import Any

from mesh.archived import Archive
from mesh.entries import ContentKind
from mesh.feeds import Feeds
from mesh.paced import Paced
from mesh.ports import Content, ReplicatedLog
from mesh.run_views import ONLY_A_REPORT, RunViews, argument_of
from mesh.state.model import CoordinatorState
from mesh.views import documents
from mesh.views.tests_table import Wanted
from protocols.codec import decode
from protocols.errors import MeshError, NoQuorum
from protocols.ids import Cid, PeerId, RunId
from protocols.manifests import Chunk, Manifest, Record

ARTIFACTS_MAX = 200
"""Files of one test that are listed."""
ARTIFACT_DEPTH_MAX = 8
REST = 1.5
"""Answers are mostly the coordinator's, which paces them by their cost; here they are shared by all who wait."""
CONTENT_SECONDS = 10.0
"""How long a record, or what a test left, is looked for."""


class Details:
    """Implements `mesh.api.port.Details`."""

    def __init__(
        self,
        *,
        content: Content,
        replica: Callable[[], ReplicatedLog | None],
        look: Callable[[str, str, bool], Awaitable[bytes]],
        manifest: Callable[[Cid, tuple[PeerId, ...]], Awaitable[Manifest]],
        feed: Feeds,
    ) -> None:
        """`look` asks the coordinator for a view; `NoQuorum` if there is none: soon, if told to hurry."""
        self._content = content
        self._replica = replica
        self._look = look
        self._feed = feed
        self._paced = Paced(REST)
        self._archive = Archive(content=content, manifest=manifest)
        self._own = RunViews(content=content, state=self._state, manifest=manifest)

    async def run(self, run: RunId) -> dict[str, Any]:
        """One run. While there was a coordinator just now, or nothing is known of the run here, one is waited for: who
        asks whether it has ended is not to be told of yesterday."""
        try:
            look = partial(self._look, "run", str(run), not self._feed.is_fresh)
            told, agreed = json.loads(await self._paced.get(("run", run), look)), True
        except NoQuorum:
            state = self._state()
            known = state.runs.get(run) or state.archive.get(run)
            if known is None:
                told, agreed = json.loads(await self._look("run", str(run), False)), True
            else:
                shown = documents.run_document(known, time.time())
                told, agreed = {**shown, **documents.run_details(known, state.worker_names())}, False
        return {**told, **self._feed.dated(agreed)}

    async def tests(self, run: RunId, wanted: Wanted) -> bytes:
        return await self._told("tests", argument_of(run, **dataclasses.asdict(wanted)))

    async def timeline(self, run: RunId) -> bytes:
        return await self._told("timeline", argument_of(run))

    async def queue(self) -> bytes:
        return await self._told("queue", "")

    async def test(self, run: RunId, index: int) -> dict[str, Any]:
        """One test, with the records of all its tries."""
        told: dict[str, Any] = json.loads(await self._told("test", argument_of(run, index=index)))
        for one in told["tries"]:
            one["record"], one["trouble"] = await self._record(Cid(one.pop("chunk")), one["worker"], index)
        last = told["tries"][-1] if told["tries"] and told["outcome"] is not None else None
        told["record"] = last["record"] if last else None
        told["artifacts"] = await self._artifacts(told["record"]) if told["record"] else []
        return told

    async def _told(self, view: str, argument: str) -> bytes:
        return await self._paced.get((view, argument), partial(self._made, view, argument))

    async def _made(self, view: str, argument: str) -> bytes:
        """The document, as JSON; it may be long, and is not taken apart here."""
        try:
            told, agreed = await self._look(view, argument, True), True
        except NoQuorum:
            if self._replica() is None:
                raise
            told, agreed = await self._own.look(view, argument), False
        if told == ONLY_A_REPORT:
            run = await self.run(RunId(json.loads(argument)["run"]))
            told = await (await self._archive.views(run)).look(view, argument)
        return told[:-1] + b"," + json.dumps(self._feed.dated(agreed)).encode()[1:]

    def _state(self) -> CoordinatorState:
        replica = self._replica()
        if replica is None:
            raise NoQuorum("this node holds no log, and no coordinator answers")
        state: CoordinatorState = replica.state
        return state

    async def _record(self, chunk: Cid, worker: PeerId | None, index: int) -> tuple[dict[str, Any] | None, str]:
        """The record of a test in a chunk; or why there is none."""
        try:
            found = decode(await self._content.get(chunk, (worker,) if worker else (), CONTENT_SECONDS), Chunk)
        except MeshError as error:
            return None, str(error)
        if index not in found.tests:
            return None, f"chunk {chunk} has no record of this test"
        record = decode(found.records[found.tests.index(index)], Record)
        return documents.record_document(record), ""

    async def _artifacts(self, record: dict[str, Any]) -> list[dict[str, Any]]:
        """The files that the test left, with their paths; none if they are nowhere."""
        found: list[dict[str, Any]] = []
        if record["artifacts"] is not None:
            with suppress(MeshError):
                await self._list(Cid(record["artifacts"]), "", found, ARTIFACT_DEPTH_MAX)
        return found

    async def _list(self, directory: Cid, path: str, found: list[dict[str, Any]], depth: int) -> None:
        for entry in await self._content.entries(directory, ARTIFACTS_MAX):
            if len(found) >= ARTIFACTS_MAX:
                return
            look = await self._content.look(entry.cid)
            if look.kind is ContentKind.DIRECTORY:
                if depth:
                    await self._list(entry.cid, f"{path}{entry.name}/", found, depth - 1)
            else:
                found.append({"name": f"{path}{entry.name}", "cid": entry.cid, "size": look.size})

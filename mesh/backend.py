"""What the HTTP API and the commands see of the mesh: this node's soft state, and the coordinator's answers.

Any node serves it. What only the log knows is asked of the coordinator, wherever it is now; while there is none, a
member of the group answers from its own copy of the log, and the others with what gossip told them.
"""

import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, TypeVar

import trio

from mesh.details import Details
from mesh.feeds import Feeds
from mesh.live import LiveOutput
from mesh.loads import Loads
from mesh.manifests import Manifests
from mesh.node_alerts import NodeAlerts
from mesh.past_looker import Own, PastLooker, Rebuild
from mesh.pins import NodePins
from mesh.ports import Content, Network, Nodes, NodeView, ReplicatedLog
from mesh.raft.errors import NotLeader
from mesh.state.model import CoordinatorState
from mesh.state.snapshot import snapshot_file
from mesh.telling import Teller, told
from mesh.views import documents
from mesh.views.raft import no_document, raft_document
from protocols.client import (
    PROTOCOL,
    CancelRun,
    Document,
    Follow,
    PlanRuns,
    Progress,
    Query,
    SubmitRun,
    Submitted,
    Verdicts,
)
from protocols.codec import decode, encode
from protocols.errors import MeshError, NodeUnavailable, NoQuorum, RemoteCallError, UsageError
from protocols.ids import Cid, PeerId, RunId
from protocols.manifests import Chunk, Outcome, Record, RunSpec
from protocols.presence import NodeState
from protocols.snapshots import FILE_NAME
from protocols.work import PROTOCOL as WORK
from protocols.work import Ack, CommandVerb, NodeCommand, Refused

log = logging.getLogger(__name__)

COORDINATOR_SECONDS = 30.0
"""How long a request waits for a coordinator to appear and answer."""

LOOK_SECONDS = 2.0
"""The same for what this node can also answer from its own knowledge."""

PIN_SECONDS = 10.0
"""The same for a pin, which holds on this node in any case."""

SUBMIT_SECONDS = 300.0
"""A submission is answered once a second node holds the bundle."""

PLAN_SECONDS = 120.0
"""A rehearsal is answered when it is over, and others may be before it."""

FOLLOW_SECONDS = 1.0
"""How long one `Follow` may wait for news; also how often running tests are looked at."""

RETRY_SECONDS = 0.1

Reply = TypeVar("Reply")


class MeshBackend:
    """Implements `mesh.api.port.Backend`."""

    def __init__(
        self,
        *,
        network: Network,
        content: Content,
        nodes: Nodes,
        replica: Callable[[], ReplicatedLog | None],
        coordinator: Callable[[], PeerId | None],
        mesh_name: Callable[[], str],
        conflicts: Callable[[], tuple[str, ...]],
        ticket: Callable[[], str],
        home: Path,
        past: Own | None = None,
        rebuild: Rebuild | None = None,
        own_alerts: Callable[[], list[dict[str, Any]]] = list,
    ) -> None:
        self._network = network
        self._content = content
        self._nodes = nodes
        self._replica = replica
        self._coordinator = coordinator
        self._mesh_name = mesh_name
        self._conflicts = conflicts
        self._ticket = ticket
        self.feed = Feeds(
            network=network,
            nodes=nodes,
            group=replica,
            coordinator=coordinator,
            mesh_name=mesh_name,
            conflicts=conflicts,
            documents=self._node_documents,
        )
        self.manifests = Manifests(content)
        self.details = Details(
            content=content,
            replica=replica,
            look=self._look_for_details,
            manifest=self.manifests.get,
            feed=self.feed,
        )
        self._pins = NodePins(
            content=content,
            nodes=nodes,
            replica=replica,
            ask=self._document,
            page=lambda after: self._look("pins", after, LOOK_SECONDS),
            dated=self.feed.dated,
        )
        self._alerts = NodeAlerts(
            look=self._look,
            ask=self._document,
            replica=replica,
            own=own_alerts,
            dated=self.feed.dated,
        )
        self.loads = Loads(nodes, home / "loads")
        self._past = PastLooker(self._look, past, self.feed.dated, rebuild, replica)

    # Looking

    async def status(self) -> dict[str, Any]:
        """Interface.md's status document."""
        seen, agreed = await self._agreed_or_own()
        return {
            "mesh": self._mesh_name(),
            "self": self._network.peer_id,
            "coordinator": self._coordinator(),
            **seen,
            **self.feed.dated(agreed),
            "conflicts": list(self._conflicts()),
            "nodes": self._node_documents(),
        }

    async def ticket(self) -> str:
        return self._ticket()

    async def topology(self) -> dict[str, Any]:
        """Nodes, and the connections that they report, each once, with the mean of both ends' round-trip times."""
        views = self._nodes.nodes()
        times: dict[tuple[PeerId, PeerId], list[float]] = {}
        for peer, view in sorted(views.items()):
            for link in view.presence.links if view.state is not NodeState.DEAD else ():
                if link.peer in views and views[link.peer].state is not NodeState.DEAD:
                    times.setdefault((min(peer, link.peer), max(peer, link.peer)), []).append(link.rtt)
        return {
            "mesh": self._mesh_name(),
            "nodes": self._node_documents(),
            "links": [{"a": a, "b": b, "rtt": sum(rtts) / len(rtts)} for (a, b), rtts in sorted(times.items())],
        }

    async def overview(self) -> dict[str, Any]:
        """What the sheet of pictures is drawn from: nodes, runs and the verdicts of the newest runs."""
        status = await self.status()
        verdicts: list[dict[str, Any]] = []
        for run in reversed(status["runs"]):
            if len(verdicts) < documents.OVERVIEW_VERDICTS_MAX and run["done"]:
                verdicts += await self._verdicts_now(
                    RunId(int(run["run"])), documents.OVERVIEW_VERDICTS_MAX - len(verdicts)
                )
        return documents.overview_document(status, verdicts, time.time())

    async def raft(self) -> dict[str, Any]:
        """The group as its leader sees it; without one, as this node does."""
        try:
            document: dict[str, Any] = await self._look("raft", patience=LOOK_SECONDS)
            return document
        except (NoQuorum, RemoteCallError) as error:
            replica = self._replica()
            if replica is None:
                return no_document(self._mesh_name(), self._network.peer_id, str(error))
            presences = {peer: view.presence for peer, view in self._nodes.nodes().items()}
            state: CoordinatorState = replica.state
            old = isinstance(error, RemoteCallError)  # it leads, and its version has no such view
            trouble = "the coordinator is of a version that does not tell" if old else str(error)
            return raft_document(replica.mesh, replica.status(), state.format, presences, trouble, led=old)

    async def snapshot(self) -> bytes:
        """From this node's own log, as of now; a node without one has the coordinator's brought as content."""
        deadline = trio.current_time() + COORDINATOR_SECONDS
        while (replica := self._replica()) is not None:
            try:
                snapshot = await replica.snapshot(COORDINATOR_SECONDS)
                return snapshot_file(snapshot, replica.mesh, self._network.peer_id, time.time())
            except NotLeader:
                if trio.current_time() > deadline:
                    raise NoQuorum("no majority of the voters answers: `mesh raft` tells more") from None
                await trio.sleep(RETRY_SECONDS)
        cid = Cid((await self._look("snapshot"))["cid"])
        coordinator = self._coordinator()
        await self._content.fetch(cid, (coordinator,) if coordinator else ())
        return b"".join([part async for part in self._content.read(cid, FILE_NAME)])

    async def runs(self) -> dict[str, Any]:
        seen, agreed = await self._agreed_or_own()
        return {"runs": seen["runs"], **self.feed.dated(agreed)}

    async def run(self, run: RunId) -> dict[str, Any]:
        return await self.details.run(run)

    async def why(self, target: str) -> dict[str, Any]:
        document: dict[str, Any] = await self._look("why", target)
        return document

    async def plan(self, specs: Sequence[RunSpec], manifests: Sequence[Cid | None]) -> dict[str, Any]:
        request = PlanRuns(tuple(specs), tuple(manifests))
        answer = await self._ask(request, Document, COORDINATOR_SECONDS, PLAN_SECONDS)
        document: dict[str, Any] = json.loads(answer.json)
        return document

    async def record(self, cid: Cid) -> Record:
        return decode(await self._content.get(cid), Record)

    async def past(self, view: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        return await self._past.document(view, asked)

    async def node_history(self, node: str, hours: int) -> dict[str, Any]:
        return {**self.loads.document(self._resolve(node), hours), "seen_by": self._network.peer_id}

    async def node_runs(self, node: str, limit: int) -> dict[str, Any]:
        return await self._past.document("host", {"host": self._resolve(node), "limit": limit})

    # Doing

    async def rebuild(self, reports: Sequence[Cid] | None) -> dict[str, Any]:
        return await self._past.rebuild(reports)

    async def alerts(self) -> dict[str, Any]:
        return await self._alerts.listing()

    async def acknowledge(self, alert: str, by: str) -> dict[str, Any]:
        return await self._alerts.acknowledge(alert, by)

    async def pins(self) -> dict[str, Any]:
        return await self._pins.listing()

    async def pin(self, root: Cid, replicas: int) -> dict[str, Any]:
        return await self._pins.pin(root, replicas)

    async def unpin(self, root: Cid) -> dict[str, Any]:
        return await self._pins.unpin(root)

    async def submit(self, nonce: bytes, spec: RunSpec) -> RunId:
        await self._content.fetch(spec.bundle)  # `mesh retry`: of a run that another node submitted
        await self._content.hold([spec.bundle], f"bundle of {spec.name}")
        if spec.selection is not None:
            await self._content.hold([spec.selection], f"selection for {spec.name}")
        return (await self._ask(SubmitRun(nonce, spec), Submitted, COORDINATOR_SECONDS, SUBMIT_SECONDS)).run

    async def cancel(self, run: RunId) -> None:
        await self._ask(CancelRun(run, "cancelled by a user"), Ack, COORDINATOR_SECONDS)

    async def command(self, node: str, verb: CommandVerb) -> None:
        peer = self._resolve(node)
        answer = decode(await self._network.call(peer, WORK, encode(NodeCommand(verb))), Ack, Refused)
        if isinstance(answer, Refused):
            raise RemoteCallError(answer.reason)

    async def follow(self, run: RunId, cursor: int = 0, whole: bool = False) -> AsyncIterator[dict[str, Any]]:
        """See `mesh.api.port.Backend`."""
        teller = Teller(run, cursor)
        phase = ""
        while True:
            request = Follow(run, teller.cursor, phase, FOLLOW_SECONDS)
            progress = await self._ask(request, Progress, COORDINATOR_SECONDS)
            phase = progress.phase
            if progress.manifest is not None and teller.manifest is None:
                teller.manifest = await self.manifests.get(progress.manifest, progress.holders)
                teller.cid = progress.manifest
                yield teller.collected()
            for event in teller.started(progress):
                yield event
            for verdicts in progress.verdicts:
                chunk = await self._chunk(verdicts, whole)
                records = await self._records(verdicts, chunk)
                for event in teller.verdicts(verdicts, records, told(chunk) if whole else {}):
                    yield event
            if progress.final:
                yield {**json.loads(progress.final), "cursor": teller.cursor}
                return

    async def output(self, run: RunId, test: str) -> AsyncIterator[dict[str, Any]]:
        """What the run's tests print, as they do: of `test`, or of those whose IDs hold it."""
        live = LiveOutput(
            network=self._network,
            content=self._content,
            ask=lambda request: self._ask(request, Progress, COORDINATOR_SECONDS),
            manifest=lambda progress: self.manifests.get(Cid(progress.manifest or ""), progress.holders),
            run=run,
            test=test,
        )
        async with aclosing(live.events()) as events:
            async for event in events:
                yield event
        yield {"event": "ended", "run": str(run)}

    # Inside

    async def _ask(
        self, request: object, answer: type[Reply], patience: float, timeout: float = COORDINATOR_SECONDS
    ) -> Reply:
        """Ask the coordinator, for up to `patience` seconds, whoever it becomes meanwhile."""
        deadline = trio.current_time() + patience
        trouble = "this node knows of no coordinator"
        while True:
            coordinator = self._coordinator()
            try:
                if coordinator is not None:
                    payload = await self._network.call(coordinator, PROTOCOL, encode(request), timeout)
                    reply = decode(payload, Refused, answer)
                    if not isinstance(reply, Refused):
                        self.feed.heard()
                        return reply
                    trouble = reply.reason
            except NodeUnavailable as error:
                trouble = str(error)
            if trio.current_time() > deadline:
                raise NoQuorum(f"no coordinator answers: {trouble}")
            await trio.sleep(RETRY_SECONDS)

    async def _document(self, request: object) -> dict[str, Any]:
        document: dict[str, Any] = json.loads((await self._ask(request, Document, PIN_SECONDS)).json)
        return document

    async def _look(
        self, view: str, argument: str = "", patience: float = COORDINATOR_SECONDS, timeout: float | None = None
    ) -> Any:
        answer = await self._ask(Query(view, argument), Document, patience, patience if timeout is None else timeout)
        return json.loads(answer.json)

    @property
    def _patience(self) -> float:
        """For what can be answered without a coordinator: where there was none for a while, none is waited for."""
        return LOOK_SECONDS if self.feed.is_fresh else 0.0

    async def _look_for_details(self, view: str, argument: str, hurry: bool) -> bytes:
        patience = self._patience if hurry else COORDINATOR_SECONDS
        return (await self._ask(Query(view, argument), Document, patience, COORDINATOR_SECONDS)).json

    async def _agreed_or_own(self) -> tuple[dict[str, Any], bool]:
        """Term, voters, commit index and runs by the coordinator; without one, what this node knows (and False)."""
        try:
            return await self._look("mesh", "", self._patience, LOOK_SECONDS), True
        except NoQuorum:
            replica = self._replica()
            if replica is None:
                term = max((view.presence.term for view in self._alive()), default=0)
                voters = [view.presence.peer for view in self._alive() if view.presence.raft == "voter"]
                return {"commit_index": 0, "term": term, "voters": voters, "runs": []}, False
            state: CoordinatorState = replica.state
            runs = [documents.run_document(run, time.time()) for run in state.runs.values()]
            voters = sorted(replica.configuration.voters)
            return {"commit_index": replica.applied, "term": replica.term, "voters": voters, "runs": runs}, False

    async def _chunk(self, verdicts: Verdicts, whole: bool) -> Chunk:
        """The records of these verdicts; empty when nothing went wrong (but for `whole`), or when they can't be had."""
        if not (whole or any(Outcome.of_code(code).bad for code in verdicts.outcomes)):
            return Chunk((), ())
        coordinator = self._coordinator()
        try:
            holders = tuple(peer for peer in (coordinator, verdicts.worker) if peer)
            return decode(await self._content.get(verdicts.chunk, holders), Chunk)
        except MeshError as error:
            log.info("records of chunk %s: %s", verdicts.chunk, error)
            return Chunk((), ())

    async def _records(self, verdicts: Verdicts, chunk: Chunk) -> dict[int, Cid]:
        """CIDs of the records by test, now on this node, too; of verdicts among which something went wrong."""
        if not any(Outcome.of_code(code).bad for code in verdicts.outcomes):
            return {}
        return dict(zip(chunk.tests, await self._content.put_many(chunk.records, "dag-cbor"), strict=True))

    async def _verdicts_now(self, run: RunId, limit: int) -> list[dict[str, Any]]:
        teller = Teller(run, 0)
        rows: list[dict[str, Any]] = []
        while len(rows) < limit:
            progress = await self._ask(Follow(run, teller.cursor, "", 0.0), Progress, LOOK_SECONDS)
            if progress.manifest is None or not progress.verdicts:
                break
            if teller.manifest is None:
                teller.manifest = await self.manifests.get(progress.manifest, progress.holders)
            for verdicts in progress.verdicts:
                rows += [event for event in teller.verdicts(verdicts, {}, {}) if event["event"] == "verdict"]
        return rows[:limit]

    def _alive(self) -> list[NodeView]:
        return [view for _, view in sorted(self._nodes.nodes().items()) if view.state is not NodeState.DEAD]

    def _node_documents(self) -> list[dict[str, Any]]:
        coordinator = self._coordinator()
        return [
            documents.node_document(view.presence, view.state, view.presence.peer == coordinator)
            for _, view in sorted(self._nodes.nodes().items())
        ]

    def _resolve(self, node: str) -> PeerId:
        """A peer by its ID, an unambiguous beginning or end of one, or a name."""
        views = self._nodes.nodes()
        if node in views or self.loads.knows(node):
            return PeerId(node)
        named = [peer for peer, view in sorted(views.items()) if view.presence.name == node]
        found = named or [peer for peer in sorted(views) if node and (peer.startswith(node) or peer.endswith(node))]
        if len(found) != 1:
            what = f"{len(found)} nodes answer to" if found else "no node answers to"
            raise UsageError(f"{what} {node!r}: give a name or a peer ID of `mesh nodes`")
        return found[0]

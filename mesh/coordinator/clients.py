"""What users ask of the coordinator, through whichever node they talk to: submit, cancel, follow, look.

Invariant: a run is accepted only when its bundle lies on two nodes. Answers are cut to the size of a message.
"""

import dataclasses
import json
from array import array
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import trio

from mesh.coordinator.alert_desk import AlertDesk
from mesh.coordinator.fleet import Fleet
from mesh.coordinator.history import History
from mesh.coordinator.pin_desk import PinDesk
from mesh.coordinator.planning import PlanDesk
from mesh.coordinator.replicas import Replicas
from mesh.coordinator.why import WhyDesk
from mesh.ports import Clock, Content, Nodes, ReplicatedLog
from mesh.run_views import RunViews
from mesh.scheduler import hedging
from mesh.scheduler.durations import Estimates
from mesh.scheduler.outlook import Outlook
from mesh.scheduler.queue import Claim, Standing, standings
from mesh.state.model import Completion, CoordinatorState, Run, RunSummary
from mesh.state.report import finished_event
from mesh.state.results import Rejected
from mesh.state.snapshot import snapshot_file
from mesh.state.unrun import REUSE_FORMAT_MIN
from mesh.views import documents
from mesh.views.raft import raft_document
from protocols.client import (
    FOLLOW_SECONDS_MAX,
    VERDICTS_PER_ANSWER_MAX,
    CancelRun,
    Document,
    Follow,
    KnowAlert,
    PinContent,
    PlanRuns,
    Progress,
    Query,
    SubmitRun,
    Submitted,
    UnpinContent,
    Verdicts,
)
from protocols.codec import encode
from protocols.commands import Cancel, Submit
from protocols.errors import MeshFailed, UsageError
from protocols.ids import PeerId, RunId, TestIndex
from protocols.manifests import SPEC_BYTES_MAX
from protocols.snapshots import FILE_NAME
from protocols.traceparent import LOG_FORMAT_MIN as TRACE_FORMAT_MIN
from protocols.work import Ack, Refused

RUNS_SHOWN_MAX = 500
"""Newest runs in one answer."""

PAST_VIEWS = ("projects", "trends", "seen", "host")
Past = Callable[[str, str], Awaitable[dict[str, Any]]]
"""Answers one of these views of finished runs, from what this node keeps of them."""

ClientRequest = SubmitRun | CancelRun | Follow | Query | PlanRuns | PinContent | UnpinContent | KnowAlert
CLIENT_REQUESTS = (SubmitRun, CancelRun, Follow, Query, PlanRuns, PinContent, UnpinContent, KnowAlert)


class ClientDesk:
    """Answers users; proposes what they decide."""

    def __init__(
        self,
        *,
        log: ReplicatedLog,
        content: Content,
        nodes: Nodes,
        history: History,
        replicas: Replicas,
        fleet: Fleet,
        pins: PinDesk,
        clock: Clock,
        outlook: Callable[[], Outlook],
        claims: Callable[[], tuple[Claim, ...]],
        estimates: Callable[[], dict[RunId, Estimates]],
        done: Callable[[Run, Estimates], tuple[float, float]],
        past: Past | None,
    ) -> None:
        self._log = log
        self._nodes = nodes
        self._history = history
        self._replicas = replicas
        self._fleet = fleet
        self._pins = pins
        self._clock = clock
        self._claims = claims
        self._alerts = AlertDesk(log, clock)
        self._past = past
        self._planning = PlanDesk(history=history, nodes=nodes, outlook=outlook, estimates=estimates)
        self._views = RunViews(
            content=content,
            state=lambda: self._state,
            manifest=history.manifest,
            running=lambda: fleet.under_way(trio.current_time()),
            estimates=estimates,
            done=done,
            waiting=lambda: outlook().waiting,
            standings=self._standings,
        )
        self._why = WhyDesk(
            history=history,
            fleet=fleet,
            outlook=outlook,
            run=self._run,
            standing=lambda run: self._standings().get(run),
        )

    @property
    def _state(self) -> CoordinatorState:
        state: CoordinatorState = self._log.state
        return state

    async def handle(self, peer: PeerId, request: ClientRequest) -> bytes:
        """Answer a node that asks on behalf of a user."""
        if not self._log.is_leader:
            return encode(Refused("this node does not coordinate", self._log.leader))
        match request:
            case SubmitRun():
                answer: Any = await self._submit(peer, request)
            case CancelRun():
                answer = await self._cancel(request)
            case Follow():
                answer = await self._follow(request)
            case Query(view, argument) if view in RunViews.NAMES:
                answer = Document(await self._views.look(view, argument))
            case Query(view, argument):
                answer = _document(await self._look(view, argument))
            case PlanRuns():
                answer = _document(await self._planning.plan(peer, request))
            case PinContent():
                answer = _document(await self._pins.pin(peer, request))
            case KnowAlert():
                answer = _document(await self._alerts.know(request))
            case UnpinContent():
                answer = _document(await self._pins.unpin(request))
        return encode(answer)

    async def _submit(self, peer: PeerId, request: SubmitRun) -> Submitted:
        known = self._state.nonces.get(request.nonce)
        if known is not None:
            return Submitted(known)
        size = len(encode(request.spec))
        if size > SPEC_BYTES_MAX:
            raise UsageError(f"the run's options take {size} bytes, over the limit of {SPEC_BYTES_MAX}")
        for before in request.spec.after:
            self._run(before)
        await self._replicas.secure(request.spec.bundle, peer, self._nodes.nodes(), f"bundle of {request.spec.name}")
        if request.spec.selection is not None:
            reason = f"selection for {request.spec.name}"
            await self._replicas.secure(request.spec.selection, peer, self._nodes.nodes(), reason)
        spec = request.spec
        if self._state.format < hedging.LOG_FORMAT_MIN:  # its older readers know no such field
            spec = dataclasses.replace(spec, hedge=False)
        if self._state.format < REUSE_FORMAT_MIN:
            spec = dataclasses.replace(spec, cached=False, cached_allow=())
        if self._state.format < TRACE_FORMAT_MIN:
            spec = dataclasses.replace(spec, trace="")
        applied = await self._log.propose(Submit(request.nonce, spec, self._clock.now()))
        if isinstance(applied.result, Rejected):
            refused = UsageError if applied.result.limit else MeshFailed
            raise refused(f"the run was not accepted: {applied.result.reason}")
        return Submitted(applied.result.run)

    async def _cancel(self, request: CancelRun) -> Ack:
        self._run(request.run)
        await self._log.propose(Cancel(request.run, request.reason))
        return Ack()

    async def _follow(self, request: Follow) -> Progress:
        with trio.move_on_after(min(max(request.wait, 0.0), FOLLOW_SECONDS_MAX)):
            version = self._log.version
            while not self._has_news(request):
                version = await self._log.wait_changed(version)
        return self._progress(request)

    def _has_news(self, request: Follow) -> bool:
        run = self._run(request.run)
        return run.state != request.phase or not isinstance(run, Run) or run.done > request.cursor

    def _progress(self, request: Follow) -> Progress:
        run = self._run(request.run)
        if not isinstance(run, Run):
            return Progress(run.state, run.tests, run.manifest, (), (), (), _finished(run))
        verdicts, told = _verdicts_since(run.chunks, request.cursor)
        over = run.exit_code is not None and request.cursor + told >= run.done
        running = tuple(
            (test, peer, run.attempts[test] + 1)
            for peer, lease, test in self._fleet.running()
            if lease in self._state.leases and self._state.leases[lease].run == run.id
        )
        holders = dict.fromkeys([*run.workers, run.spec.submitter])
        return Progress(
            run.state, run.tests, run.manifest, tuple(holders), verdicts, running, _finished(run) if over else b""
        )

    def _run(self, run_id: RunId) -> Run | RunSummary:
        run = self._state.runs.get(run_id) or self._state.archive.get(run_id)
        if run is None:
            raise UsageError(f"there is no run {run_id}")
        return run

    async def _look(self, view: str, argument: str) -> Any:
        if view == "mesh":
            voters = sorted(self._log.configuration.voters)
            return {"commit_index": self._log.applied, "term": self._log.term, "voters": voters, "runs": self._runs()}
        if view == "raft":
            return self._raft()
        if view == "alerts":
            return self._alerts.listing()
        if view == "pins":
            return self._pins.page(argument)
        if view == "snapshot":
            snapshot = await self._log.snapshot()
            file = snapshot_file(snapshot, self._log.mesh, self._log.status().peer, self._clock.now())
            return {"cid": await self._replicas.offer(FILE_NAME, file)}
        if view == "run" and argument.isdecimal():
            run = self._run(RunId(int(argument)))
            details = documents.run_details(run, self._state.worker_names())
            return {**self._run_documents([run])[0], **details}
        if view == "why":
            return await self._why.why(argument)
        if view in PAST_VIEWS:
            if self._past is None:
                raise MeshFailed("the coordinator keeps no history: its log says why")
            return await self._past(view, argument)
        raise UsageError(f"there is no view {view!r} of {argument!r}")

    def _raft(self) -> dict[str, Any]:
        presences = {peer: view.presence for peer, view in self._nodes.nodes().items()}
        return raft_document(self._log.mesh, self._log.status(), self._state.format, presences)

    def _runs(self) -> list[dict[str, Any]]:
        state = self._state
        known: Mapping[RunId, Run | RunSummary] = {**state.archive, **state.runs}
        newest = sorted(known, reverse=True)[:RUNS_SHOWN_MAX]
        return self._run_documents([known[run] for run in reversed(newest)])

    def _run_documents(self, runs: Sequence[Run | RunSummary]) -> list[dict[str, Any]]:
        queue, etas, now = self._standings(), self._views.etas(runs), self._clock.now()
        return [documents.run_document(run, now, queue.get(run.id), etas.get(run.id)) for run in runs]

    def _standings(self) -> dict[RunId, Standing]:
        """Of the runs that have tests to hand out, as the newest plan saw them."""
        return {one.run: one for one in standings(self._claims())}

    async def overview(self, coordinator: PeerId) -> dict[str, Any]:
        """What the pictures are drawn from, as this coordinator sees it."""
        verdicts: list[dict[str, Any]] = []
        for run in sorted(self._state.runs.values(), key=lambda run: run.id, reverse=True):
            if run.manifest is not None and len(verdicts) < documents.OVERVIEW_VERDICTS_MAX:
                manifest = await self._history.manifest(run.manifest, tuple(run.workers))
                verdicts += documents.verdict_rows(run, manifest, documents.OVERVIEW_VERDICTS_MAX - len(verdicts))
        nodes = [
            documents.node_document(view.presence, view.state, peer == coordinator)
            for peer, view in sorted(self._nodes.nodes().items())
        ]
        group = {"mesh": self._log.mesh, "coordinator": coordinator, "term": self._log.term}
        status = {**group, "nodes": nodes, "runs": self._runs()}
        return documents.overview_document(status, verdicts, self._clock.now())


def _document(data: Any) -> Document:
    return Document(json.dumps(data, separators=(",", ":")).encode())


def _finished(run: Run | RunSummary) -> bytes:
    return json.dumps(finished_event(run)).encode()


def _verdicts_since(chunks: list[Completion], cursor: int) -> tuple[tuple[Verdicts, ...], int]:
    """The recorded verdicts from the `cursor`-th on, as many as fit one answer, and how many they are."""
    told: list[Verdicts] = []
    number = passed = 0
    for chunk in chunks:
        start = max(0, cursor - passed)
        passed += len(chunk.tests)
        if passed <= cursor:
            continue
        stop = min(len(chunk.tests), start + VERDICTS_PER_ANSWER_MAX - number)
        told.append(_verdicts(chunk, start, stop))
        number += stop - start
        if number >= VERDICTS_PER_ANSWER_MAX:
            break
    return tuple(told), number


def _verdicts(chunk: Completion, start: int, stop: int) -> Verdicts:
    tests: array[int] = chunk.tests[start:stop]
    return Verdicts(
        chunk.chunk,
        chunk.worker,
        tuple(TestIndex(test) for test in tests),
        chunk.outcomes[start:stop],
        tuple(chunk.durations[start:stop]),
        tuple(chunk.attempts[start:stop]),
    )

"""Traces: each run that ends while this node coordinates is told to a collector of OpenTelemetry's, as spans.

They are made when the run has ended, of the log and of the records, so that they cost nothing while it runs. All is
bounded: runs that wait to be told, records that are read, spans of a run. A trace that can't be sent is given up, with
a line in the log; a run that ends just as its coordinator dies has none.
"""

import json
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

import trio

from mesh.monitoring import otlp
from mesh.monitoring.metrics import program_version
from mesh.ports import Content, ReplicatedLog
from mesh.state.feed import EVENT_BYTES_MAX, EVENTS_MAX
from mesh.state.model import Completion, CoordinatorState, Run
from mesh.views import spans
from mesh.views.spans import Moments, Ran, Span
from protocols.codec import decode
from protocols.errors import MeshError
from protocols.ids import LeaseId, PeerId, RunId
from protocols.manifests import Chunk, Record
from protocols.traceparent import parse_traceparent

RUNS_WAITING_MAX = 32
RECORDS_READ_MAX = 20_000
"""Of a run; those of tests that went wrong go first."""

SEND_SECONDS_MAX = 10.0
GRACE_SECONDS = 3.0
"""For a trace, while this node works, and when it stops."""

log = logging.getLogger(__name__)


class Exporter(Protocol):
    """`mesh.monitoring.otlp.OtlpExporter` is one. Both block."""

    def send(self, mesh: str, run: Run, told: Sequence[Span]) -> bool: ...

    def stop(self) -> None: ...


class Tracing:
    """`exporter`: made when there is something to send, since its library takes long to load."""

    def __init__(self, content: Content, exporter: Callable[[], Exporter]) -> None:
        self._content = content
        self._make = exporter
        self._exporter: Exporter | None = None

    async def follow(self, group: ReplicatedLog) -> None:
        """Tell of the runs that end while this node is a member of `group` and coordinates, until cancelled."""
        seen = set(group.state.finished)
        waiting: deque[RunId] = deque()
        try:
            while True:
                version = group.version
                _look(group, seen, waiting)
                await self._tell_all(group, waiting)
                await group.wait_changed(version)
        finally:
            _look(group, seen, waiting)
            for run in list(waiting)[1:]:
                log.warning("run %d gets no trace: this node stops", run)
            await self._tell_all(group, deque(list(waiting)[:1]))

    async def _tell_all(self, group: ReplicatedLog, waiting: deque[RunId]) -> None:
        """None is broken off at once by a node that stops: it would be told by halves, and again."""
        while waiting:
            run = waiting.popleft()
            async with trio.open_nursery() as nursery:
                with trio.CancelScope(shield=True, deadline=trio.current_time() + SEND_SECONDS_MAX) as scope:
                    nursery.start_soon(_hurry, scope)
                    await self._tell(group, run)
                if scope.cancelled_caught:
                    log.warning("the trace of run %d was not taken by the collector in time", run)
                    if self._exporter is not None:
                        self._exporter.stop()  # or its thread goes on trying
                        self._exporter = None
                nursery.cancel_scope.cancel()

    async def _tell(self, group: ReplicatedLog, run_id: RunId) -> None:
        state: CoordinatorState = group.state
        run = state.runs.get(run_id)
        parent = parse_traceparent(run.spec.trace) if run is not None else None
        if run is None or (parent is not None and not parent.sampled):
            return
        try:
            ran = await self._read(run)
            told = spans.run_spans(run, ran, _moments(group, run), state.worker_names())
            sent = await trio.to_thread.run_sync(self._send, group.mesh, run, told, abandon_on_cancel=True)
        except MeshError as error:
            log.warning("the trace of run %d can't be told: %s", run_id, error)
            return
        if not sent:
            log.warning("the trace of run %d was not taken by the collector", run_id)

    def _send(self, mesh: str, run: Run, told: Sequence[Span]) -> bool:
        self._exporter = exporter = self._exporter or self._make()
        return exporter.send(mesh, run, told)

    async def _read(self, run: Run) -> list[Ran]:
        """What was tried, as its records tell; a chunk that nobody has any more is left out."""
        wanted = spans.chosen(run)
        chunks = [*run.chunks, *run.tries]
        chunks.sort(key=lambda done: wanted.isdisjoint(done.tests))  # those whose tests are told first
        ran: list[Ran] = []
        for done in chunks:
            if len(ran) >= RECORDS_READ_MAX:
                break
            try:
                data = await self._content.get(done.chunk, (done.worker,) if done.worker else ())
            except MeshError as error:
                log.info("the trace of run %d lacks a chunk: %s", run.id, error)
                continue
            ran += await trio.to_thread.run_sync(_ran, done, data)
        return ran


async def _hurry(scope: trio.CancelScope) -> None:
    """Once this node stops, what is under way has `GRACE_SECONDS`."""
    try:
        await trio.sleep_forever()
    finally:
        scope.deadline = min(scope.deadline, trio.current_time() + GRACE_SECONDS)


def tracing_of(endpoint: str | None, content: Content, peer: PeerId) -> Tracing | None:
    """As `NodeOptions.otlp` wants it."""
    if endpoint is None:
        return None
    if not otlp.installed():
        log.warning("no traces, though the environment asks for them: %s", otlp.MISSING)
        return None
    return Tracing(content, lambda: otlp.OtlpExporter(endpoint, peer, program_version()))


def _look(group: ReplicatedLog, seen: set[RunId], waiting: deque[RunId]) -> None:
    """Note the runs that have ended since the last look, if they are this node's to tell."""
    state: CoordinatorState = group.state
    for run in state.finished:
        if run not in seen:
            seen.add(run)
            if not group.is_leader:
                continue
            if len(waiting) < RUNS_WAITING_MAX:
                waiting.append(run)
            else:
                log.warning("run %d gets no trace: %d others wait for theirs", run, RUNS_WAITING_MAX)
    seen.intersection_update(state.finished)


def _ran(done: Completion, data: bytes) -> list[Ran]:
    chunk = decode(data, Chunk)
    counted = set(done.tests)
    pairs = zip(chunk.tests, chunk.records, strict=True)
    return [Ran(test, done.lease, decode(record, Record)) for test, record in pairs if test in counted]


def _moments(group: ReplicatedLog, run: Run) -> Moments:
    """As far as this node's feed goes back."""
    ring = group.feed.ring
    collecting: float | None = None
    collected: float | None = None
    leased: dict[LeaseId, float] = {}
    for event in ring.since(max(run.id - 1, ring.floor), EVENTS_MAX, EVENT_BYTES_MAX) or ():
        if event.run != run.id or event.name not in ("run-leased", "run-collected"):
            continue
        data = json.loads(event.json)
        if event.name == "run-collected":
            collected = data["at"]
        elif data["collects"]:
            collecting = collecting or data["at"]
        else:
            leased[LeaseId(int(data["lease"]))] = data["at"]
    return Moments(collecting, collected, leased)

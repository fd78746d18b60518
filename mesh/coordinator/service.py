"""The coordinator's loop, and its talk with the workers.

Whenever the log or the fleet changes, `plan()` says what follows, the log takes what still holds, and the leases that
came of it are sent to their workers. A handler of a worker's request only proposes commands; the log's order decides.
"""

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import trio

from mesh.coordinator import ahead, collected, endings, gangs
from mesh.coordinator.clients import ClientDesk, Past
from mesh.coordinator.fleet import Fleet, told_alike
from mesh.coordinator.history import History
from mesh.coordinator.measuring import Measuring
from mesh.coordinator.pins import GRACE_SECONDS, PinKeeper
from mesh.coordinator.recalls import Recalls
from mesh.coordinator.replicas import Replicas
from mesh.coordinator.reports import ReportBuilder
from mesh.coordinator.reuse import Reuser
from mesh.coordinator.sharing import SharedNames
from mesh.coordinator.taking import signs, take_in
from mesh.coordinator.unrun import Recording, UnrunTests
from mesh.manifests import Manifests
from mesh.measures import CoordinationMeasures
from mesh.ports import Clock, Content, Network, Nodes, ReplicatedLog
from mesh.scheduler import upstream
from mesh.scheduler.contention import Stretch
from mesh.scheduler.durations import Estimates
from mesh.scheduler.fleet import WorkerView
from mesh.scheduler.hopeless import HOPELESS_SECONDS, hopeless
from mesh.scheduler.numbering import numbers
from mesh.scheduler.outlook import Outlook
from mesh.scheduler.plan import plan
from mesh.scheduler.proposal import Plan
from mesh.scheduler.supply import Memory
from mesh.state.model import CoordinatorState, Lease, RunPhase
from mesh.state.results import Applied
from protocols.codec import encode
from protocols.commands import Cancel, Collected, CollectFailed, Command, Complete, Register, Return
from protocols.errors import MeshError, MeshFailed, NodeUnavailable, RemoteCallError, RemoteProtocolError
from protocols.ids import LeaseId, PeerId, RunId
from protocols.work import (
    PROTOCOL,
    Ack,
    Assign,
    ClaimName,
    Collection,
    GiveBack,
    Heartbeat,
    HeartbeatAck,
    MakeReady,
    RecallLease,
    Refused,
    RegisterWorker,
    Result,
    SettleName,
)

log = logging.getLogger(__name__)

PLAN_SECONDS = 0.25
"""The longest that the loop waits before it looks at the timers again, while there are open runs."""

IDLE_SECONDS = 5.0
"""The same while there are none."""

ASSIGN_SECONDS = 10.0

REASSIGN_SECONDS = 3.0
"""A lease that its worker does not name this long after it was sent is sent again."""

WorkRequest = RegisterWorker | Heartbeat | Collection | Result | GiveBack | ClaimName | SettleName
WORK_REQUESTS = (RegisterWorker, Heartbeat, Collection, Result, GiveBack, ClaimName, SettleName)


class TestCoordinator:
    """Plans, grants, expires and records, while this node leads."""

    __test__ = False  # not a test class, whatever pytest thinks of its name

    def __init__(
        self,
        *,
        network: Network,
        content: Content,
        manifests: Manifests,
        log: ReplicatedLog,
        nodes: Nodes,
        clock: Clock,
        worker_timeout: float,
        scratch: Path,
        name: str,
        draw: Callable[[dict[str, Any], Path], None],
        measures: CoordinationMeasures | None = None,
        replica_grace: float = GRACE_SECONDS,
        past: Past | None = None,
    ) -> None:
        self._network = network
        self._content = content
        self._log = log
        self._nodes = nodes
        self._fleet = Fleet(worker_timeout)
        self._history = History(manifests)
        self._replicas = Replicas(network, content, lambda: log.configuration.voters)
        self.pins = PinKeeper(network, content, log, nodes, self._replicas, clock, replica_grace)
        self._names = SharedNames(log, self._replicas)
        recording = Recording(network, content, self._replicas, self._history, log, nodes, clock)
        self._reuser = Reuser(recording)
        self._reports = ReportBuilder(network, content, self._history, scratch, self._reuser)
        self._unrun = UnrunTests(recording)
        self._clock = clock
        self._name = name
        self._draw = draw
        self._estimates: dict[RunId, Estimates] = {}
        self._loading: set[RunId] = set()
        self._closing: set[RunId] = set()
        self._sent: dict[LeaseId, float] = {}
        self._held: dict[LeaseId, Lease] = {}
        """The open leases as they were at the last look."""
        self._hopeless: dict[RunId, float] = {}
        """Since when, on trio's clock, a run waits for what no worker has."""
        self._recalls = Recalls()
        self._memory = Memory()
        self._plan = Plan((), (), (), (), ())
        self._views: Mapping[PeerId, WorkerView] = {}
        """The workers as they were for that plan."""
        self._dirty = trio.Event()
        self._nursery: trio.Nursery
        self.measuring = Measuring(measures or CoordinationMeasures(), log, clock, self._outlook)
        self.clients = ClientDesk(
            log=log,
            content=content,
            nodes=nodes,
            history=self._history,
            replicas=self._replicas,
            fleet=self._fleet,
            pins=self.pins.desk,
            clock=clock,
            outlook=self._outlook,
            claims=lambda: self._plan.claims,
            estimates=lambda: self._estimates,
            done=lambda run, estimates: self._memory.done(run, estimates),
            past=past,
        )

    @property
    def _state(self) -> CoordinatorState:
        state: CoordinatorState = self._log.state
        return state

    def _outlook(self) -> Outlook:
        """As of the newest plan."""
        desks = {peer: kept.desk for peer, kept in self._memory.desks.items()}
        return Outlook(self._state, self._views, self._plan.waiting, desks, self._clock.now())

    # Leading

    async def lead(self) -> None:
        """Coordinate until cancelled: called when this node has become leader and has applied its term's no-op."""
        self._fleet.restart()
        self._recalls.restart()
        self._memory = Memory()
        for memory in (self._estimates, self._loading, self._closing, self._sent, self._held, self._hopeless):
            memory.clear()
        log.info("coordinating in term %d", self._log.term)
        async with self.measuring.leading(), trio.open_nursery() as self._nursery:
            self._nursery.start_soon(self._watch, self._log)
            self._nursery.start_soon(self._watch, self._nodes)
            self._nursery.start_soon(self.pins.run)
            while True:
                self._dirty = trio.Event()
                await self._advance()
                with trio.move_on_after(PLAN_SECONDS if self._open_runs() else IDLE_SECONDS):
                    await self._dirty.wait()

    def _open_runs(self) -> bool:
        return len(self._state.runs) > len(self._state.finished)

    async def _watch(self, source: ReplicatedLog | Nodes) -> None:
        version = source.version
        while True:
            version = await source.wait_changed(version)
            self._dirty.set()

    async def _advance(self) -> None:
        """Plan, commit, send; then what runs need beside it."""
        state = self._state
        now = trio.current_time()
        self._views = fleet = self._fleet.views(state, self._nodes.nodes(), now)
        with self.measuring.planning():
            self._plan = plan(state, fleet, self._estimates, self._clock.now(), self._memory)
        self._stop_what_is_over(state)
        self._look_after_runs(state)
        asked, taken = self._recalls.due(self._plan.recalls, now)
        holders = {lease: state.leases[lease].worker for lease in (*asked, *(take.lease for take in taken))}
        for lease in asked:
            self._nursery.start_soon(self._tell, holders[lease], RecallLease(lease))
        ends = (*self._plan.cancels, *self._give_up_hopeless(fleet))
        commands: list[Command] = [*self._plan.expires, *ends, *taken, *self._plan.grants, *self._plan.hedges]
        if commands:
            try:
                applied = await self._log.propose_many(commands)
            except MeshError as error:
                log.info("the plan was not committed: %s", error)
                return
            for one in applied:
                if isinstance(one.result, Applied) and one.result.lease in self._state.leases:
                    self._nursery.start_soon(self._assign, one.result.lease, now)
                    self._make_ready(self._state.leases[one.result.lease])
            for take in taken:
                if take.lease not in self._state.leases:
                    self._nursery.start_soon(self._tell, holders[take.lease], RecallLease(take.lease, closed=True))
        self._nursery.start_soon(self._unrun.record, self._plan.abandons, self._plan.skips)

    def _stop_what_is_over(self, state: CoordinatorState) -> None:
        """Workers hear at once, and not with their next heartbeat, that a run of theirs has ended (-x, a cancel): they
        begin no more of it; or that a lease has, of which a companion may be lost: its slots are no longer theirs."""
        for lease in sorted(self._held.keys() - state.leases.keys()):
            held = self._held[lease]
            run = state.runs.get(held.run)
            is_over = run is None or run.phase in (RunPhase.REPORTING, RunPhase.FINISHED)
            if held.companions or (held.open and is_over):
                self._nursery.start_soon(self._tell, held.worker, RecallLease(lease, closed=True))
        self._held = dict(state.leases)

    def _give_up_hopeless(self, fleet: Mapping[PeerId, WorkerView]) -> list[Cancel]:
        """Ends of runs whose rest nobody here can do, once that has been so for a while and nothing of them runs."""
        now = trio.current_time()
        verdicts = {
            waiting.run: self._with_reasons(waiting.run, *verdict)
            for waiting in self._plan.waiting
            if not self._state.runs[waiting.run].leased and (verdict := hopeless(waiting, fleet))
        }
        self._hopeless = {run: self._hopeless.get(run, now) for run in verdicts}
        return [
            Cancel(run, verdicts[run][1], verdicts[run][0])
            for run, since in self._hopeless.items()
            if now - since >= HOPELESS_SECONDS
        ]

    def _with_reasons(self, run: RunId, code: int, text: str) -> tuple[int, str]:
        """An end of a run that no worker could prepare: with what they said, and the code that they all mean."""
        reasons = self._fleet.unfit_reasons(run, trio.current_time())
        if code != MeshFailed.exit_code or not reasons:
            return code, text
        codes = self._fleet.unfit_codes(run, trio.current_time())
        return codes.pop() if len(codes) == 1 else code, f"{text}; {told_alike(reasons, self._state.worker_names())}"

    def _look_after_runs(self, state: CoordinatorState) -> None:
        for run in state.runs.values():
            if run.phase is RunPhase.RUNNING and run.id not in self._estimates and run.id not in self._loading:
                self._loading.add(run.id)
                self._nursery.start_soon(self._load_estimates, run.id)
            if run.phase is RunPhase.REPORTING and run.id not in self._closing:
                self._closing.add(run.id)
                self._nursery.start_soon(self._close, run.id)
        for gone in [run for run in self._estimates if run not in state.runs]:
            del self._estimates[gone]

    async def _load_estimates(self, run_id: RunId) -> None:
        run = self._state.runs[run_id]
        try:
            assert run.manifest is not None
            manifest = await self._history.manifest(run.manifest, tuple(run.workers))
            self._estimates[run_id] = await self._history.estimates(self._state, run.spec.project, manifest)
        except MeshError as error:
            log.warning("run %d: durations can't be estimated: %s", run_id, error)
            self._estimates[run_id] = Estimates.unknown(run.tests)
        finally:
            self._loading.discard(run_id)
        self._dirty.set()

    async def _close(self, run_id: RunId) -> None:
        """Build the report, have it held twice, and finish the run."""
        try:
            run, names = self._state.runs[run_id], self._state.worker_names()
            ended = await endings.end(self._network, run_id, run.workers)
            finish = await self._reports.finish(run, self._clock.now(), self._name, names, ended)
            if finish.report is not None:
                nodes = self._nodes.nodes()
                await self._replicas.secure(finish.report, self._network.peer_id, nodes, f"report of run {run_id}")
            await self._log.propose(finish)
            self._history.contention.end(run_id, run.spec.project)
            await self._history.learn(self._state, run.spec.project)  # now, not when it is needed
        except MeshError as error:
            log.warning("run %d can't be closed yet: %s", run_id, error)
            await trio.sleep(1.0)
            self._closing.discard(run_id)
            self._dirty.set()

    async def generate_visualization(self, path: str | Path) -> None:
        """Draw the sheet of `mesh visualize` (task status, worker status, durations, worker comparison, numbers) to a
        .png or .svg file. `UsageError` for another suffix or a folder that does not exist."""
        document = await self.clients.overview(self._network.peer_id)
        await trio.to_thread.run_sync(self._draw, document, Path(path))

    # Leases to workers

    async def _assign(self, lease_id: LeaseId, since: float | None = None) -> None:
        lease = self._state.leases.get(lease_id)
        if lease is None:
            return
        self._sent[lease_id] = trio.current_time()
        await self._tell(lease.worker, self._assignment(lease))
        self.measuring.assigned(lease, since)

    def _make_ready(self, lease: Lease) -> None:
        """Whoever may work on the run beside the one that collects it prepares meanwhile."""
        if lease.collects:
            known = self._assignment(lease)
            told = ahead.told(self._state, self._views, lease)
            hint = MakeReady(known.run, known.spec, (*known.holders, lease.worker, *told))  # they give to one another
            for worker in told:
                self._nursery.start_soon(self._tell, worker, hint)

    async def _tell(self, worker: PeerId, what: Assign | RecallLease | MakeReady) -> None:
        """What gets lost is told again, by a heartbeat or its answer, where it matters."""
        try:
            await self._network.call(worker, PROTOCOL, encode(what), timeout=ASSIGN_SECONDS)
        except (NodeUnavailable, RemoteCallError) as error:
            log.info("%s did not reach %s: %s", type(what).__name__, worker, error)

    def _assignment(self, lease: Lease) -> Assign:
        run = self._state.runs[lease.run]
        nodes = self._nodes.nodes()
        with_bundle = [
            peer for peer, view in nodes.items() if view.connected and run.spec.bundle in view.presence.bundles
        ]
        holders = dict.fromkeys([self._network.peer_id, run.spec.submitter, *sorted(with_bundle), *run.workers])
        holders.pop(lease.worker, None)
        first, total = numbers(self._state, run, lease.worker, self._views)
        spec = upstream.handed_over(self._state, run.spec)
        tasks = tuple(lease.open)
        hosts = gangs.hosts_of(self._state, lease, nodes)
        signed = signs(self._state, nodes.get(lease.worker))
        return Assign(
            lease.id, run.id, spec, run.manifest, tasks, tuple(holders), first, total, lease.devices, hosts, signed
        )  # fmt: skip

    # Requests of workers

    async def handle_work(self, peer: PeerId, request: WorkRequest) -> bytes:
        """Answer a worker."""
        if not self._log.is_leader:
            return encode(Refused("this node does not coordinate", self._log.leader))
        match request:
            case Heartbeat():
                answer: Any = self._heartbeat(peer, request)
            case RegisterWorker():
                answer = await self._register(peer, request)
            case Collection():
                answer = await self._collected(peer, request)
            case Result():
                answer = await self._result(peer, request)
            case GiveBack():
                answer = await self._given_back(peer, request)
            case ClaimName():
                answer = await self._names.claim(peer, request)
            case SettleName():
                answer = await self._names.settle(peer, request, self._nodes.nodes())
        return encode(answer)

    async def _register(self, peer: PeerId, request: RegisterWorker) -> Ack:
        known = self._state.workers.get(peer)
        wanted = (request.incarnation, request.slots, request.name)
        if known is None or (known.incarnation, known.slots, known.name) != wanted:
            await self._log.propose(Register(peer, request.name, request.incarnation, request.slots))
        self._fleet.heard(peer, (), trio.current_time())
        self._dirty.set()
        return Ack()

    def _heartbeat(self, peer: PeerId, beat: Heartbeat) -> HeartbeatAck:
        state = self._state
        now = trio.current_time()
        self._fleet.heard(peer, beat.running, now)
        worker = state.workers.get(peer)
        registered = worker is not None and worker.incarnation == beat.incarnation
        open_leases = set(worker.leases) if worker is not None and registered else set()
        for lease in sorted(open_leases - set(beat.leases)):
            if now - self._sent.get(lease, now - REASSIGN_SECONDS) >= REASSIGN_SECONDS:
                self._sent[lease] = now
                self._nursery.start_soon(self._assign, lease)
        closed = (lease for lease in beat.leases if lease not in open_leases and lease <= self._log.applied)
        return HeartbeatAck(tuple(closed), registered, len(worker.hosted) if worker is not None and registered else 0)

    async def _collected(self, peer: PeerId, request: Collection) -> Ack:
        lease = self._open_lease(request.lease, peer)
        if lease is None:
            return Ack()
        if request.manifest is None:
            if request.record is not None:
                await self._replicas.secure(request.record, peer, self._nodes.nodes(), run=lease.run)
            await self._log.propose(CollectFailed(lease.id, request.exit_code, request.reason, request.record))
            return Ack()
        await self._replicas.secure(request.manifest, peer, self._nodes.nodes(), f"manifest of run {lease.run}")
        try:
            manifest = await self._history.manifest(request.manifest, (peer,))
        except RemoteProtocolError as error:
            reason = f"what was collected can't be read: {error}"
            await self._log.propose(CollectFailed(lease.id, MeshFailed.exit_code, reason, request.record))
            return Ack()
        if manifest.environment is not None and manifest.environment.distributions is not None:
            named = manifest.environment.distributions
            await self._replicas.secure(named, peer, self._nodes.nodes(), run=lease.run)
        run = self._state.runs[lease.run]
        estimates = await self._history.estimates(self._state, run.spec.project, manifest)
        self._estimates[run.id] = estimates
        made: Command = collected.outcome(lease.id, request.manifest, manifest, estimates, self._state.format)
        reused = await self._reuser.offers(run, manifest) if isinstance(made, Collected) else []
        await self._log.propose_many([made, *reused])
        return Ack()

    async def _result(self, peer: PeerId, request: Result) -> Ack:
        lease = self._open_lease(request.lease, peer)
        if lease is None:
            return Ack()
        nodes = self._nodes.nodes()
        records = await take_in(self._content, self._replicas, request.chunk, peer, nodes, lease.run)
        await self._log.propose(
            Complete(request.lease, request.chunk, request.tests, request.outcomes, request.durations)
        )
        for record in records:
            self._history.contention.note(lease.run, peer, Stretch(record.test, record.started, record.duration))
        return Ack()

    async def _given_back(self, peer: PeerId, request: GiveBack) -> Ack:
        lease = self._open_lease(request.lease, peer)
        if lease is None:
            return Ack()
        if request.reason:
            log.warning("%s can't work on run %d: %s", peer, lease.run, request.reason)
            self._fleet.unfit(peer, lease.run, request.reason, request.exit_code, trio.current_time())
        await self._log.propose(Return(lease.id, request.tests))
        return Ack()

    def _open_lease(self, lease_id: LeaseId, peer: PeerId) -> Lease | None:
        """None for a lease that is closed. One that lies ahead of this log was granted by a newer coordinator, who is
        the one to ask: this one, though it does not know it yet, coordinates no more."""
        if lease_id > self._log.applied:
            raise MeshFailed(f"lease {lease_id} is not known here")
        lease = self._state.leases.get(lease_id)
        return lease if lease is not None and lease.worker == peer else None

"""The worker service: leases in, results out. It performs what `WorkerMachine` decides.

It owns the talk with the coordinator: register (after the outbox of an earlier process was offered, so that nothing
recorded is lost by the registration, which ends those leases), heartbeats, results until they are acknowledged.
Whatever is lost on the way is repaired by heartbeats: a lease that we do not name is assigned again, one that is closed
is told to us. Rejected: pushing records to the coordinator in messages (a chunk is content, and is pulled when wanted).
"""

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

import trio

from mesh.content.unixfs.cid import as_raw
from mesh.ports import Content, Finished, Network, Outbox, RunnerEvent, Started
from mesh.worker.before_and_after import ACKNOWLEDGED_SECONDS_MAX, Endings, Preparations, told
from mesh.worker.machine import Collect, Feed, Instruction, Kill, Offer, Prepare, WorkerMachine
from mesh.worker.results import Ended, ResultBuffer, encode_batch, ended_as
from mesh.worker.sessions import RunSession, Workshop
from protocols.codec import decode, encode
from protocols.errors import (
    MeshFailed,
    NodeUnavailable,
    ProtocolError,
    RemoteCallError,
    RemoteProtocolError,
    UsageError,
)
from protocols.ids import Cid, LeaseId, PeerId, RunId
from protocols.inputs import Place
from protocols.manifests import Outcome, Record
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
    NameClaimed,
    RecallLease,
    Refused,
    RegisterWorker,
    Result,
    RunEnded,
    SettleName,
    Tailed,
    TailTest,
)

log = logging.getLogger(__name__)

FLUSH_SECONDS = 0.2
"""How long a result may wait for company."""

SENDERS = 4
"""Results offered to the coordinator at once."""

RESULTS_QUEUED_MAX = 1024
"""Results that wait for a sender; more make the runner's events wait."""

RETRY_SECONDS_MIN, RETRY_SECONDS_MAX = 0.1, 2.0

SESSION_IDLE_SECONDS = 30.0
"""How long the processes of a run stay after its last lease here."""

Reply = TypeVar("Reply")


class WorkerAgent:
    """This node as a worker."""

    def __init__(
        self,
        *,
        network: Network,
        content: Content,
        workshop: Workshop,
        outbox: Outbox,
        name: str,
        incarnation: Callable[[], int],
        slots: int,
        coordinator: Callable[[], PeerId | None],
        changed: Callable[[], None],
        heartbeat_interval: float,
    ) -> None:
        self.slots = slots
        self._network = network
        self._content = content
        self._workshop = workshop
        self._outbox = outbox
        self._name = name
        self._incarnation = incarnation
        self._coordinator = coordinator
        self._changed = changed
        self._interval = heartbeat_interval
        self._machine = WorkerMachine(slots)
        self._buffer = ResultBuffer()
        self._sessions: dict[RunId, RunSession] = {}
        self._collecting: dict[LeaseId, trio.CancelScope] = {}
        self._preparations = Preparations(self._get_ready)
        self._endings = Endings()
        self._less_held = trio.Event()
        self._nursery: trio.Nursery
        self._send_keys, self._keys = trio.open_memory_channel[str](RESULTS_QUEUED_MAX)
        self._waiting = trio.Event()
        self._hurry = trio.Event()
        self._beat_now = trio.Event()
        self._inherited: list[tuple[str, bytes]] = []
        self._giving_back = 0
        self._hosted = 0
        """Tests of others for which something is kept here, as last heard."""

    @property
    def busy(self) -> int:
        """Slots that run a test now."""
        return min(self.slots, len(self._machine.running()) + len(self._collecting))

    def bundles(self) -> tuple[Cid, ...]:
        """Bundles checked out here, newest first."""
        return self._workshop.bundles()

    async def run(self) -> None:
        """Work until cancelled."""
        self._inherited = self._outbox.items()
        async with trio.open_nursery() as self._nursery:
            for _ in range(SENDERS):
                self._nursery.start_soon(self._send_results)
            self._nursery.start_soon(self._flush_results)
            self._nursery.start_soon(self._beat)

    def take(self, assign: Assign) -> None:
        """The coordinator grants a lease."""
        self._perform(self._machine.assigned(assign))

    def make_ready(self, request: MakeReady) -> None:
        """Leases of a run may come soon, which another worker collects."""
        if not self._machine.draining and not self._machine.held and request.run not in self._sessions:
            self._preparations.begin(request, self._nursery)

    async def end_run(self, run: RunId) -> RunEnded:
        """The run has all its verdicts: what its fixtures raise as they end is the last thing to know of it."""
        with trio.move_on_after(ACKNOWLEDGED_SECONDS_MAX):
            while self._machine.wants(run):
                await self._less_held.wait()
        session = self._sessions.get(run)
        if session is not None and not self._machine.wants(run):
            self._dismiss(run, session)
            await session.over.wait()
        return RunEnded(self._endings.of(run))

    def recall(self, request: RecallLease) -> None:
        """The coordinator wants a lease back: what has not started of it, or all."""
        if request.closed:
            self._perform(self._machine.revoked((request.lease,)))
        elif request.lease in self._machine.held:
            self._perform(self._machine.recalled(request.lease))
            self._withdraw(request.lease)

    def _withdraw(self, lease: LeaseId) -> None:
        """Give back what lies on a session's queue."""
        held = self._machine.held.get(lease)
        session = self._sessions.get(held.assign.run) if held is not None else None
        if session is not None:
            self._perform(self._machine.withdrawn(lease, session.withdraw(lease)))

    def tail(self, request: TailTest) -> Tailed:
        """More output of a test that runs here now."""
        session = self._sessions.get(request.run)
        found = session.tail(request.test, request.offsets) if session is not None else None
        return Tailed(found.pieces, found.offsets, found.skipped) if found is not None else Tailed((), ())

    async def claim(self, run: RunId, name: str, holder: int) -> NameClaimed:
        """See `mesh.worker.sharing.Names`."""
        return await self._insist(ClaimName(run, name, self._incarnation(), holder), NameClaimed)

    async def settle(self, run: RunId, name: str, holder: int, value: Cid | None) -> None:
        await self._insist(SettleName(run, name, holder, value), Ack)

    async def _insist(self, request: object, answer: type[Reply]) -> Reply:
        """Ask whoever coordinates until there is an answer, or the caller has waited enough."""
        while True:
            coordinator = self._coordinator()
            if coordinator is not None:
                try:
                    return await self._ask(coordinator, request, answer)
                except (NodeUnavailable, RemoteCallError, ProtocolError) as error:
                    if error.exit_code == UsageError.exit_code:
                        raise
                    log.debug("%s: %s", type(request).__name__, error)
            await trio.sleep(RETRY_SECONDS_MAX)

    async def drain(self) -> None:
        """Give back what has not started, finish and deliver the rest; and stay for tests that need this host beside
        their own."""
        self._perform(self._machine.drain())
        for lease in self._machine.leases():
            self._withdraw(lease)
        while self._machine.held or self._collecting or self._giving_back or self._hosted or self._outbox.items():
            self._hurry.set()
            await trio.sleep(FLUSH_SECONDS)

    # Instructions

    def _perform(self, instructions: Sequence[Instruction]) -> None:
        for instruction in instructions:
            match instruction:
                case Prepare(assign):
                    self._nursery.start_soon(self._serve_run, assign)
                case Collect(assign):
                    self._nursery.start_soon(self._collect, assign)
                case Feed(assign, tests):
                    self._sessions[assign.run].feed(assign, tests)
                case Kill(run, lease):
                    self._kill(run, lease)
                case Offer(lease, tests, reason, code):
                    self._giving_back += 1
                    self._nursery.start_soon(self._give_back, GiveBack(lease, tests, reason, code))
        self._let_go()
        self._changed()

    def _let_go(self) -> None:
        """Leases may have gone."""
        self._less_held.set()
        self._less_held = trio.Event()

    def _kill(self, run: RunId, lease: LeaseId) -> None:
        self._buffer.take(lease)
        if lease in self._collecting:
            self._collecting[lease].cancel()
        if run in self._sessions:
            self._sessions[run].kill(lease)

    async def _serve_run(self, assign: Assign) -> None:
        """One run's processes, from the bundle's arrival until they are idle or break."""
        run = assign.run
        reason, code = "its processes ended", MeshFailed.exit_code
        session: RunSession | None = None
        try:
            await self._free_processes(assign)
            await self._preparations.wait(run)
            async with self._workshop.open(assign, self) as session:
                self._sessions[run] = session
                self._perform(self._machine.ready(run))
                with session.scope:
                    async for event in session.events():
                        await self._take(run, event, session)
        except Exception as error:
            if session is not None:
                raise  # results are in our hands: only a new process of this node knows what to offer again
            reason, code = told(error)
            log.warning("run %d can't be worked on here: %s", run, reason)
        finally:
            if session is not None:
                self._endings.note(run, session.endings)
                session.over.set()
            if session is None or self._sessions.get(run) is session:
                self._sessions.pop(run, None)
        if session is not None and session.dismissed:
            return
        if self._machine.wants(run):
            self._perform(self._machine.unfit(run, reason, code))
        else:
            self._machine.closed_session(run)

    async def _take(self, run: RunId, event: RunnerEvent, session: RunSession) -> None:
        if isinstance(event, Started):
            self._machine.started(event.lease, event.index)
            self._changed()
            return
        record = await self._workshop.complete(event, session.origin, run)
        if self._machine.finished(event.lease, event.index):
            await self._keep(event, record, session.place())

    async def _keep(self, event: Finished, record: Record, place: Place | None) -> None:
        held = self._machine.held[event.lease]  # which may be closed while its results are written
        ended = ended_as(event, held.assign.run, record, place)
        batch = self._buffer.add(ended)
        if batch is not None:
            await self._report(batch)
        self._waiting.set()
        done = not held.open
        if done:
            self._hurry.set()
        if done or self._machine.mixed:
            self._perform(self._machine.idle())

    async def _flush_results(self) -> None:
        while True:
            await self._waiting.wait()
            with trio.move_on_after(FLUSH_SECONDS):
                await self._hurry.wait()
            self._waiting, self._hurry = trio.Event(), trio.Event()
            for batch in self._buffer.take_all():
                await self._report(batch)

    async def _report(self, batch: list[Ended]) -> None:
        """Put a batch where no crash can lose it, then queue it for the coordinator."""
        tests = tuple(ended.test for ended in batch)
        chunk = encode_batch(batch, self._network.peer_id, self._network.sign)
        cids = await self._content.put_many([*(ended.record for ended in batch), chunk], "dag-cbor")
        await self._content.hold([as_raw(cids[-1])], f"run {batch[0].run}", batch[0].run)
        result = Result(
            batch[0].lease,
            as_raw(cids[-1]),
            tests,
            bytes(ended.outcome.code for ended in batch),
            tuple(ended.duration for ended in batch),
        )
        key = f"{result.lease}-{result.chunk}"
        await self._outbox.put(key, encode(result))
        self._machine.reported(result.lease, len(tests))
        await self._send_keys.send(key)

    async def _collect(self, assign: Assign) -> None:
        with trio.CancelScope() as scope:
            self._collecting[assign.lease] = scope
            try:
                try:
                    await self._free_processes(assign)
                    answer: Collection | GiveBack = await self._workshop.collect(assign)
                except Exception as error:
                    answer = GiveBack(assign.lease, (), *told(error))
                await self._deliver(answer)
            finally:
                if self._collecting.get(assign.lease) is scope:
                    del self._collecting[assign.lease]
        self._machine.collected(assign.lease)
        self._changed()

    async def _get_ready(self, assign: Assign) -> None:
        await self._free_processes(assign)
        await self._workshop.warm_up(assign)

    # The talk with the coordinator

    async def _ask(self, coordinator: PeerId, request: object, answer: type[Reply]) -> Reply:
        """One call; a `Refused` is raised as `RemoteCallError`."""
        payload = await self._network.call(coordinator, PROTOCOL, encode(request))
        reply = decode(payload, Refused, answer)
        if isinstance(reply, Refused):
            raise RemoteCallError(reply.reason)
        return reply

    async def _give_back(self, offer: GiveBack) -> None:
        try:
            await self._deliver(offer)
        finally:
            self._giving_back -= 1

    async def _deliver(self, request: Result | Collection | GiveBack) -> None:
        """Offer until some coordinator acknowledges, or the lease is no longer ours."""
        pause = RETRY_SECONDS_MIN
        while isinstance(request, Result) or request.lease in self._machine.held or isinstance(request, GiveBack):
            coordinator = self._coordinator()
            if coordinator is not None:
                try:
                    await self._ask(coordinator, request, Ack)
                    return
                except (NodeUnavailable, RemoteCallError, ProtocolError) as error:
                    log.debug("%s of lease %d: %s", type(request).__name__, request.lease, error)
            await trio.sleep(pause)
            pause = min(2 * pause, RETRY_SECONDS_MAX)

    async def _send_results(self) -> None:
        async for key in self._keys:
            payload = dict(self._outbox.items()).get(key)
            if payload is None:
                continue
            result = decode(payload, Result)
            await self._deliver(result)
            await self._outbox.remove(key)
            if any(Outcome.of_code(code).bad for code in result.outcomes):
                self._beat_now.set()  # it may have ended its run (-x): then the leases are closed
            self._machine.acknowledged(result.lease)
            self._let_go()

    async def _beat(self) -> None:
        registered: PeerId | None = None
        while True:
            coordinator = self._coordinator()
            if coordinator is not None:
                try:
                    if coordinator != registered:
                        await self._register(coordinator)
                        registered = coordinator
                    if not await self._heartbeat(coordinator):
                        registered = None
                except (NodeUnavailable, RemoteCallError, ProtocolError) as error:
                    log.debug("heartbeat to %s: %s", coordinator, error)
                    registered = None
            self._close_idle_sessions()
            with trio.move_on_after(self._interval if registered else min(self._interval, RETRY_SECONDS_MIN * 2)):
                await self._beat_now.wait()
            self._beat_now = trio.Event()

    async def _register(self, coordinator: PeerId) -> None:
        while self._inherited:
            key, payload = self._inherited[0]
            try:
                result = decode(payload, Result)
            except RemoteProtocolError as error:
                log.warning("result %s of an earlier process can't be read, its tests run again: %s", key, error)
            else:
                await self._ask(coordinator, result, Ack)
            await self._outbox.remove(key)
            self._inherited.pop(0)
        await self._ask(coordinator, RegisterWorker(self._name, self._incarnation(), self.slots), Ack)

    async def _heartbeat(self, coordinator: PeerId) -> bool:
        machine = self._machine
        beat = Heartbeat(self._incarnation(), machine.leases(), machine.running())
        answer = await self._ask(coordinator, beat, HeartbeatAck)
        if answer.closed:
            self._perform(machine.revoked(answer.closed))
        self._hosted = answer.hosted
        return answer.registered

    def _close_idle_sessions(self) -> None:
        now = trio.current_time()
        for run, session in list(self._sessions.items()):
            if self._machine.wants(run):
                session.last_used = now
            elif now - session.last_used > SESSION_IDLE_SECONDS:
                self._dismiss(run, session)

    def _dismiss(self, run: RunId, session: RunSession) -> None:
        """End an idle session in order; a lease of its run that comes meanwhile opens a new one."""
        session.dismissed = True
        del self._sessions[run]
        self._machine.closed_session(run)
        session.scope.cancel()

    async def _free_processes(self, assign: Assign) -> None:
        """Have an idle run of the same tests hand over its warm processes."""
        for run, session in list(self._sessions.items()):
            there = self._sessions.get(run) is session  # or it ended by itself while another one was waited for
            if there and session.is_like(assign) and not self._machine.wants(run):
                self._dismiss(run, session)
                await session.over.wait()

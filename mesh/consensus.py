"""The Ready loop: one member of the mesh's Raft group, with its disk and its state machine.

Owns a `Raft`, does what its `Ready`s ask, in the order that `mesh.raft.ready` states, and answers those who wait. The
core may be stepped, ticked and proposed to at any time, also while a save is under way; so a slow disk batches by
itself: whatever came meanwhile is in the next `Ready`. Ticks go on during a save, which is how the core notices that a
disk hangs. Those that would only count are given together, before whatever happens next: an idle member sleeps.

Invariants: only `_work` awaits between `ready` and `advance`; `_applied` and `state` change together, without an await
in between.

Rejected: forwarding proposals to the leader (their retry would need identities that commands have already).
"""

import logging
import random
import time
from collections.abc import Awaitable, Callable, Sequence

import trio

from mesh.measures import LogMeasures
from mesh.ports import Applied, Disk, Network
from mesh.proposals import Proposal, Proposals, Waiter
from mesh.raft.configuration import Change
from mesh.raft.errors import NotLeader, Overloaded
from mesh.raft.options import TICK_SECONDS, RaftOptions
from mesh.raft.pace import Pace
from mesh.raft.raft import Raft, RaftStatus, RoleName
from mesh.raft.ready import Outgoing, Ready
from mesh.state.apply import apply
from mesh.state.feed import Feed, held
from mesh.state.model import CoordinatorState
from mesh.state.replay import command_of, state_of
from mesh.state.snapshot import assembled, capture, encode_state, encode_steps
from protocols.codec import decode, encode
from protocols.commands import Command
from protocols.errors import MeshError, NoQuorum, OutcomeUnknown, RemoteProtocolError, StorageError
from protocols.ids import PeerId
from protocols.raft import PROTOCOL, Configuration, Entry, EntryKind, GroupMessage, Snapshot

OPTIONS = RaftOptions(heartbeat_ticks=6)
"""Heartbeats are what an idle mesh spends its time on. Three within an election timeout are enough: a coordinator that
dies is mostly noticed by its connections."""

SNAPSHOT_ENTRIES = 10_000
SNAPSHOT_BYTES = 16 * 1024 * 1024
"""Applied since the last snapshot; whichever is reached first."""

READ_RETRY_SECONDS = 1.0
"""A question to the leader may be lost on its way."""

READ_CONTEXT_BITS = 62
"""Of the first read's number, by chance; the others count on from it, within 64 bits."""

log = logging.getLogger(__name__)


class Consensus:
    """This node's member of the group `mesh`. With an empty disk it is one that joins: the leader sends it the log."""

    def __init__(
        self,
        *,
        mesh: str,
        network: Network,
        disk: Disk,
        rng: random.Random,
        options: RaftOptions | None = None,
        snapshot_entries: int = SNAPSHOT_ENTRIES,
        measures: LogMeasures | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        saved = disk.load()
        self._mesh = mesh
        self._network = network
        self._disk = disk
        self._snapshot_entries = snapshot_entries
        self._measures = measures or LogMeasures()
        self._state = CoordinatorState()
        self._applied = 0
        self.feed = Feed()
        self._now = now
        self._saved_before = saved.entries[-1].index if saved.entries else 0
        """Up to here the log was written by an earlier life of this node."""
        if saved.snapshot is not None:
            self._restore(saved.snapshot)
        self._raft = Raft(
            peer=network.peer_id,
            options=options or OPTIONS,
            rng=rng,
            hard_state=saved.hard_state,
            snapshot=saved.snapshot,
            entries=saved.entries,
            configuration=Configuration(),
        )
        self._opened = 0
        """The last term whose no-op is applied."""
        self._proposals = Proposals(self._raft)
        self._reads: dict[int, Waiter] = {}
        self._reads_at: list[tuple[int, Waiter]] = []
        self._read_context = rng.getrandbits(READ_CONTEXT_BITS)
        """Of the last read. Not from 0: an answer to this node's earlier life would serve a read of this one."""
        self._since_snapshot = [0, 0]
        """Entries and bytes."""
        self._snapshot_due = trio.Event()
        self._wake = trio.Event()
        self._version = 0
        self._changed = trio.Event()
        self._seen: tuple[object, ...] = ()
        self._failure: MeshError | None = None
        self._running = False
        self._pace = Pace(0.0)
        self._hurry = trio.Event()

    # What is so

    @property
    def mesh(self) -> str:
        return self._mesh

    @property
    def state(self) -> CoordinatorState:
        return self._state

    @property
    def applied(self) -> int:
        return self._applied

    @property
    def version(self) -> int:
        return self._version

    @property
    def leader(self) -> PeerId | None:
        return self._raft.status().leader

    @property
    def term(self) -> int:
        return self._raft.status().term

    @property
    def is_leader(self) -> bool:
        status = self._raft.status()
        return self._running and status.role is RoleName.LEADER and self._opened == status.term

    @property
    def configuration(self) -> Configuration:
        return self._raft.status().configuration

    def status(self) -> RaftStatus:
        return self._raft.status()

    async def wait_changed(self, since: int) -> int:
        while self._version <= since:
            await self._changed.wait()
        return self._version

    # Running

    async def run(self) -> None:
        """Take part until cancelled. `StorageError`: the disk failed, and this node must stop."""
        self._network.on_message(PROTOCOL, self._received)
        self._running = True
        self._pace = Pace(trio.current_time())
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._tick)
                nursery.start_soon(self._until_failure, self._work, nursery.cancel_scope)
                nursery.start_soon(self._until_failure, self._compact, nursery.cancel_scope)
        finally:
            self._running = False
            self._proposals.give_up()
            self._proposals.refuse()
            self._bump()
        if self._failure is not None:
            raise self._failure

    async def _until_failure(self, part: Callable[[], Awaitable[None]], scope: trio.CancelScope) -> None:
        try:
            await part()
        except MeshError as error:
            self._failure = error
            scope.cancel()

    async def lead(self, services: Callable[[], Awaitable[None]]) -> None:
        """Run `services` whenever this node is the coordinator: started when the no-op that opens its term is applied,
        cancelled when the term or the leadership ends."""
        while True:
            version = self._version
            if not self.is_leader:
                await self.wait_changed(version)
                continue
            term = self.term
            async with trio.open_nursery() as nursery:
                nursery.start_soon(services)
                while self.is_leader and self.term == term:
                    version = await self.wait_changed(version)
                nursery.cancel_scope.cancel()

    def suspect(self, peer: PeerId) -> None:
        """The connection to this peer broke: if it led, an election is due at once."""
        self._pass_time()
        self._raft.suspect(peer)
        self._wake.set()

    # Proposals and reads

    async def propose(self, command: Command, timeout: float = 10.0) -> Applied:
        return (await self.propose_many([command], timeout))[0]

    async def propose_many(self, commands: Sequence[Command], timeout: float = 10.0) -> list[Applied]:
        if not commands:
            return []
        proposal = Proposal([encode(command) for command in commands])
        began = trio.current_time()
        with trio.move_on_after(timeout):
            try:
                while not proposal.indexes:
                    await self._enter(proposal)
                for waiter in proposal.waiters:
                    await waiter.done.wait()
            finally:
                self._proposals.forget(proposal)
        if not proposal.indexes:
            raise NoQuorum(f"the coordinator could not take a command within {timeout:g} s: too many wait already")
        for waiter in proposal.waiters:
            if not waiter.done.is_set():
                raise OutcomeUnknown(f"no majority of the voters confirmed a command within {timeout:g} s")
            if waiter.error is not None:
                raise waiter.error
        self._measures.commits.observe(trio.current_time() - began)
        return [Applied(index, w.result) for index, w in zip(proposal.indexes, proposal.waiters, strict=True)]

    async def _enter(self, proposal: Proposal) -> None:
        """Waits while the core is full, or hands the leadership over (which ends in `NotLeader`, or fails)."""
        if not self._running:
            raise NotLeader(None)
        self._wake.set()
        try:
            await self._proposals.entered(proposal)
        except Overloaded:
            await trio.sleep(TICK_SECONDS)

    async def barrier(self, timeout: float = 10.0) -> int:
        """A linearizable read, on any member; the index that it is true at. `NotLeader`, `NoQuorum`."""
        with trio.move_on_after(timeout):
            while True:
                if not self._running:
                    raise NotLeader(None)
                self._read_context += 1
                context = self._read_context
                waiter = self._reads[context] = Waiter()
                try:
                    self._raft.read_index(context)
                    self._wake.set()
                    with trio.move_on_after(READ_RETRY_SECONDS):
                        await waiter.done.wait()
                finally:
                    self._reads.pop(context, None)
                if waiter.error is not None:
                    raise waiter.error
                if waiter.done.is_set():
                    return self._applied
        raise NoQuorum(f"no majority of the voters answered a read within {timeout:g} s")

    async def snapshot(self, timeout: float = 10.0) -> Snapshot:
        """A linearizable one, on any member: all that was committed when it was called. `NotLeader`, `NoQuorum`."""
        while True:
            await self.barrier(timeout)
            made = self._raft.make_snapshot(self._applied, encode_state(self._state))
            if made is not None:  # else the leader's own is being taken over just now
                return made
            await self.wait_changed(self._version)

    async def change(self, change: Change, timeout: float = 10.0) -> None:
        """Change the group; returns once the new configuration is committed and no longer joint. `ChangeRefused`,
        `NotLeader`, `OutcomeUnknown`."""
        index = self._raft.propose_change(change)
        term = self._raft.status().term
        self._wake.set()
        with trio.move_on_after(timeout):
            while True:
                version, status = self._version, self._raft.status()
                if status.term != term or status.role is not RoleName.LEADER or not self._running:
                    raise OutcomeUnknown("the leadership was lost during a change of the group")
                if self._applied >= index and status.configuration_committed and not status.configuration.outgoing:
                    return
                await self.wait_changed(version)
        raise OutcomeUnknown(f"no majority of the voters confirmed a change of the group within {timeout:g} s")

    async def transfer(self, to: PeerId, timeout: float = 2.0) -> bool:
        """Hand the leadership to a voter; whether that happened in time."""
        self._pass_time()
        self._raft.transfer_leadership(to)
        self._wake.set()
        with trio.move_on_after(timeout):
            while self._running:
                version = self._version
                if self.leader not in (None, self._network.peer_id):
                    return True
                await self.wait_changed(version)
        return False

    # The loop

    def _received(self, sender: PeerId, payload: bytes) -> None:
        if not self._running:
            return
        try:
            group = decode(payload, GroupMessage)
            if group.mesh == self._mesh:
                self._pass_time()
                self._raft.step(sender, group.message)
        except RemoteProtocolError as error:
            log.warning("dropped a Raft message of %s: %s", sender, error)
        except StorageError as error:
            self._failure = error
        self._wake.set()

    async def _tick(self) -> None:
        while True:
            self._hurry = trio.Event()
            with trio.move_on_at(self._pace.plan(self._raft.quiet_ticks())):
                await self._hurry.wait()
            self._pass_time()
            self._send(self._raft.take_messages())  # heartbeats, beside a slow save
            if self._raft.has_ready():
                self._wake.set()
            self._look()

    def _pass_time(self) -> None:
        """Give the core the ticks that are due."""
        for _ in range(self._pace.due(trio.current_time())):
            self._raft.tick()

    async def _work(self) -> None:
        while True:
            self._wake = trio.Event()
            self._proposals.enter()
            while self._raft.has_ready():
                self._pass_time()
                await self._perform(self._raft.ready())
                self._raft.advance()
                self._look()
                self._proposals.enter()
            if self._failure is not None:
                raise self._failure
            self._look()
            await self._wake.wait()

    async def _perform(self, ready: Ready) -> None:
        self._send(ready.messages)
        if ready.snapshot is not None:
            await self._disk.save_snapshot(ready.snapshot)
            self._restore(ready.snapshot)
            self._since_snapshot = [0, 0]
        if ready.hard_state is not None or ready.entries:
            await self._disk.save(ready.hard_state, ready.entries)
        else:
            await trio.lowlevel.checkpoint()
        self._send(ready.messages_after_sync)
        for entry in ready.committed:
            self._apply(entry)
        for read in ready.reads:
            waiter = self._reads.pop(read.context, None)
            if waiter is not None:
                self._reads_at.append((read.index, waiter))
        for context in ready.reads_failed:
            waiter = self._reads.pop(context, None)
            if waiter is not None:
                waiter.finish(None, NotLeader(self.leader))
        self._serve_reads()
        if ready.committed or ready.snapshot is not None:
            self._bump()
        many = self._since_snapshot[0] >= self._snapshot_entries or self._since_snapshot[1] >= SNAPSHOT_BYTES
        if many or ready.snapshot_wanted:
            self._snapshot_due.set()

    def _send(self, messages: Sequence[Outgoing]) -> None:
        for to, message in messages:
            self._network.send(to, PROTOCOL, encode(GroupMessage(self._mesh, message)))

    def _apply(self, entry: Entry) -> None:
        command = command_of(entry)
        before = held(self._state, command)
        result = None if command is None else apply(self._state, entry.index, command)
        now = self._now() if entry.index > self._saved_before else 0.0
        self.feed.applied(entry.index, command, result, self._state, before, now)
        if entry.kind is EntryKind.NOOP:
            self._opened = entry.term
        self._applied = entry.index
        self._since_snapshot[0] += 1
        self._since_snapshot[1] += len(entry.data)
        self._proposals.applied(entry, result, self.leader)

    def _restore(self, snapshot: Snapshot) -> None:
        state = state_of(snapshot)
        if state.mesh != self._mesh:
            raise StorageError(f"the snapshot at {snapshot.index} is of mesh {state.mesh!r}, not of {self._mesh!r}")
        self._state = state
        self._applied = snapshot.index
        self.feed.ring.restart(snapshot.index)

    async def _compact(self) -> None:
        """Make a snapshot whenever one is due, beside everything else: of a million tests it takes seconds, in which
        entries are saved and applied on."""
        while True:
            await self._snapshot_due.wait()
            index, captured = self._applied, capture(self._state)
            self._since_snapshot = [0, 0]
            self._snapshot_due = trio.Event()
            pieces = []
            for piece in encode_steps(captured):
                pieces.append(piece)
                await trio.lowlevel.checkpoint()
            snapshot = self._raft.make_snapshot(index, assembled(captured, pieces))
            if snapshot is not None:
                await self._disk.save_snapshot(snapshot)
                self._raft.compact(snapshot)
                log.info("snapshot at %d: %d bytes", snapshot.index, len(snapshot.data))

    def _serve_reads(self) -> None:
        for index, waiter in self._reads_at:
            if index <= self._applied:
                waiter.finish(None)
        self._reads_at = [(index, waiter) for index, waiter in self._reads_at if index > self._applied]

    def _look(self) -> None:
        """Notice what changed about leadership; whoever proposed in a term that ended can't know the outcome."""
        if self._pace.too_slow(self._raft.quiet_ticks()):
            self._hurry.set()
        status = self._raft.status()
        if status.role is not RoleName.LEADER:
            self._proposals.give_up()
        seen = (status.role, status.term, status.leader, status.configuration, self._opened)
        if seen != self._seen:
            led = self._seen[2:3]
            self._measures.leader_changes += status.leader is not None and led != (status.leader,)
            if status.leader is None and self._seen and self._seen[2] is not None:
                self.feed.led_until = self._now()
            self._seen = seen
            self._bump()

    def _bump(self) -> None:
        self._version += 1
        self._changed.set()
        self._changed = trio.Event()

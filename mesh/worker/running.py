"""A session of the runner: one zygote, its slots, and the queue between them and the worker.

Invariants: each item submitted, and not withdrawn or killed, ends with exactly one `Finished`; an item is in the pure
queue, in one slot's pipe, or running; a slot's processes form one process group that is killed as a whole; leaving the
session kills and reaps everything within `TEARDOWN_SECONDS_MAX` and a little more, at once if it was cancelled.

Rejected: reading each frame as it comes (the node would wake up for every test: it reads every `READ_PAUSE_SECONDS`
while a slot has work); telling the node of each start (only what still runs when a batch was read is `Started`).
"""

import contextlib
import dataclasses
import signal
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import trio

from mesh.ports import Finished, Job, RunnerEvent, Started, Tail, WorkItem
from mesh.worker import frames, limits
from mesh.worker.arguments import for_slots
from mesh.worker.mailbox import Mailbox
from mesh.worker.processes import SlotProcess, Zygote, kill_group, left_in, remains, signal_process
from mesh.worker.pytest_side import wire
from mesh.worker.slots import SlotQueue
from mesh.worker.tailing import tail
from protocols.errors import UsageError
from protocols.ids import LeaseId, TestIndex
from protocols.manifests import Record

EVENTS_MAX = 1000
"""Events that nobody has taken yet; with more, slots have to wait."""
READ_PAUSE_SECONDS = 0.02
TICK_SECONDS = 0.05
"""How often limits of time are looked at."""
DUMP_SECONDS = 0.5
"""What a process that is out of time has for writing its stacks."""
EXIT_SECONDS = 2.0
"""From the end of a slot's frames to the news of its end."""
HALT_SECONDS_MAX = 5.0
"""How long nothing starts here after as many bad tests as the run allows: by then the log has ended the run, or it did
not count them all."""
BARREN_MAX = 3
"""Processes in a row, of a slot or the zygote, that die before a test began."""

NEVER = float("-inf")


class PytestSession:
    """See `mesh.ports.RunnerSession`."""

    def __init__(self, job: Job, directory: Path, nursery: trio.Nursery, warm: Zygote | None) -> None:
        self._job = job
        self._directory = directory
        self._nursery = nursery
        self._queue = SlotQueue(max(1, job.slots))
        self._items: dict[int, WorkItem] = {}
        """By key, until finished, withdrawn or killed."""
        self._lengths: dict[int, int] = {}
        self._slots: dict[int, SlotProcess] = {}
        self._births = 0
        self._barren: dict[int, int] = {}
        self._items_path = directory / "items"
        self._items_file = open(self._items_path, "ab", buffering=0)  # noqa: SIM115
        self._offset = 0
        self._zygote: Zygote | None = None
        self._warm = warm
        self._listening = trio.CancelScope()
        self.rested: Zygote | None = None  # the zygote, once this session is over, if another one may have it
        self._born = trio.current_time()
        self._ready = trio.Event()
        self._broken = ""
        """Why no test can be run at all."""
        self._broken_output = ""
        self._plugin_limits = False
        self._stopping = False
        self._bad = 0
        self._halted = NEVER
        """Until when nothing starts."""
        self._wake = trio.Event()
        self._starting: dict[int, SlotProcess] = {}
        self._by_pid: dict[int, SlotProcess] = {}
        self._mailbox: Mailbox[RunnerEvent] = Mailbox(EVENTS_MAX)
        self.endings: list[str] = []

    @property
    def processes(self) -> int:
        """The zygote and its slots."""
        return (self._zygote is not None and self._zygote.alive) + sum(bool(slot.pid) for slot in self._slots.values())

    def submit(self, items: Sequence[WorkItem]) -> None:
        lines = []
        for item in items:
            data = item.id.encode("utf-8", "surrogateescape")
            key, self._offset = self._offset, self._offset + len(data)
            lines.append(data)
            self._items[key] = item
            self._lengths[key] = len(data)
            self._queue.add(key, item.scope, shared=item.scope == item.id.split("::", 1)[0])
        self._items_file.write(b"".join(lines))
        self._balance()

    def withdraw(self, lease: LeaseId) -> list[TestIndex]:
        for slot in list(self._slots.values()):
            if any(self._is_of(key, lease) for key in self._queue.given(slot.number)):
                self._take_back(slot)
        gone = self._queue.remove(lambda key: self._is_of(key, lease))
        indexes = [self._items.pop(key).index for key in gone]
        self._balance()
        return indexes

    def kill(self, lease: LeaseId) -> None:
        self.withdraw(lease)
        for slot in self._slots.values():
            doomed = [key for key in self._queue.given(slot.number) if self._is_of(key, lease)]
            for key in doomed:
                del self._items[key]
            if doomed:
                slot.spared = True
                slot.kill()

    def tail(self, index: TestIndex, offsets: Sequence[int]) -> Tail | None:
        for slot in self._slots.values():
            if slot.running in self._items and self._items[slot.running].index == index:
                return tail(slot.directory, offsets)
        return None

    def events(self) -> AsyncIterator[RunnerEvent]:
        return self._mailbox

    def _is_of(self, key: int, lease: LeaseId) -> bool:
        item = self._items.get(key)
        return item is not None and item.lease == lease

    # the zygote

    async def keep(self) -> None:
        """Keep a zygote alive, until there is no hope."""
        while not self._broken:
            try:
                self._zygote = self._warm or Zygote(self._job, for_slots(self._job.arguments), collect=False)
                self._warm = None
                self._born = trio.current_time()
            except UsageError as error:
                self._broken = str(error)
                break
            except OSError as error:
                self._broken = f"can't start {self._job.python} in {self._job.root}: {error.strerror}"
                break
            try:
                await self._listen(self._zygote)
                if self._stopping:
                    return
                was_ready = self._ready.is_set()
                if was_ready:
                    self._ready = trio.Event()  # slots that are opened from now on wait for the next one
                code = await self._end_zygote(self._zygote)
                if not was_ready:
                    failed = frames.collection_failed(code, *self._zygote.output())
                    self._broken = f"pytest could not be started (exit code {code})"
                    self._broken_output = failed.output
            finally:
                if self._zygote is not self.rested:
                    self._zygote.close()
                self._zygote = None
        self._ready.set()
        await self._refuse_all()

    async def _listen(self, zygote: Zygote) -> None:
        with trio.CancelScope() as self._listening:
            async with contextlib.aclosing(zygote.messages()) as messages:
                async for message in messages:
                    self._hear(message)

    def _hear(self, message: dict[str, Any]) -> None:
        if "timeouts" in message:
            self._plugin_limits = message["timeouts"]
        elif "ready" in message:
            self._ready.set()
        elif "started" in message:
            slot = self._starting.pop(message["started"])
            slot.pid = message["pid"]
            slot.pipes.handed_over()
            self._by_pid[slot.pid] = slot
            if slot.status is not None:
                kill_group(slot.pid)
        elif "exited" in message:
            ended = self._by_pid.pop(message["exited"])
            ended.end(message["status"])

    async def _end_zygote(self, zygote: Zygote) -> int:
        """It has died, and its slots with it."""
        zygote.kill()
        for slot in list(self._slots.values()):
            slot.kill()
            if slot.pid == 0:
                slot.pipes.handed_over()
            slot.end(-signal.SIGKILL)
        self._by_pid.clear()
        self._starting.clear()
        return await zygote.wait()

    async def _refuse_all(self) -> None:
        """Without a zygote: each test that is submitted ends with an error that says why."""
        while True:
            for key in self._queue.remove(lambda key: True):
                item = self._items.pop(key)
                record = frames.undone(
                    item, frames.Place(self._job.worker, 0), time.time(), self._broken, self._broken_output
                )
                await self._mailbox.put([Finished(item.lease, item.index, record)])
            self._wake = trio.Event()
            await self._wake.wait()

    # slots

    def _balance(self) -> None:
        """Give every slot what it should have now, in one pass."""
        self._wake.set()
        now = trio.current_time()
        if self._broken or self._stopping or now < self._halted:
            return
        while True:
            for number in sorted(range(max(1, self._job.slots)), key=lambda number: len(self._queue.given(number))):
                self._feed(number, now)
            rich = self._queue.rich(now)
            if rich is None or not self._take_back(self._slots[rich]):
                return

    def _feed(self, number: int, now: float) -> None:
        slot = self._slots.get(number)
        if slot is not None and (slot.status is not None or slot.limit):
            return
        keys = self._queue.refill(number, now)
        if keys:
            tokens = [(key, self._lengths[key]) for key in keys]
            if slot is None:
                slot = self._open(number)
                slot.variables = self._items[keys[0]].variables
            for place, key in enumerate(keys):
                if self._items[key].variables != slot.variables:
                    tokens.insert(place, wire.STOP)  # its successor takes the rest
                    slot.spared = slot.spared or not slot.began
                    break
            if slot.paused:
                tokens = [token for token in slot.pipes.take_back() if token != wire.PAUSE] + tokens
            slot.paused = False
            slot.pipes.put(tokens)
        elif slot is not None and not slot.paused and len(self._queue.given(number)) <= 1:
            slot.paused = True
            slot.pipes.put([wire.PAUSE])

    def _take_back(self, slot: SlotProcess) -> bool:
        """Make what the slot has not begun pending again; whether there was anything."""
        keys = [offset for offset, _ in slot.pipes.take_back() if offset != wire.NOWHERE]
        slot.paused = False
        self._queue.returned(slot.number, keys)
        return bool(keys)

    def _open(self, number: int) -> SlotProcess:
        self._births += 1
        directory = self._directory / f"{number}-{self._births}"
        directory.mkdir()
        slot = self._slots[number] = SlotProcess(number, directory)
        self._nursery.start_soon(self._attend, slot)
        return slot

    async def _attend(self, slot: SlotProcess) -> None:
        """The life of one slot process."""
        try:
            reader = wire.FrameReader()
            started = await self._start(slot)
            while started:
                data = await slot.read()
                if not data:
                    break
                try:
                    events = self._digest(slot, reader.feed(data))
                except (ValueError, TypeError, KeyError):  # foreign code wrote into our pipe: that process is lost
                    break
                self._balance()
                await self._mailbox.put(events)
                if len(self._queue.given(slot.number)) > 2:
                    await trio.sleep(READ_PAUSE_SECONDS)
            await self._bury(slot)
        finally:
            slot.pipes.close()

    async def _start(self, slot: SlotProcess) -> bool:
        """Have the zygote start its process; False if there is none to do so."""
        await self._ready.wait()
        if self._zygote is None or slot.exited.is_set():
            return False
        self._starting[slot.number] = slot
        message = {"start": slot.number, "directory": str(slot.directory), "items": str(self._items_path)}
        message |= {"first": self._job.first_slot, "total": self._job.slots_total or self._job.slots}
        message |= {"run": self._job.run, "share": self._job.share, "variables": dict(slot.variables)}
        with contextlib.suppress(OSError):  # it has just died: whoever listens to it ends this slot
            await self._zygote.send(message, (slot.pipes.tokens_read, slot.pipes.frames_write))
        return True

    def _digest(self, slot: SlotProcess, batch: Sequence[wire.Frame]) -> list[RunnerEvent]:
        events: list[RunnerEvent] = []
        place = frames.Place(self._job.worker, slot.number)
        for frame in batch:
            if frame[0] == "S":
                slot.running, slot.epoch = int(frame[1]), frame[2]
                slot.since = trio.current_time()
                slot.began = True
                self._barren.pop(slot.number, None)
                self._queue.started(slot.number, slot.running, slot.since)
                continue
            if frame[0] == "I":
                slot.inputs.hear(frame[1])
                continue
            if frame[0] == "J" and "ended" in frame[1]:
                self.endings.append(wire.clip(str(frame[1]["ended"]))[0])
                continue
            key = int(frame[1]) if frame[0] == "P" else int(frame[1]["key"])
            slot.running = None
            slot.since = trio.current_time()
            item = self._items.pop(key, None)
            if item is None:
                self._queue.finished(slot.number, key, 0.0)
                continue
            ended = frames.finished(item, place, frame, slot.inputs)
            self._count(ended.record)
            self._queue.finished(slot.number, key, ended.record.duration)
            events.append(ended)
        if slot.running is not None and slot.running in self._items:
            item = self._items[slot.running]
            events.append(Started(item.lease, item.index, slot.number))
        return events

    def _count(self, record: Record) -> None:
        """After as many bad tests as the run allows nothing starts here, until the log has its say."""
        if not self._job.maxfail or not record.outcome.bad:
            return
        self._bad += 1
        if self._bad == self._job.maxfail:
            self._halted = trio.current_time() + HALT_SECONDS_MAX
            for slot in list(self._slots.values()):
                self._take_back(slot)

    def _go_on(self) -> None:
        """The log did not end the run, some of the bad tests not counting. Slots that wait for the end are replaced."""
        self._halted = NEVER
        for slot in self._slots.values():
            if slot.running is None:
                slot.spared = True
                slot.kill()
        self._balance()

    async def _bury(self, slot: SlotProcess) -> None:
        """The slot's process is dead or dying: give its test a verdict, and what it had not begun to others."""
        slot.kill()
        with trio.move_on_after(EXIT_SECONDS):
            await slot.exited.wait()
        status = slot.status if slot.status is not None else -signal.SIGKILL
        slot.status = status
        given = self._queue.given(slot.number)
        unread = {offset for offset, _ in slot.pipes.take_back()}
        taken = [key for key in given if key not in unread]
        blamed = slot.running
        if blamed is None and not slot.spared:
            barren = self._barren[slot.number] = self._barren.get(slot.number, 0) + (not slot.began)
            if taken:
                blamed = taken[0]
            elif given and barren >= BARREN_MAX and not self._broken:
                blamed = given[0]
        self._queue.lost(slot.number, [key for key in given if key == blamed or key not in self._items])
        del self._slots[slot.number]
        item = self._items.pop(blamed, None) if blamed is not None else None
        if item is not None:
            began = slot.epoch if slot.running is not None else time.time()
            seconds = max(0.0, time.time() - began)
            left = remains(slot.directory, status)
            if not slot.began and self._zygote is not None:  # what it said before it had files of its own
                left = dataclasses.replace(left, stderr=left.stderr + self._zygote.output()[1])
            record = frames.died(item, frames.Place(self._job.worker, slot.number), began, seconds, left, slot.limit)
            self._count(record)
            self._balance()
            await self._mailbox.put([Finished(item.lease, item.index, record, left_in(slot.directory, blamed))])
        self._balance()

    async def watch(self) -> None:
        """Enforce limits of time, and even out work that turned out unlike its guess."""
        while True:
            await trio.sleep(TICK_SECONDS)
            now = trio.current_time()
            if NEVER < self._halted <= now:
                self._go_on()
            for slot in list(self._slots.values()):
                limit = None
                if slot.pid and slot.status is None:
                    item = None if slot.running is None else self._items.get(slot.running)
                    runs, waits = slot.running is not None, bool(self._queue.given(slot.number))
                    limit = limits.of(runs, item, waits, self._job.timeout, self._plugin_limits)
                if limit is not None and now - slot.since > limit[0] and not slot.limit:
                    slot.limit = limit[1]
                    self._nursery.start_soon(self._end_late, slot)
            if self._queue.rich(now) is not None:
                self._balance()
            if self._zygote is not None and not self._ready.is_set() and now - self._born > limits.COLLECT_SECONDS_MAX:
                self._zygote.kill()

    async def _end_late(self, slot: SlotProcess) -> None:
        """Kill a slot whose test is out of time, its stacks first."""
        signal_process(slot.pid, signal.SIGABRT)
        with trio.move_on_after(DUMP_SECONDS):
            await slot.exited.wait()
        slot.kill()

    async def stop(self) -> None:
        """Let fixtures of the session, and the zygote, end in order; only if nothing runs."""
        self._stopping = True
        idle = [slot for slot in self._slots.values() if slot.pid and slot.running is None]
        for slot in idle:
            slot.pipes.take_back()
            slot.pipes.put([wire.STOP])
        with trio.move_on_after(limits.TEARDOWN_SECONDS_MAX):
            for slot in idle:
                await slot.exited.wait()
        self.endings += [frames.broken_ending(slot.status) for slot in idle if slot.status != 0]
        for slot in list(self._slots.values()):
            slot.kill()
        zygote = self._zygote
        if zygote is None or not self._ready.is_set():
            return
        if zygote.lasting and not self._by_pid and not self._starting:
            self.rested = zygote
            self._listening.cancel()  # what it says from now on is for the next session
            await zygote.rest()
        else:
            await zygote.stop()

    def kill_all(self) -> None:
        if self._warm is not None:
            self._warm.close()
        for slot in self._slots.values():
            slot.kill()
        self._items_file.close()

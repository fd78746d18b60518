"""A runner without processes: tests take the seconds that a script gives them, on `slots` slots of trio's clock; one
that takes longer than it may is killed, and has failed.
"""

import math
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import trio

from mesh.ports import CollectionFailed, Finished, Job, RunnerEvent, Started, WorkItem
from protocols.ids import Cid, LeaseId, PeerId, TestIndex
from protocols.manifests import CollectedTest, Manifest, Needs, Outcome, Record

END_SECONDS = 0.2
"""Until a session's processes are gone."""


@dataclass
class Suite:
    """What there is to collect, and what becomes of each test. `ran` lists (worker, test), in the order of starts."""

    tests: list[CollectedTest]
    seconds: Callable[[str], float] = lambda test: 0.05
    outcome: Callable[[str], Outcome] = lambda test: Outcome.PASSED
    requirements: tuple[tuple[str, str], ...] = (("", ""),)
    needs: tuple[Needs, ...] = ()
    failure: CollectionFailed | Exception | None = None
    """What a collection comes to, or dies of, in place of `tests`."""
    collected: list[PeerId] = field(default_factory=list)
    """Workers, in the order in which they began to."""
    ran: list[tuple[PeerId, str]] = field(default_factory=list)


def suite_of(count: int, modules: int = 5) -> Suite:
    """`count` tests, spread over modules in order."""
    per = max(1, count // modules)
    return Suite([CollectedTest(f"test_{i // per}.py::test_{i}", f"test_{i // per}.py") for i in range(count)])


class FakeRunner:
    """Implements the Runner port."""

    def __init__(self, suite: Suite) -> None:
        self._suite = suite

    async def collect(self, job: Job) -> Manifest | CollectionFailed:
        self._suite.collected.append(job.worker)
        await trio.sleep(0.3)
        if isinstance(self._suite.failure, Exception):
            raise self._suite.failure
        if self._suite.failure is not None:
            return self._suite.failure
        return Manifest(Cid(""), tuple(self._suite.tests), self._suite.requirements, needs=self._suite.needs)

    @asynccontextmanager
    async def session(self, job: Job) -> AsyncIterator["FakeSession"]:
        async with trio.open_nursery() as nursery:
            session = FakeSession(self._suite, job, nursery)
            yield session
            nursery.cancel_scope.cancel()
        await trio.sleep(END_SECONDS)


class FakeSession:
    endings: Sequence[str] = ()

    def __init__(self, suite: Suite, job: Job, nursery: trio.Nursery) -> None:
        self._suite = suite
        self._job = job
        self._queue: deque[WorkItem] = deque()
        self._running: dict[tuple[LeaseId, TestIndex], trio.CancelScope] = {}
        self._wake = trio.Event()
        self._send, self._events = trio.open_memory_channel[RunnerEvent](1000)
        for slot in range(job.slots):
            nursery.start_soon(self._slot, slot)

    def submit(self, items: Sequence[WorkItem]) -> None:
        self._queue.extend(items)
        self._wake.set()

    def withdraw(self, lease: LeaseId) -> list[TestIndex]:
        taken = [item.index for item in self._queue if item.lease == lease]
        self._queue = deque(item for item in self._queue if item.lease != lease)
        return taken

    def kill(self, lease: LeaseId) -> None:
        self.withdraw(lease)
        for (held, _), scope in self._running.items():
            if held == lease:
                scope.cancel()

    def events(self) -> AsyncIterator[RunnerEvent]:
        return self._events

    async def _slot(self, slot: int) -> None:
        while True:
            while not self._queue:
                if self._wake.is_set():
                    self._wake = trio.Event()
                await self._wake.wait()
            item = self._queue.popleft()
            with trio.CancelScope() as scope:
                self._running[item.lease, item.index] = scope
                self._suite.ran.append((self._job.worker, item.id))
                await self._send.send(Started(item.lease, item.index, slot))
                started, seconds = trio.current_time(), self._suite.seconds(item.id)
                limit = item.timeout or math.inf
                await trio.sleep(min(seconds, limit))
                outcome = self._suite.outcome(item.id) if seconds < limit else Outcome.FAILED
                record = Record(item.id, outcome, min(seconds, limit), started, PeerId(""), slot, item.attempt)
                await self._send.send(Finished(item.lease, item.index, record))
            del self._running[item.lease, item.index]

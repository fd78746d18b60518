"""What a coordinator counts for the metrics of its node, and what it tells when somebody reads them.

Invariant: a counter is told by the node that counted, also when it coordinates no more; what is so now, by the one that
coordinates now, alone.
"""

import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import trio

from mesh.measures import CoordinationMeasures
from mesh.ports import Clock, ReplicatedLog
from mesh.scheduler.fleet import unusable
from mesh.scheduler.outlook import Outlook
from mesh.state.ledger import Ledger
from mesh.state.model import Lease
from mesh.views.metrics import Family, counted_families, histogram, queue_families


class Measuring:
    """`outlook`: as of the newest plan."""

    def __init__(
        self, measures: CoordinationMeasures, log: ReplicatedLog, clock: Clock, outlook: Callable[[], Outlook]
    ) -> None:
        self._measures = measures
        self._log = log
        self._clock = clock
        self._outlook = outlook
        self._ledger = Ledger()

    @asynccontextmanager
    async def leading(self) -> AsyncIterator[None]:
        """While this node coordinates."""
        self._ledger.begin(self._log.state)
        try:
            yield
        finally:
            self._ledger.look(self._log.state)

    @contextmanager
    def planning(self) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self._measures.plans.observe(time.perf_counter() - start)

    def assigned(self, lease: Lease, since: float | None) -> None:
        """A worker was told of a lease. `since`: when the plan that granted it was made, on trio's clock; None: it was
        told before."""
        if since is None:
            return
        self._measures.dispatches.observe(trio.current_time() - since)
        run = self._log.state.runs.get(lease.run)
        if lease.collects and run is not None and not run.collect_losses:
            self._measures.waits.observe(max(0.0, self._clock.now() - run.submitted_at))

    def families(self) -> list[Family]:
        told = [
            histogram(
                "mesh_dispatch_seconds",
                "From the plan that granted a lease until its worker had it.",
                self._measures.dispatches,
            ),
            histogram(
                "mesh_queue_wait_seconds", "From the submission of a run until its first lease.", self._measures.waits
            ),
            histogram("mesh_plan_seconds", "What a plan of the scheduler took.", self._measures.plans),
        ]
        if self._log.is_leader:
            self._ledger.look(self._log.state)
            seen = self._outlook()
            able = sum(not unusable(seen.state, view) for view in seen.views.values())
            told += queue_families(seen.state, seen.waiting, able, self._clock.now())
        return [*counted_families(self._ledger), *told]

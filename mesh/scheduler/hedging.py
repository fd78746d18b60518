"""Which tests that take far longer than expected should be run by a second worker, too: the first verdict counts.

Only where the run asks for it (a test may do something to the world, and a hedge does it twice), only tests that hold
nothing that is there once, on a worker that is left with a free slot when all that could be granted was, so that a
hedge never keeps a test waiting. What is queued behind such a test on its worker is asked back. How long a test has run
is soft state of the fleet: a new coordinator begins to count anew. Rejected: a hedge of a hedge (two are enough to rule
out one slow host), ending the first one when the second starts (it may be about to pass).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from mesh.scheduler import feasibility
from mesh.scheduler.desk import Desk
from mesh.scheduler.fleet import WorkerView
from mesh.scheduler.preemption import Recall
from mesh.scheduler.supply import Lengths
from mesh.state import ranges
from mesh.state.model import CoordinatorState, Lease, Run, RunPhase
from protocols.commands import Hedge
from protocols.ids import LeaseId, PeerId, RunId, TestIndex

STRAGGLE_FACTOR = 2.0
"""Times its expected duration after which a test straggles,"""
STRAGGLE_SECONDS_MIN = 5.0
"""but not before that."""
HEDGES_PER_PLAN_MAX = 64
LOG_FORMAT_MIN = 3
"""Of a log that can hold a `Hedge`."""


@dataclass(frozen=True, slots=True)
class Straggler:
    run: Run
    lease: Lease
    test: TestIndex
    requirement: int
    seconds: float
    queued: bool
    """Whether tests of its lease wait that have not started."""


def decide(
    state: CoordinatorState,
    views: Iterable[WorkerView],
    desks: Mapping[PeerId, Desk],
    lengths: Mapping[RunId, Lengths],
    may_join: Callable[[Run, Desk], bool],
    recalls: Sequence[Recall],
) -> tuple[tuple[Hedge, ...], tuple[Recall, ...]]:
    """The hedges to propose, and `recalls` with those of what waits behind stragglers. `desks`: with all on them that
    the plan grants."""
    views = tuple(views)
    found = sorted(_stragglers(state, views, lengths), key=lambda one: (-one.seconds, one.lease.id, one.test))
    free = {peer: _free_slots(desk) for peer, desk in desks.items()} if found else {}
    asked = {recall.lease: recall for recall in recalls}
    hedges: list[Hedge] = []
    for one in found:
        able = [desks[peer] for peer in _able(state, views, one) if free.get(peer, 0) > 0]
        able = [desk for desk in able if may_join(one.run, desk)]
        if not able or len(hedges) >= HEDGES_PER_PLAN_MAX:
            continue
        if one.queued:
            asked.setdefault(one.lease.id, Recall(one.lease.id, one.run.id, None))
        if one.test not in one.run.hedges:
            desk = min(able, key=lambda desk: (desk.load(), desk.view.load, desk.losses, desk.view.peer))
            free[desk.view.peer] -= 1
            hedges.append(Hedge(one.lease.id, one.test, desk.view.peer, desk.view.incarnation))
    return tuple(hedges), tuple(asked.values())


def _stragglers(
    state: CoordinatorState, views: Iterable[WorkerView], lengths: Mapping[RunId, Lengths]
) -> Iterator[Straggler]:
    if state.format < LOG_FORMAT_MIN or not any(run.spec.hedge for run in state.runs.values()):
        return
    for view in views:
        started: dict[LeaseId, int] = {}
        for lease_id, _, _ in view.running:
            started[lease_id] = started.get(lease_id, 0) + 1
        for lease_id, test, seconds in view.running:
            lease = state.leases.get(lease_id)
            if lease is None or lease.worker != view.peer or not _may_be_hedged(state, lease):
                continue
            place = ranges.locate(lease.open, test)
            estimates, scale, _ = lengths[lease.run]
            if place is None or lease.open[place].losses:
                continue
            if seconds > max(STRAGGLE_FACTOR * estimates[test] * scale, STRAGGLE_SECONDS_MIN):
                run, queued = state.runs[lease.run], ranges.size(lease.open) > started[lease_id]
                yield Straggler(run, lease, test, lease.open[place].requirement, seconds, queued)


def _may_be_hedged(state: CoordinatorState, lease: Lease) -> bool:
    """Whether it is a lease of plain tests, none of which may be within a `mesh_lock`."""
    run = state.runs[lease.run]
    if run.phase is not RunPhase.RUNNING or not run.spec.hedge or lease.hedges or lease.needs.held:
        return False
    return not any((held.run, held.worker) == (run.id, lease.worker) for held in state.claims.values())


def _able(state: CoordinatorState, views: Iterable[WorkerView], one: Straggler) -> list[PeerId]:
    """Other workers that could run it, and where it was not bad."""
    run = one.run
    wanted = feasibility.need_of(run, one.requirement)
    capable, _ = feasibility.split(state, views, wanted, run.id)
    without = {one.lease.worker, *run.failed_on.get(one.test, ())}
    return [view.peer for view in capable if view.peer not in without]


def _free_slots(desk: Desk) -> int:
    if desk.kept or desk.shelf.leases or not desk.has_lease_left():
        return 0
    return desk.view.slots - desk.tests()

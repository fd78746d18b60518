"""What is done about tests that take longer than expected, when workers are left with free slots.

What is queued behind such a test on its worker is **asked back**, to be run by those who are free; and so is the queue
of a **late** lease, whose tests were thought short when it was granted, and are not. A straggling test itself is run by
a second worker, too, and the first verdict counts (a **hedge**): only where the run asks for it (a test may
do something to the world, and a hedge does it twice), only tests that hold nothing that is there once, and only with
slots that nobody else wants. How long a test has run is soft state of the fleet: a new coordinator begins to count
anew. Rejected: a hedge of a hedge (two are enough to rule out one slow host), ending the first one when the second
starts (it may be about to pass).
"""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from mesh.scheduler import feasibility
from mesh.scheduler.desk import BACKLOG_SECONDS_MAX, Desk
from mesh.scheduler.durations import Estimates
from mesh.scheduler.feasibility import Need
from mesh.scheduler.fleet import WorkerView
from mesh.scheduler.portions import Able
from mesh.scheduler.preemption import RECALLS_PER_PLAN_MAX, Recall
from mesh.scheduler.supply import Lengths
from mesh.state import ranges
from mesh.state.model import CoordinatorState, Lease, Run, Task
from protocols.commands import Hedge
from protocols.ids import LeaseId, RunId, TestIndex

STRAGGLE_FACTOR = 2.0
"""Times its expected duration after which a test straggles,"""
STRAGGLE_SECONDS_MIN = 1.0
"""but not before that,"""
HEDGE_SECONDS_MIN = 5.0
"""nor is it hedged before that, nor while many of its like take as long."""
SOON_SECONDS = 1.5
"""Before the expected end of a long test, from which on the next one is handed out for its slot: what runs is told of
once a second."""
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
    hedged: bool
    """Whether a second worker may run it."""
    queued: bool
    """Whether tests of its lease wait that have not started."""


def decide(
    state: CoordinatorState,
    views: Iterable[WorkerView],
    roomy: Iterable[Desk],
    lengths: Mapping[RunId, Lengths],
    able_to: Callable[[Run, Need], Able],
    may_join: Callable[[Run, Desk], bool],
    recalls: Sequence[Recall],
    fat: Collection[LeaseId],
) -> tuple[tuple[Hedge, ...], tuple[Recall, ...]]:
    """The hedges to propose, and `recalls` with those of what waits behind stragglers and in late leases. `roomy`: at
    least the desks with a slot free, with all on them that the plan grants; `able_to`: who could do such work of a run;
    `fat`: leases of much work, as it is known by now."""
    found = sorted(_stragglers(state, views, lengths), key=lambda one: (-one.seconds, one.lease.id, one.test))
    desks = {desk.view.peer: desk for desk in roomy} if found or fat else {}
    free = {peer: slots for peer, desk in desks.items() if (slots := _free_slots(desk)) > 0}
    if not free:
        return (), tuple(recalls)
    asked = {recall.lease: recall for recall in recalls}

    def takers(run: Run, requirement: int) -> list[Desk]:
        """Those with a free slot who could run such tests."""
        able = able_to(run, feasibility.need_of(run, requirement)).peers
        return [desks[peer] for peer, slots in free.items() if slots and peer in able and may_join(run, desks[peer])]

    hedges: list[Hedge] = []
    for one in found:
        without = {one.lease.worker, *one.run.failed_on.get(one.test, ())}
        able = [desk for desk in takers(one.run, one.requirement) if desk.view.peer not in without]
        if not able:
            continue
        if one.queued and len(asked) < RECALLS_PER_PLAN_MAX:
            asked.setdefault(one.lease.id, Recall(one.lease.id, one.run.id, None))
        if one.hedged and one.test not in one.run.hedges and len(hedges) < HEDGES_PER_PLAN_MAX:
            desk = min(able, key=lambda desk: (desk.load(), desk.view.load, desk.losses, desk.view.peer))
            free[desk.view.peer] -= 1
            hedges.append(Hedge(one.lease.id, one.test, desk.view.peer, desk.view.incarnation))
    served: set[tuple[RunId, int]] = set()
    for lease in _late(state, (lease for lease in fat if lease not in asked), lengths):
        run, requirement = state.runs[lease.run], lease.open[-1].requirement
        if (run.id, requirement) in served or len(asked) >= RECALLS_PER_PLAN_MAX:
            continue
        served.add((run.id, requirement))
        for desk in takers(run, requirement):
            asked.setdefault(lease.id, Recall(lease.id, run.id, None))
            del free[desk.view.peer]
    return tuple(hedges), tuple(asked.values())


def _late(state: CoordinatorState, fat: Iterable[LeaseId], lengths: Mapping[RunId, Lengths]) -> list[Lease]:
    """Of these, those that may be asked back for others to run, the one with the most work first."""

    def seconds(lease: Lease) -> float:
        estimates, scale, _ = lengths[lease.run]
        return scale * sum(estimates.total(task.first, task.count) for task in lease.open)

    leases = [lease for lease in map(state.leases.__getitem__, fat) if not lease.needs.held and not lease.hedges]
    return sorted(leases, key=lambda lease: (-seconds(lease), lease.id))


def _stragglers(
    state: CoordinatorState, views: Iterable[WorkerView], lengths: Mapping[RunId, Lengths]
) -> Iterator[Straggler]:
    for view in views:
        for one in _under_way(state, view, lengths, STRAGGLE_SECONDS_MIN) if view.running else ():
            lease = one.lease
            if lease.worker != view.peer or lease.hedges or one.seconds <= STRAGGLE_FACTOR * one.expected:
                continue
            run, started = state.runs[lease.run], sum(held == lease.id for held, _, _ in view.running)
            is_odd = one.seconds > max(HEDGE_SECONDS_MIN, one.high)
            may = is_odd and not one.task.losses and _may_be_hedged(state, lease)
            queued = ranges.size(lease.open) > started
            if may or queued:
                yield Straggler(run, lease, one.test, one.task.requirement, one.seconds, may, queued)


@dataclass(slots=True)
class _Running:
    """A test under way, for `seconds` already; on its worker it should take `scale` times what is estimated."""

    lease: Lease
    task: Task
    test: TestIndex
    seconds: float
    estimates: Estimates
    scale: float

    @property
    def expected(self) -> float:
        return self.estimates[self.test] * self.scale

    @property
    def high(self) -> float:
        return self.estimates.high(self.test) * self.scale


def _under_way(
    state: CoordinatorState, view: WorkerView, lengths: Mapping[RunId, Lengths], over: float = -math.inf
) -> Iterator[_Running]:
    """What a worker has said to run, for over so many seconds, but what has ended without its having said so yet."""
    for lease_id, test, seconds in view.running:
        lease = state.leases.get(lease_id) if seconds > over else None
        if lease is None or lease.run not in lengths:
            continue
        place = ranges.locate(lease.open, test)
        if place is not None:
            estimates, scale, _ = lengths[lease.run]
            yield _Running(lease, lease.open[place], test, seconds, estimates, scale * estimates.factor(view.peer))


def _may_be_hedged(state: CoordinatorState, lease: Lease) -> bool:
    """Whether it is a lease of plain tests, none of which may be within a `mesh_lock`."""
    run = state.runs[lease.run]
    if state.format < LOG_FORMAT_MIN or not run.spec.hedge or lease.needs.held:
        return False
    return not any((held.run, held.worker) == (run.id, lease.worker) for held in state.claims.values())


def _free_slots(desk: Desk) -> int:
    if desk.kept or desk.hosts or desk.shelf.leases or not desk.has_lease_left():
        return 0
    return desk.view.slots - desk.tests()


def turnover(state: CoordinatorState, view: WorkerView, lengths: Mapping[RunId, Lengths]) -> tuple[int, int]:
    """Slots of a worker with tests that were thought to be short, and have run for longer than a backlog already (for
    how much longer, nobody knows), and slots whose long tests are about to end."""
    stuck = soon = 0
    for one in _under_way(state, view, lengths):
        expected = one.expected
        if expected < BACKLOG_SECONDS_MAX:
            stuck += one.seconds > BACKLOG_SECONDS_MAX
        else:
            soon += expected - SOON_SECONDS < one.seconds <= STRAGGLE_FACTOR * expected
    return stuck, soon

"""Desks as plans find them: with all that workers hold by the log."""

from mesh.scheduler import preemption
from mesh.scheduler.desk import Desk
from mesh.scheduler.fleet import WorkerView
from mesh.scheduler.supply import KeptDesk, LengthsOf
from mesh.state import holdings, ranges
from mesh.state.model import CoordinatorState, Task, Worker
from protocols.ids import RunId

UNKNOWN = (None, 1.0, False)
"""The lengths of a run that is not being run: a collection."""


def made(state: CoordinatorState, view: WorkerView, worker: Worker, lengths: LengthsOf) -> KeptDesk:
    """The desk of a worker, with its leases, and what is kept there for those of others."""
    desk = Desk(view, worker.losses)
    leases = [state.leases[lease] for lease in (*worker.leases, *worker.hosted)]
    kept = KeptDesk(
        desk, worker, list(worker.leases), list(worker.hosted), [(lease, lease.open) for lease in leases]
    )  # fmt: skip
    for lease in leases:
        before = desk.load()
        if lease.needs.held:
            desk.shelf.take(view, lease.needs, holdings.devices_on(lease, view.peer))
            desk.hosts = desk.hosts or lease.worker != view.peer
            estimates, scale, _ = lengths.get(lease.run, UNKNOWN)
            taken = desk.hold_serially(lease.open, estimates, scale)
        else:
            taken = hold(desk, lengths, lease.run, lease.open)
        kept.taken.append((lease.run, taken))
        if ranges.size(lease.open) > view.slots:
            kept.queues.append(lease.id)
            if desk.load() - before > preemption.FAT_SECONDS:
                kept.fat.append(lease.id)
    desk.changed = False
    return kept


def hold(desk: Desk, lengths: LengthsOf, run: RunId, tasks: list[Task], joins: bool = False) -> float:
    """Put tasks on a desk. How many slots they take; one each, where it is not known how long they are."""
    estimates, scale, is_guess = lengths.get(run, UNKNOWN)
    taken = desk.hold(run, tasks, estimates, scale, joins)
    if not is_guess:
        return taken
    desk.guessed.add(run)
    return float(min(ranges.size(tasks), desk.view.slots))

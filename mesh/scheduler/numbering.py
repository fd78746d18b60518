"""Numbers of a run's slots over all its workers: what `PYTEST_XDIST_WORKER` calls "gw0", "gw1" and so on. Pure.

Two slots of one run never have the same number, since a suite may name databases and ports on shared servers by it. It
follows from the log alone (the order in which workers came to the run, and the slots that they registered), so that
every coordinator says the same. A worker that comes back with more slots than before moves those behind it.
"""

from collections.abc import Mapping

from mesh.scheduler.fleet import WorkerView, unusable
from mesh.state.model import CoordinatorState, Run
from protocols.ids import PeerId


def numbers(state: CoordinatorState, run: Run, worker: PeerId, fleet: Mapping[PeerId, WorkerView]) -> tuple[int, int]:
    """(the number of this worker's first slot, how many slots the run may use as things stand)."""
    slots = {peer: known.slots for peer, known in state.workers.items()}
    before = run.workers[: run.workers.index(worker)] if worker in run.workers else run.workers
    first = sum(slots.get(peer, 0) for peer in before)
    total = sum(slots.get(peer, 0) for peer in run.workers)
    if not 0 < run.spec.worker_count <= len(run.workers):
        others = (peer for peer, view in fleet.items() if not unusable(state, view) and peer not in run.workers)
        total += sum(slots[peer] for peer in others)
    return first, max(total, first + slots.get(worker, 0))

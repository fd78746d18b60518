"""Workers that hear of a run while another one collects it, so that all of them begin once its tests are known.

Each fetches the bundle, builds the environment and collects for itself, as it would have to with its first lease. Only
idle ones are told: nothing that runs is slowed down for what may come.
"""

from collections.abc import Mapping

from mesh.scheduler.feasibility import need_of, split
from mesh.scheduler.fleet import WorkerView
from mesh.state.model import CoordinatorState, Lease
from protocols.ids import PeerId

WORKERS_MAX = 64
"""Told of one run."""


def told(state: CoordinatorState, fleet: Mapping[PeerId, WorkerView], lease: Lease) -> tuple[PeerId, ...]:
    """Those that may get a part of the run that `lease` collects: who has its bundle first, then the least busy."""
    run = state.runs[lease.run]
    capable, _ = split(state, fleet.values(), need_of(run), run.id)
    idle = [view for view in capable if view.peer != lease.worker and state.workers[view.peer].is_idle]
    idle.sort(key=lambda view: (run.spec.bundle not in view.bundles, view.load, view.peer))
    others = run.spec.worker_count - 1 if run.spec.worker_count else WORKERS_MAX
    return tuple(view.peer for view in idle[: min(others, WORKERS_MAX)])

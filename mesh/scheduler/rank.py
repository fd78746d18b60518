"""Orders: which task first, which worker first. Every order ends in an ID, so that no two voters would differ."""

import math

from mesh.scheduler.desk import Desk
from mesh.scheduler.durations import Estimates
from mesh.scheduler.feasibility import Need, preference
from mesh.scheduler.shelf import has_devices
from mesh.state.model import Run, Task


def task_key(task: Task, estimates: Estimates) -> tuple[int, int, int]:
    """Tasks that may kill a node last; then the longest first; then the manifest's order.

    Lengths within a factor of two count as equal: longest-first needs no more, and neighbours share imports and
    fixtures, so they had better go to one worker.
    """
    return (task.losses, -math.frexp(estimates.total(task.first, task.count))[1], task.first)


def worker_key(desk: Desk, run: Run, need: Need) -> tuple[bool, bool, int, bool, float, float, int, str]:
    """Workers that have the bundle first, then those of this run, the better liked, the less loaded, the more reliable;
    those with devices last for who needs none.

    A worker fills its share and no more, so that the others get theirs whatever their rank.
    """
    return (
        run.spec.bundle not in desk.view.bundles,
        desk.view.peer not in run.workers,
        -preference(need, desk.view),
        has_devices(desk.view) and not need.takes.gpu,
        desk.load(),
        desk.view.load,
        desk.losses,
        desk.view.peer,
    )

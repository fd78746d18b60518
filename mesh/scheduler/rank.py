"""Orders: which task first, which worker first. Every order ends in an ID, so that no two voters would differ."""

import math
from collections.abc import Iterable, Mapping

from mesh.scheduler.desk import Desk
from mesh.scheduler.durations import Estimates
from mesh.scheduler.feasibility import Need, preference
from mesh.scheduler.fleet import WorkerView
from mesh.scheduler.shelf import has_devices
from mesh.state.model import Run, Task
from protocols.ids import PeerId


def task_key(task: Task, estimates: Estimates) -> tuple[int, int, int]:
    """Tasks that may kill a node last; then the longest first; then the manifest's order.

    Lengths within a factor of two count as equal: longest-first needs no more, and neighbours share imports and
    fixtures, so they had better go to one worker.
    """
    return (task.losses, -math.frexp(estimates.total(task.first, task.count))[1], task.first)


def ranked(desks: Iterable[Desk], run: Run, need: Need, sought: Mapping[PeerId, int]) -> list[Desk]:
    """Workers that nothing needier waits for first (see `sought`); then those that have the bundle, those of this run,
    the better liked; of these the ones without tests that contend with others, then those with the least to spare
    (devices, memory), so that what is rare stays free; then the less loaded and the more reliable.

    Nothing waits for that: who has an idle slot goes before who has none, however plain, and a worker fills its share
    and no more, so that the others get theirs whatever their rank.
    """
    bundle, members, is_choosy = run.spec.bundle, frozenset(run.workers), bool(need.prefers)

    def key(desk: Desk) -> tuple[tuple[bool, int], bool, bool, int, bool, int, bool, int, float, float, int, str]:
        view = desk.view
        is_full = desk.tests() >= view.slots
        return (
            (is_full, -sought.get(view.peer, 0)) if sought else (False, 0),
            bundle not in view.bundles,
            view.peer not in members,
            -preference(need, view) if is_choosy else 0,
            is_full,
            desk.contenders,
            has_devices(view) and not need.takes.gpu,
            _memory_class(view),
            desk.load(),
            view.load,
            desk.losses,
            view.peer,
        )

    return sorted(desks, key=key)


def _memory_class(view: WorkerView) -> int:
    """Sizes within a factor of two count as equal: the load decides between those."""
    memory = view.capabilities.get("memory")
    return math.frexp(memory)[1] if isinstance(memory, int) else 0


def sought(able: Iterable[frozenset[PeerId]]) -> dict[PeerId, int]:
    """For each worker, among how few workers the neediest work that it could do must find its place; `able`: who could
    do each kind of work that waits. Empty if all of it may go to the same ones: then none is rarer than another."""
    kinds = {peers for peers in able if peers}
    found: dict[PeerId, int] = {}
    if len(kinds) > 1:
        for peers in kinds:
            for peer in peers:
                found[peer] = min(found.get(peer, len(peers)), len(peers))
    return found

"""How much of a run's tasks goes into one lease."""

from collections.abc import Iterable
from dataclasses import dataclass

from mesh.scheduler.desk import Desk, is_last_chance, is_suspect
from mesh.scheduler.durations import Estimates
from mesh.scheduler.feasibility import Need, Reason, split
from mesh.scheduler.fleet import WorkerView
from mesh.state.model import CoordinatorState, Task
from protocols.commands import TESTS_PER_COMMAND_MAX, Grant
from protocols.ids import PeerId, RunId
from protocols.manifests import Companion, Device


@dataclass(frozen=True, slots=True)
class Able:
    """Who can do some work now, and why the others can't."""

    peers: frozenset[PeerId]
    slots: list[int]
    """Of each of them, the largest first."""
    reasons: tuple[Reason, ...]

    @classmethod
    def among(cls, state: CoordinatorState, views: Iterable[WorkerView], wanted: Need, run: RunId) -> "Able":
        capable, reasons = split(state, views, wanted, run)
        slots = sorted((view.slots for view in capable), reverse=True)
        return cls(frozenset(view.peer for view in capable), slots, reasons)


@dataclass(slots=True)
class Draft:
    """A grant that may still grow."""

    run: RunId
    desk: Desk
    tasks: list[Task]
    tests: int
    devices: tuple[Device, ...] = ()
    companions: tuple[Companion, ...] = ()

    @property
    def grant(self) -> Grant:
        view = self.desk.view
        return Grant(self.run, view.peer, view.incarnation, tuple(self.tasks), self.devices, self.companions)


def choose(
    desk: Desk, ordered: list[Task], estimates: Estimates, budget: float, tests_max: int
) -> tuple[list[Task], float]:
    """Tasks from the end of `ordered` for one lease: about `budget` expected seconds, or a single task that lost a
    node; empty if that may not go to this desk now."""
    if ordered[-1].losses:
        if not fits_beside(ordered[-1], desk):
            return [], 0.0
        head, rest = cut(ordered.pop(), min(tests_max, TESTS_PER_COMMAND_MAX))
        ordered += rest
        return [head], estimates.total(head.first, head.count)
    chosen: list[Task] = []
    tests, spent = 0, 0.0
    while ordered and not ordered[-1].losses and spent < budget and tests < tests_max:
        task = ordered[-1]
        fitting = estimates.fitting(task.first, task.count, budget - spent)
        count = min(fitting, tests_max - tests)
        if count == 0 and chosen:
            break
        head, rest = cut(ordered.pop(), max(count, 1))
        ordered += rest
        chosen.append(head)
        tests += head.count
        spent += estimates.total(head.first, head.count)
    return chosen, spent


def cut(task: Task, count: int) -> tuple[Task, list[Task]]:
    """The first `count` tests of a task, and what is left of it."""
    if count >= task.count:
        return task, []
    rest = Task(task.first + count, task.count - count, task.requirement, task.losses)
    return Task(task.first, count, task.requirement, task.losses), [rest]


def fits_beside(task: Task, desk: Desk) -> bool:
    """Whether a task that lost a node may go to a worker now, in a lease of its own."""
    if not task.losses:
        return False
    if is_last_chance(task):
        return not desk.pieces and not desk.awaited
    return not (is_suspect(task) and desk.suspects)

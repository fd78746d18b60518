"""`plan`: from the state, the fleet and the estimates to everything that should be proposed now, as one value.

Called after every change, and recomputed whole: no memory between two plans, so nothing to repair after a failover.
`apply` judges each proposal again. Sizes follow guided self-scheduling (Polychronopoulos and Kuck, 1987): a grant is
the expected rest of the run over twice the capable slots, so that grants shrink as the run ends. Rejected: one test at
a time (a log entry each), equal shares at the start (the slowest worker bounds the run), moving tasks between
workers (small backlogs leave little to move).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mesh.scheduler import feasibility, leases, rank
from mesh.scheduler.desk import BACKLOG_SECONDS_MAX, Desk, is_last_chance, is_suspect
from mesh.scheduler.durations import Estimates
from mesh.scheduler.feasibility import Need, Reason
from mesh.scheduler.fleet import WorkerView, unusable
from mesh.scheduler.queue import TaskQueue
from mesh.state.model import LOSSES_MAX, CoordinatorState, Run, RunPhase, Task
from protocols.commands import TESTS_PER_COMMAND_MAX, Expire, Grant
from protocols.ids import PeerId, RunId, TestIndex

GRANT_SECONDS_MIN = 0.25
"""Expected seconds a slot of one grant, at least."""
GRANT_SECONDS_MAX = 30.0
GRANT_SECONDS_GUESSED_MAX = 1.0
"""As long as the durations of a run are only guessed."""
OBSERVED_TESTS_MIN = 16
"""Verdicts after which what a run's tests really take corrects what they were expected to take."""
SCALE_MAX = 1_000.0
"""Bound of that correction, and one over it, too."""
ABANDONS_PER_PLAN_MAX = 256


@dataclass(frozen=True, slots=True)
class Waiting:
    """Work that no worker can take now."""

    run: RunId
    requirement: str
    """The expression that is not met; empty when any worker would do."""
    tests: int
    """How many tests wait; 0: the run waits to be collected."""
    seconds: float
    """Since the submission."""
    reasons: tuple[Reason, ...]
    """One for each worker, by peer."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to propose, in this order: expires, abandons, grants. `finished` runs need their report."""

    expires: tuple[Expire, ...]
    abandons: tuple[tuple[RunId, TestIndex], ...]
    grants: tuple[Grant, ...]
    waiting: tuple[Waiting, ...]
    finished: tuple[RunId, ...]


def plan(
    state: CoordinatorState,
    fleet: Mapping[PeerId, WorkerView],
    estimates: Mapping[RunId, Sequence[float]],
    now: float,
) -> Plan:
    """`estimates` has expected seconds of each test of each collected run (best as `Estimates`: no copy is made); a run
    that it lacks is guessed. `now`: seconds since the epoch."""
    planner = _Planner(state, fleet, estimates, now)
    for run in TaskQueue(run for run in state.runs.values() if run.phase is not RunPhase.FINISHED):
        if run.phase is RunPhase.COLLECTING:
            planner.collect(run)
        elif run.phase is RunPhase.RUNNING:
            planner.share(run)
    return Plan(
        expires=leases.expired(state, fleet),
        abandons=tuple(planner.abandons),
        grants=tuple(planner.grants),
        waiting=tuple(planner.waiting),
        finished=tuple(run.id for run in state.runs.values() if run.phase is RunPhase.REPORTING),
    )


class _Planner:
    """The desks and the proposals, while one plan is made."""

    def __init__(
        self,
        state: CoordinatorState,
        fleet: Mapping[PeerId, WorkerView],
        estimates: Mapping[RunId, Sequence[float]],
        now: float,
    ) -> None:
        self.abandons: list[tuple[RunId, TestIndex]] = []
        self.grants: list[Grant] = []
        self.waiting: list[Waiting] = []
        self._state = state
        self._now = now
        self._views = [fleet[peer] for peer in sorted(fleet)]
        self._estimates = {
            run.id: _checked(estimates.get(run.id), run.tests)
            for run in state.runs.values()
            if run.phase is RunPhase.RUNNING
        }
        self._scales = {run: self._scale(state.runs[run]) for run in self._estimates}
        self._desks = {view.peer: self._desk(view) for view in self._views if not unusable(state, view)}

    def _desk(self, view: WorkerView) -> Desk:
        worker = self._state.workers[view.peer]
        desk = Desk(view, worker.losses)
        for lease_id in worker.leases:
            lease = self._state.leases[lease_id]
            desk.hold(lease.open, self._estimates.get(lease.run), self._scales.get(lease.run, 1.0))
        return desk

    def _scale(self, run: Run) -> float:
        """What the run's verdicts took over what they were expected to take."""
        if run.done < OBSERVED_TESTS_MIN:
            return 1.0
        estimates = self._estimates[run.id]
        open_tasks = [task for lease in run.leases for task in self._state.leases[lease].open]
        expected = estimates.total(0, run.tests) - sum(
            estimates.total(task.first, task.count) for tasks in (run.pending, open_tasks) for task in tasks
        )
        observed = run.microseconds / 1e6
        if expected <= 0:
            return 1.0
        return min(max(observed / expected, 1 / SCALE_MAX), SCALE_MAX)

    def collect(self, run: Run) -> None:
        """One worker collects the run, however busy it is: until then nobody knows what there is to do."""
        if run.leases:
            return
        wanted = feasibility.need((run.spec.requires, run.spec.prefers), ("", ""))
        desks = [desk for desk in self._capable(run, wanted, tests=0) if desk.has_lease_left()]
        if desks:
            self._grant(run, min(desks, key=lambda desk: rank.worker_key(desk, run, wanted)), [])

    def share(self, run: Run) -> None:
        """Grants of a running run, requirement by requirement, those that the fewest workers meet first."""
        groups: dict[int, list[Task]] = {}
        for task in run.pending:
            if task.count == 1 and task.losses >= LOSSES_MAX:
                if len(self.abandons) < ABANDONS_PER_PLAN_MAX:
                    self.abandons.append((run.id, TestIndex(task.first)))
            else:
                groups.setdefault(task.requirement, []).append(task)
        choices = []
        for requirement, tasks in sorted(groups.items()):
            wanted = feasibility.need((run.spec.requires, run.spec.prefers), run.requirements[requirement])
            desks = self._capable(run, wanted, tests=sum(task.count for task in tasks))
            if desks:
                choices.append((len(desks), requirement, wanted, desks, tasks))
        for _, _, wanted, desks, tasks in sorted(choices, key=lambda choice: choice[:2]):
            self._fill(run, wanted, desks, tasks)

    def _capable(self, run: Run, wanted: Need, tests: int) -> list[Desk]:
        """Desks of those who can do it; notes a wait when there is none."""
        capable, reasons = feasibility.split(self._state, self._views, wanted, run.id)
        if not capable:
            seconds = max(0.0, self._now - run.submitted_at)
            self.waiting.append(Waiting(run.id, str(wanted), tests, seconds, reasons))
        return [self._desks[view.peer] for view in capable]

    def _fill(self, run: Run, wanted: Need, desks: list[Desk], tasks: list[Task]) -> None:
        """Hand the tasks of one requirement to desks with room."""
        estimates, scale = self._estimates[run.id], self._scales[run.id]
        slots = sorted((desk.view.slots for desk in desks), reverse=True)[: run.spec.worker_count or None]
        rest = sum(estimates.total(task.first, task.count) for task in tasks) * scale
        share = min(max(rest / (2 * sum(slots)), GRANT_SECONDS_MIN), GRANT_SECONDS_MAX)
        tests_max = TESTS_PER_COMMAND_MAX  # a slot; fewer while durations are guessed: long tests must not queue up
        if not estimates.known and run.done < OBSERVED_TESTS_MIN:
            share = min(share, GRANT_SECONDS_GUESSED_MAX)
            tests_max = max(1, run.tests // (2 * sum(slots)))
        backlog = min(share, BACKLOG_SECONDS_MAX)
        if not any(desk.has_room(backlog) for desk in desks):
            return
        if all(is_last_chance(task) for task in tasks):
            self._isolate(run, wanted, desks, tasks)
            return
        ordered = sorted(tasks, key=lambda task: rank.task_key(task, estimates), reverse=True)
        for desk in sorted(desks, key=lambda desk: rank.worker_key(desk, run, wanted)):
            room = min(tests_max * desk.view.slots - desk.tests(), TESTS_PER_COMMAND_MAX)
            if room > 0 and desk.has_room(backlog) and self._may_join(run, desk):
                self._fill_desk(run, desk, ordered, share * desk.free_slots(backlog) / scale, room)

    def _may_join(self, run: Run, desk: Desk) -> bool:
        """Whether `spec.worker_count` lets this worker have a part of the run beside those that hold one."""
        if not run.spec.worker_count:
            return True
        holders = {self._state.leases[lease].worker for lease in run.leases}
        holders |= {grant.worker for grant in self.grants if grant.run == run.id}
        return desk.view.peer in holders or len(holders) < run.spec.worker_count

    def _fill_desk(self, run: Run, desk: Desk, ordered: list[Task], budget: float, tests_max: int) -> None:
        """Grant tasks from the end of `ordered`: about `budget` expected seconds, uncorrected; at least a test."""
        estimates = self._estimates[run.id]
        chosen: list[Task] = []
        tests, spent = 0, 0.0
        while ordered and not ordered[-1].losses and spent < budget and tests < tests_max:
            task = ordered[-1]
            fitting = estimates.fitting(task.first, task.count, budget - spent)
            count = min(fitting, tests_max - tests)
            if count == 0 and chosen:
                break
            head, rest = _cut(ordered.pop(), max(count, 1))
            ordered += rest
            chosen.append(head)
            tests += head.count
            spent += estimates.total(head.first, head.count)
        if chosen:
            self._grant(run, desk, chosen)
        while spent < budget and desk.has_lease_left():
            place = next((i for i in reversed(range(len(ordered))) if _fits_beside(ordered[i], desk)), None)
            if place is None:
                break
            head, rest = _cut(ordered[place], TESTS_PER_COMMAND_MAX)
            ordered[place : place + 1] = rest
            spent += estimates.total(head.first, head.count)
            self._grant(run, desk, [head])

    def _isolate(self, run: Run, wanted: Need, desks: list[Desk], tasks: list[Task]) -> None:
        """Tests that must have a node to themselves: one each for idle desks; if none is idle, let one become so."""
        ranked = sorted(desks, key=lambda desk: rank.worker_key(desk, run, wanted))
        waiting = list(reversed(tasks))
        for desk in ranked:
            if waiting and not desk.pieces and desk.has_lease_left() and self._may_join(run, desk):
                self._grant(run, desk, [waiting.pop()])
        if waiting and not any(desk.reserved for desk in ranked):
            min(ranked, key=lambda desk: (desk.load(), desk.view.peer)).reserved = True

    def _grant(self, run: Run, desk: Desk, tasks: list[Task]) -> None:
        self.grants.append(Grant(run.id, desk.view.peer, desk.view.incarnation, tuple(tasks)))
        desk.hold(tasks, self._estimates.get(run.id), self._scales.get(run.id, 1.0))


def _checked(values: Sequence[float] | None, tests: int) -> Estimates:
    """`values` if there is one for each test; else the guess."""
    return Estimates.of(values) if values is not None and len(values) == tests else Estimates.unknown(tests)


def _cut(task: Task, count: int) -> tuple[Task, list[Task]]:
    """The first `count` tests of a task, and what is left of it."""
    if count >= task.count:
        return task, []
    rest = Task(task.first + count, task.count - count, task.requirement, task.losses)
    return Task(task.first, count, task.requirement, task.losses), [rest]


def _fits_beside(task: Task, desk: Desk) -> bool:
    """Whether a task that lost a node may go to a worker now, in a lease of its own."""
    if not task.losses:
        return False
    if is_last_chance(task):
        return not desk.pieces
    return not (is_suspect(task) and desk.suspects)

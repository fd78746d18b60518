"""What runs have to hand out, in the order in which it should be: kept from plan to plan, since sorting 100,000 tests
anew for each would take longer than the plan.

A memory, not a state: each piece of it follows from what `plan` is given, and is keyed by that (the pending list and
its journal, the estimates), so that a plan with it is the plan without it, and a new coordinator begins with none.
Sums over what comes and goes are in whole microseconds: they come out the same in whatever order they were made.
"""

import bisect
from collections.abc import Container, Iterable, Mapping, Set
from dataclasses import dataclass, field

from mesh.scheduler import rank
from mesh.scheduler.desk import Desk
from mesh.scheduler.durations import Estimates
from mesh.scheduler.elsewhere import Elsewhere
from mesh.scheduler.fleet import WorkerView
from mesh.scheduler.portions import cut, fits_beside
from mesh.state.model import Completion, Lease, Run, Task, Worker
from mesh.state.ranges import TaskList
from protocols.ids import LeaseId, PeerId, RunId

AGAIN_MAX = 2_048
"""Tests that were bad, looked through for each worker of a plan; more wait for the next plan."""

_Entry = tuple[tuple[int, int, int], Task]


class Group:
    """The pending tasks of one run and requirement; the one to go first is the last."""

    __slots__ = ("_failed_on", "_tried", "again", "fresh", "lossy", "micros", "tests")

    def __init__(self, failed_on: Container[int]) -> None:
        self._failed_on = failed_on
        """Tests that were bad already."""
        self._tried: set[int] = set()
        """Those in `again`: a test that comes in meanwhile may have been bad since."""
        self.fresh: list[_Entry] = []
        self.again: list[_Entry] = []
        """Tests that were bad, and are tried again, elsewhere if that can be."""
        self.lossy: list[_Entry] = []
        """Those that lost a node: only some workers may have them, so they are looked through."""
        self.tests = 0
        self.micros = 0
        """Expected, of all of them."""

    def add(self, task: Task, estimates: Estimates) -> None:
        self._count(task, estimates, 1)
        bisect.insort(self._place(task), _entry(task, estimates))

    def remove(self, task: Task, estimates: Estimates) -> None:
        self._count(task, estimates, -1)
        entries = self.lossy if task.losses else self.again if self._is_again(task) else self.fresh
        if entries is self.again:
            self._tried.discard(task.first)
        place = bisect.bisect_left(entries, _entry(task, estimates))
        assert entries[place][1] == task, "what leaves the pending tasks was among them"
        del entries[place]

    def extend(self, tasks: Iterable[Task], estimates: Estimates) -> None:
        for task in tasks:
            self._count(task, estimates, 1)
            self._place(task).append(_entry(task, estimates))
        for entries in (self.fresh, self.again, self.lossy):
            entries.sort()

    def _place(self, task: Task) -> list[_Entry]:
        """Where a task that comes in belongs."""
        if task.losses:
            return self.lossy
        if task.count == 1 and task.first in self._failed_on:
            self._tried.add(task.first)
            return self.again
        return self.fresh

    def _is_again(self, task: Task) -> bool:
        return task.count == 1 and task.first in self._tried

    def _count(self, task: Task, estimates: Estimates, sign: int) -> None:
        self.tests += sign * task.count
        self.micros += sign * micros(task, estimates)


class Supply:
    """A group, while one plan takes from it; the group itself stays as it is."""

    __slots__ = ("_aside", "_elsewhere", "_fresh", "_next", "_rest", "again", "lossy", "tests")

    def __init__(self, group: Group, elsewhere: Elsewhere) -> None:
        self._elsewhere = elsewhere
        self._fresh = group.fresh
        self._next = len(group.fresh) - 1
        self._rest: list[Task] = []
        self._aside: list[Task] = []
        """Passed over for workers that have one that they contend with."""
        self.lossy = [task for _, task in group.lossy]
        self.again = [task for _, task in group.again[-AGAIN_MAX:]]
        self.tests = group.tests

    def first(self) -> Task | None:
        """The next one that never lost a node."""
        if self._rest:
            return self._rest[-1]
        return self._fresh[self._next][1] if self._next >= 0 else None

    def take(self, count: int) -> Task:
        """So many tests of the next one."""
        task = self.first()
        assert task is not None, "there is one"
        if self._rest:
            self._rest.pop()
        else:
            self._next -= 1
        head, rest = cut(task, count)
        self._rest += rest
        self.tests -= head.count
        return head

    def suits(self, task: Task, desk: Desk) -> bool:
        """Whether a task that lost a node may go there now."""
        return fits_beside(task, desk) and not self._elsewhere.shuns(task, desk.view.peer)

    def choose(self, desk: Desk, estimates: Estimates, budget: float, tests_max: int) -> tuple[list[Task], float]:
        """Tasks for a worker that never lost a node, of about `budget` expected seconds, at least a test; and their
        seconds. Those that were bad elsewhere come first. Two that contend only if a slot would be idle otherwise."""
        chosen = self._take_again(desk.view.peer, estimates, budget, tests_max)
        tests, spent = len(chosen), sum(estimates[task.first] for task in chosen)
        contending, has_one = estimates.contending, desk.contenders > 0
        if self._aside and not has_one:
            self._rest += reversed(self._aside)
            self._aside.clear()
        while spent < budget and tests < tests_max and (task := self.first()) is not None:
            if contending and task.first in contending:
                if has_one:
                    self._pass_over()
                    continue
                has_one = True
            count = min(estimates.fitting(task.first, task.count, budget - spent), tests_max - tests)
            if count == 0 and chosen:
                break
            chosen.append(self.take(max(count, 1)))
            tests += chosen[-1].count
            spent += estimates.total(chosen[-1].first, chosen[-1].count)
        if self._aside and not chosen and desk.tests() < desk.view.slots:
            chosen.append(self._aside.pop(0))
            self.tests -= chosen[0].count
            spent = estimates.total(chosen[0].first, chosen[0].count)
        return chosen, spent

    def _pass_over(self) -> None:
        task = self.first()
        assert task is not None, "there is one"
        self._aside.append(self.take(task.count))
        self.tests += task.count

    def _take_again(self, peer: PeerId, estimates: Estimates, budget: float, tests_max: int) -> list[Task]:
        chosen: list[Task] = []
        spent = 0.0
        for place in reversed(range(len(self.again))):
            task = self.again[place]
            seconds = estimates[task.first]
            if len(chosen) >= tests_max or (chosen and spent + seconds > budget):
                break
            if not self._elsewhere.shuns(task, peer):
                del self.again[place]
                chosen.append(task)
                spent += seconds
        self.tests -= len(chosen)
        return chosen

    def take_lossy(self, place: int, count: int) -> Task:
        head, rest = cut(self.lossy[place], count)
        self.lossy[place : place + 1] = rest
        self.tests -= head.count
        return head


class _Index:
    """The groups of one run, as of a version of its pending list."""

    def __init__(self, run: Run, estimates: Estimates) -> None:
        self.pending = pending = run.pending
        self.failed_on = run.failed_on
        self.estimates = estimates
        self.groups = group_up(pending, estimates, run.failed_on)
        self.version = pending.version if isinstance(pending, TaskList) else 0

    def follow(self) -> bool:
        """Catch up with the list; False if that can't be done."""
        if not isinstance(self.pending, TaskList):
            return False
        changes = self.pending.since(self.version)
        if changes is None:
            return False
        for added, task in changes:
            group = self.groups.setdefault(task.requirement, Group(self.failed_on))
            (group.add if added else group.remove)(task, self.estimates)
            if not group.tests:
                del self.groups[task.requirement]
        self.version = self.pending.version
        return True


@dataclass(slots=True)
class _Done:
    """What the tests of a run that have a verdict were expected to take, as of some of its completions."""

    chunks: list[Completion]
    estimates: Estimates
    seen: int = 0
    seconds: float = 0.0
    here: float = 0.0
    """The same, on the workers that ran them."""


Lengths = tuple[Estimates, float, bool]
"""How long a run's tests are: as expected, what corrects that, and whether it is a mere guess."""
LengthsOf = Mapping[RunId, Lengths]


@dataclass(slots=True)
class KeptDesk:
    """A desk with what its worker's leases hold, and what it was made of."""

    desk: Desk
    worker: Worker
    ids: list[LeaseId]
    hosted: list[LeaseId]
    """Leases of which it is a companion."""
    leases: list[tuple[Lease, list[Task]]]
    """With what was open in each: a change makes another list."""
    taken: list[tuple[RunId, float]] = field(default_factory=list)
    """Slots, lease by lease."""
    fat: list[LeaseId] = field(default_factory=list)
    queues: list[LeaseId] = field(default_factory=list)
    """Leases of more tests than the worker has slots; those of much work are fat."""

    def holds(self, worker: Worker, view: WorkerView, changed: Set[RunId]) -> bool:
        """Whether it would be made the same again; `changed`: runs whose lengths are no longer what they were."""
        desk = self.desk
        if desk.changed or self.worker is not worker or self.ids != worker.leases or self.hosted != worker.hosted:
            return False
        if desk.losses != worker.losses or desk.view.slots != view.slots:
            return False
        for lease, tasks in self.leases:
            if lease.open is not tasks:
                return False
        return not changed or all(run not in changed for run, _ in self.taken)


@dataclass(slots=True)
class Memory:
    """What one plan leaves for the next."""

    desks: dict[PeerId, KeptDesk] = field(default_factory=dict)
    """Of the workers that the newest plan could use."""
    _lengths: dict[RunId, Lengths] = field(default_factory=dict)

    _indexes: dict[RunId, _Index] = field(default_factory=dict)
    _done: dict[RunId, _Done] = field(default_factory=dict)

    def learn(self, lengths: dict[RunId, Lengths]) -> frozenset[RunId]:
        """The runs of which these differ from the last ones."""
        before, self._lengths = self._lengths, lengths
        runs = before.keys() | lengths.keys()
        return frozenset(run for run in runs if before.get(run) != lengths.get(run))

    def groups(self, run: Run, estimates: Estimates) -> dict[int, Group]:
        """The run's pending tasks by requirement, in no order."""
        index = self._indexes.get(run.id)
        if index is None or index.pending is not run.pending or index.estimates is not estimates or not index.follow():
            index = self._indexes[run.id] = _Index(run, estimates)
        return index.groups

    def done(self, run: Run, estimates: Estimates) -> tuple[float, float]:
        """Expected seconds of the run's tests that have a verdict, added up in the order of their verdicts: on a common
        worker, and on those that ran them."""
        known = self._done.get(run.id)
        if known is None or known.chunks is not run.chunks or known.estimates is not estimates:
            known = self._done[run.id] = _Done(run.chunks, estimates)
        while known.seen < len(run.chunks):
            completion = run.chunks[known.seen]
            factor = estimates.factor(completion.worker)
            for test in completion.tests:
                known.seconds += estimates.total(test, 1)
                known.here += estimates.total(test, 1) * factor
            known.seen += 1
        return known.seconds, known.here

    def forget(self, runs: Iterable[RunId]) -> None:
        """Keep what is of these alone."""
        kept = set(runs)
        for of_runs in (self._indexes, self._done):
            for run in [run for run in of_runs if run not in kept]:
                del of_runs[run]


def micros(task: Task, estimates: Estimates) -> int:
    return round(estimates.total(task.first, task.count) * 1e6)


def group_up(tasks: Iterable[Task], estimates: Estimates, failed_on: Container[int]) -> dict[int, Group]:
    """By requirement; `failed_on` has the tests that were bad already."""
    by_requirement: dict[int, list[Task]] = {}
    for task in tasks:
        by_requirement.setdefault(task.requirement, []).append(task)
    groups = {}
    for requirement, members in by_requirement.items():
        groups[requirement] = Group(failed_on)
        groups[requirement].extend(members, estimates)
    return groups


def _entry(task: Task, estimates: Estimates) -> _Entry:
    losses, length, first = rank.task_key(task, estimates)
    return (-losses, -length, -first), task

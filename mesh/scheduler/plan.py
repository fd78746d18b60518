"""`plan`: from the state, the fleet and the estimates to everything that should be proposed now, as one value.

Called after every change, and recomputed whole: no memory between two plans, so nothing to repair after a failover.
`apply` judges each proposal again. Runs take turns as the `TaskQueue` has it; where more than one wants workers, a turn
is one slot's worth, and small. Sizes follow guided self-scheduling (Polychronopoulos and Kuck, 1987): a grant is
the expected rest of the run over twice the capable slots, so that grants shrink as the run ends. Rejected: one test at
a time (a log entry each), equal shares at the start (the slowest worker bounds the run), moving tasks between
workers (small backlogs leave little to move).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from mesh.scheduler import desks, feasibility, hedging, leases, preemption, rank, shelf, upstream
from mesh.scheduler.desk import BACKLOG_SECONDS_MAX, Desk, is_last_chance
from mesh.scheduler.durations import Estimates, correction
from mesh.scheduler.elsewhere import Elsewhere
from mesh.scheduler.feasibility import Need, Reason
from mesh.scheduler.fleet import WorkerView, unusable
from mesh.scheduler.gangs import Gangs
from mesh.scheduler.portions import Able, Draft, choose, fits_beside
from mesh.scheduler.preemption import Recall, Unmet
from mesh.scheduler.proposal import Plan
from mesh.scheduler.queue import Claim, TaskQueue, band
from mesh.scheduler.ready import ready_tasks
from mesh.scheduler.supply import Group, KeptDesk, Lengths, Memory, Supply, group_up
from mesh.scheduler.waiting import Skipped, Waiting, holders_of
from mesh.state import ranges
from mesh.state.model import LOSSES_MAX, CoordinatorState, Run, RunPhase, Task
from protocols.commands import TESTS_PER_COMMAND_MAX, Cancel, Grant, Hedge
from protocols.ids import LeaseId, PeerId, RunId, TestIndex

GRANT_SECONDS_MIN = 0.25
"""Expected seconds a slot of one grant, at least."""
GRANT_SECONDS_MAX = 30.0
GRANT_SECONDS_SHARED_MAX = 1.0
"""As long as another run waits: whoever comes next does not wait for more."""
GRANT_SECONDS_GUESSED_MAX = 1.0
"""As long as the durations of a run are only guessed."""
OBSERVED_TESTS_MIN = 16
"""Verdicts after which what a run's tests really take corrects what they were expected to take."""
HELD_SECONDS_MAX = 2.0
"""Of a lease that holds something: so long do others wait for it, when its tests are not longer."""
DEADLINE_SLACK = 2.0
"""A run is urgent once it needs this part of what its workers can do until it is due: one over this."""


def plan(
    state: CoordinatorState,
    fleet: Mapping[PeerId, WorkerView],
    estimates: Mapping[RunId, Sequence[float]],
    now: float,
    memory: Memory | None = None,
) -> Plan:
    """`estimates` has expected seconds of each test of each collected run (best as `Estimates`: no copy is made); a run
    that it lacks is guessed. `now`: seconds since the epoch. `memory`, of the plan before, makes it faster, and nothing
    else."""
    planner = _Planner(state, fleet, estimates, now, memory if memory is not None else Memory())
    for run in planner.uncollected():
        planner.collect(run)
    queue = TaskQueue(planner.claims)
    while (claim := queue.next()) is not None:
        slots = planner.serve(claim)
        if slots is None:
            queue.leave(claim)
        else:
            queue.serve(claim, slots)
    hedges, recalls = planner.hedges(preemption.recalls(state, planner.claims, planner.unmet, planner.fat))
    return Plan(
        expires=leases.expired(state, fleet),
        abandons=tuple(planner.abandons),
        grants=planner.grants(),
        waiting=tuple(planner.waiting),
        finished=tuple(run.id for run in state.runs.values() if run.phase is RunPhase.REPORTING),
        cancels=(*planner.cancels, *upstream.late(state, now)),
        recalls=recalls,
        skips=tuple(planner.skips),
        claims=tuple(planner.claims),
        hedges=hedges,
    )


class _Planner:
    """The desks and the proposals, while one plan is made."""

    def __init__(
        self,
        state: CoordinatorState,
        fleet: Mapping[PeerId, WorkerView],
        estimates: Mapping[RunId, Sequence[float]],
        now: float,
        memory: Memory,
    ) -> None:
        self._memory = memory
        self.abandons: list[tuple[RunId, TestIndex]] = []
        self.cancels: list[Cancel] = []
        self.skips: list[Skipped] = []
        self.fat: set[LeaseId] = set()
        self.waiting: list[Waiting] = []
        self._state = state
        self._now = now
        self._views = [fleet[peer] for peer in sorted(fleet)]
        self._estimates = {
            run.id: Estimates.checked(estimates.get(run.id), run.tests)
            for run in state.runs.values()
            if run.phase is RunPhase.RUNNING
        }
        self._groups = {run: memory.groups(state.runs[run], known) for run, known in self._estimates.items()}
        memory.forget(self._estimates)
        self._scales = {run: self._scale(state.runs[run]) for run in self._estimates}
        self._lengths: dict[RunId, Lengths] = {
            run: (known, self._scales[run], not known.known and state.runs[run].done < OBSERVED_TESTS_MIN)
            for run, known in self._estimates.items()
        }
        self._changed = memory.learn(self._lengths)
        self._kept: dict[PeerId, KeptDesk] = {}
        self._held: dict[RunId, float] = {}
        self._locks = set(state.locks)
        """Held by leases, given in this plan, or kept for someone who waits for another one, too."""
        self._desks = {view.peer: self._desk(view) for view in self._views if not unusable(state, view)}
        memory.desks = self._kept
        self._drafts: list[Draft] = []
        self._draft_of: dict[tuple[RunId, PeerId], Draft] = {}
        self._turns: dict[RunId, Iterator[float]] = {}
        self.claims = [
            self._claim(run) for run in state.runs.values() if run.phase is RunPhase.RUNNING and run.pending
        ]  # fmt: skip
        self._shared = len(self.claims) > 1
        self._top = max((band(claim.priority) for claim in self.claims), default=0)
        self._roomy = list(self._desks.values())
        usable = (desk.view for desk in self._roomy)
        self._claimed, self.unmet = preemption.queued(state, usable, self._claim, self._top)
        """Worker -> the band of a run that waits for it; and what waits."""
        self._able: dict[Need, Able] = {}
        self._shunned = frozenset(run for view in self._views for run in view.unfit)
        waiting = ((state.runs[claim.run], one) for claim in self.claims for one in self._groups[claim.run])
        self._sought = rank.sought(self._able_to(run, feasibility.need_of(run, one)).peers for run, one in waiting)

    def uncollected(self) -> list[Run]:
        """Runs that wait to be collected, the first one first."""
        runs = [run for run in self._state.runs.values() if run.phase is RunPhase.COLLECTING and self._may_start(run)]
        return sorted(runs, key=lambda run: (-self._claim(run).aged(), -run.spec.priority, run.id))

    def _may_start(self, run: Run) -> bool:
        """Whether the runs that it comes after have ended, and well."""
        hindrance = upstream.hindrance(self._state, run, self._now)
        if isinstance(hindrance, Cancel):
            self.cancels.append(hindrance)
        elif hindrance is not None:
            self.waiting.append(hindrance)
        return hindrance is None

    def _claim(self, run: Run) -> Claim:
        spec = run.spec
        age = max(0.0, self._now - run.submitted_at)
        due = run.submitted_at + spec.deadline if spec.deadline and self._is_urgent(run) else None
        held = self._held.get(run.id, 0.0)
        return Claim(run.id, spec.submitter, spec.project, spec.priority, spec.share, age, held, due)

    def _is_urgent(self, run: Run) -> bool:
        """Whether it needs more than half of what its workers can do until it is due."""
        if run.phase is not RunPhase.RUNNING:
            return False
        wanted = feasibility.need_of(run)
        capable, _ = feasibility.split(self._state, self._views, wanted, run.id)
        needed = self._rest(run) * self._scales[run.id] / max(1, sum(view.slots for view in capable))
        return needed * DEADLINE_SLACK >= run.submitted_at + run.spec.deadline - self._now

    def _desk(self, view: WorkerView) -> Desk:
        worker = self._state.workers[view.peer]
        kept = self._memory.desks.get(view.peer)
        if kept is None or not kept.holds(worker, view, self._changed):
            kept = desks.made(self._state, view, worker, self._lengths)
        self._kept[view.peer], desk, held = kept, kept.desk, self._held
        desk.stuck, desk.soon = hedging.turnover(self._state, view, self._lengths) if view.running else (0, 0)
        desk.view = view
        for run, taken in kept.taken:
            held[run] = held.get(run, 0.0) + taken
        if desk.stuck or kept.fat:
            self.fat.update(kept.queues if desk.stuck else kept.fat)
        return desk

    def _scale(self, run: Run) -> float:
        """What the run's verdicts took over what they were expected to take."""
        if run.done < OBSERVED_TESTS_MIN:
            return 1.0
        estimates = self._estimates[run.id]
        return correction(run.microseconds / 1e6, self._memory.done(run, estimates)[1])

    def _rest(self, run: Run) -> float:
        """Expected seconds of what has no verdict, uncorrected."""
        estimates = self._estimates[run.id]
        return max(0.0, estimates.total(0, run.tests) - self._memory.done(run, estimates)[0])

    def collect(self, run: Run) -> None:
        """One worker collects the run, however busy it is: until then nobody knows what there is to do."""
        if run.leases:
            return
        wanted = feasibility.need_of(run)
        able = self._capable(run, wanted, tests=0)
        desks = [desk for peer, desk in self._desks.items() if peer in able.peers and desk.has_lease_left()]
        if desks:
            self._grant(run, self._ranked(desks, run, wanted)[0], [])

    def serve(self, claim: Claim) -> float | None:
        """Grant something of a run; how many slots it takes. None: no more of it can be granted now."""
        if claim.run not in self._turns:
            self._turns[claim.run] = self._share(self._state.runs[claim.run], claim)
        return next(self._turns[claim.run], None)

    def _share(self, run: Run, claim: Claim) -> Iterator[float]:
        """Grants of a running run, requirement by requirement: those of the highest priority first, of these the ones
        that hold something, which others may wait for, and then those that the fewest workers meet."""
        choices = []
        for requirement, group in sorted(self._ready(run).items()):
            wanted = feasibility.need_of(run, requirement)
            able = self._capable(run, wanted, tests=group.tests)
            takes = wanted.takes
            if len(able.peers) >= takes.hosts:
                key = (-takes.priority, not takes.held, -takes.hosts, len(able.peers), requirement)
                choices.append((key, wanted, able, group))
        for _, wanted, able, group in sorted(choices, key=lambda choice: choice[0]):
            held = self._fill_held if wanted.takes.hosts == 1 else self._fill_gangs
            yield from (held if wanted.takes.held else self._fill)(run, claim, wanted, able, group)

    def _ready(self, run: Run) -> dict[int, Group]:
        """What could be run now, by requirement; as it is remembered, unless something has to be left out."""
        groups = self._groups[run.id]
        lost = any(task.count == 1 and task.losses >= LOSSES_MAX for one in groups.values() for _, task in one.lossy)
        if run.barriers is None and not lost:
            return groups
        return group_up(ready_tasks(run, self.skips, self.abandons), self._estimates[run.id], run.failed_on)

    def _capable(self, run: Run, wanted: Need, tests: int) -> Able:
        """Those who can do it; notes a wait when there are too few."""
        able = self._able_to(run, wanted)
        if len(able.peers) < wanted.takes.hosts:
            age, there = max(0.0, self._now - run.submitted_at), len(able.peers)
            self.waiting.append(Waiting(run.id, str(wanted), tests, age, able.reasons, wanted, able=there))
        return able

    def _able_to(self, run: Run, wanted: Need) -> Able:
        shunned = run.id in self._shunned
        able = None if shunned else self._able.get(wanted)
        if able is None:
            able = Able.among(self._state, self._views, wanted, run.id)
            if not shunned:
                self._able[wanted] = able
        return able

    def _ranked(self, desks: Iterable[Desk], run: Run, wanted: Need) -> list[Desk]:
        return rank.ranked(desks, run, wanted, self._sought)

    def _with_room(self, able: Able, claim: Claim) -> list[Desk]:
        """Desks where somebody could get something, and no run of a higher band waits for it."""
        self._roomy = [desk for desk in self._roomy if desk.has_room(BACKLOG_SECONDS_MAX)]
        band = claim.aged(self._top)
        return [
            desk for desk in self._roomy
            if desk.view.peer in able.peers and self._claimed.get(desk.view.peer, band) <= band
        ]  # fmt: skip

    def _open_to(self, able: Able, claim: Claim) -> list[Desk]:
        """Desks of those who can do it, but those that a run of a higher band waits for."""
        band = claim.aged(self._top)
        return [self._desks[peer] for peer in sorted(able.peers) if self._claimed.get(peer, band) <= band]

    def _fill(self, run: Run, claim: Claim, wanted: Need, able: Able, group: Group) -> Iterator[float]:
        """Hand the tasks of one requirement to desks with room: all that a desk gets at once, or, while runs share the
        workers, one slot's worth after another."""
        estimates, scale = self._estimates[run.id], self._scales[run.id]
        desks = self._with_room(able, claim)
        fleet = sum(able.slots[: run.spec.worker_count or None])
        rest = group.micros / 1e6 * scale
        share = min(max(rest / (2 * fleet), GRANT_SECONDS_MIN), GRANT_SECONDS_MAX)
        tests_max = TESTS_PER_COMMAND_MAX  # a slot; fewer while durations are guessed: long tests must not queue up
        if self._shared:
            share = min(share, GRANT_SECONDS_SHARED_MAX)
        if not estimates.known and run.done < OBSERVED_TESTS_MIN:
            share = min(share, GRANT_SECONDS_GUESSED_MAX)
            tests_max = max(1, run.tests // (2 * fleet))
        # One measure for all who share, or a short run finds no room beside a long one.
        backlog = BACKLOG_SECONDS_MAX if self._shared else min(share, BACKLOG_SECONDS_MAX)
        free = desks if backlog >= BACKLOG_SECONDS_MAX else [desk for desk in desks if desk.has_room(backlog)]
        others = self._open_to(able, claim) if run.failed_on else []
        supply = Supply(group, Elsewhere(run, others, self._may_join))
        if free and supply.first() is None and not supply.again and all(is_last_chance(task) for task in supply.lossy):
            yield from self._isolate(run, wanted, desks, sorted(supply.lossy, key=lambda task: task.first))
            return
        for desk in self._ranked(free, run, wanted):
            turns = desk.view.slots if self._shared else 1
            while turns and supply.tests and desk.has_room(backlog) and self._may_join(run, desk):
                turns -= 1
                room = min(desk.room_for(run.id, tests_max), TESTS_PER_COMMAND_MAX, desk.single_tests())
                slots, room = (1, min(room, tests_max)) if self._shared else (desk.free_slots(backlog), room)
                taken = self._fill_desk(run, desk, supply, share * slots / scale, room) if room > 0 else 0.0
                if not taken:
                    break
                yield taken
        if supply.tests and not any(
            desk.has_room(backlog) and desk.single_tests() and desk.room_for(run.id, tests_max) > 0 for desk in free
        ):
            self._wants_more(run, claim, able, desks, supply.tests)

    def _wants_more(self, run: Run, claim: Claim, able: Able, desks: list[Desk], tests: int) -> None:
        """The run goes on waiting, and keeps those of lower bands off the workers that it waits for, even off what it
        would not have itself: what they give back for it must not go to them again."""
        peers = able.peers
        if run.spec.worker_count:
            peers = frozenset(peer for peer in peers if self._may_join(run, self._desks[peer]))
        self.unmet.append(Unmet(claim, tests, peers))
        band = claim.aged(self._top)
        for desk in desks:
            if desk.view.peer in peers:
                self._claimed[desk.view.peer] = max(band, self._claimed.get(desk.view.peer, band))

    def _fill_held(self, run: Run, claim: Claim, wanted: Need, able: Able, group: Group) -> Iterator[float]:
        """Hand tasks whose tests hold something to desks that have it: leases of tests that run one after another."""
        estimates, scale, takes = self._estimates[run.id], self._scales[run.id], wanted.takes
        desks = self._open_to(able, claim)
        lanes = 1 if takes.locks else sum(able.slots[: run.spec.worker_count or None])
        rest = group.micros / 1e6 * scale
        share = min(max(rest / (2 * lanes), GRANT_SECONDS_MIN), HELD_SECONDS_MAX)
        guessed = not estimates.known and run.done < OBSERVED_TESTS_MIN
        tests_max = max(1, run.tests // (2 * lanes)) if guessed else TESTS_PER_COMMAND_MAX
        ordered = [task for _, task in (*group.lossy, *group.fresh, *group.again)]
        elsewhere = Elsewhere(run, desks, self._may_join)
        ranked = self._ranked(desks, run, wanted)
        short = []
        for desk in ranked:
            ordered, shunned = elsewhere.split(ordered, desk.view.peer)
            while ordered and self._locks.isdisjoint(takes.locks) and self._may_join(run, desk):
                missing = "has to wait" if desk.kept else desk.shelf.missing(desk.view, takes, wanted.requires)
                if missing:
                    short.append((desk, missing))
                if missing or not desk.has_room(BACKLOG_SECONDS_MAX):
                    break
                if not desk.can_empty(shelf.slots_of(takes, desk.view)):
                    short.append((desk, "has no slots left for tests that take more than one"))
                    break
                chosen, _ = choose(desk, ordered, estimates, share / scale, tests_max)
                if not chosen:
                    break
                yield self._grant_held(run, desk, chosen, wanted)
            ordered += shunned
        if ordered:
            self._await(run, wanted, sum(task.count for task in ordered), short)
            peers = frozenset(desk.view.peer for desk in desks if self._may_join(run, desk))
            if not short and self._locks.isdisjoint(takes.locks):
                self.unmet.append(Unmet(claim, sum(task.count for task in ordered), peers))
            self._locks |= set(takes.locks)

    def _fill_gangs(self, run: Run, claim: Claim, wanted: Need, able: Able, group: Group) -> Iterator[float]:
        """Give tests that need several hosts at once all of them, one test a lease."""
        ranked = self._ranked(self._open_to(able, claim), run, wanted)
        gangs = Gangs(run, wanted, ranked, group, self._lengths[run.id], self._may_join)
        locks = wanted.takes.locks
        while self._locks.isdisjoint(locks) and (placed := gangs.place()) is not None:
            self._drafts.append(placed[0])
            self._locks |= set(locks)
            yield placed[1]
        if gangs.tests:
            self._note(run, wanted, gangs.tests, gangs.reasons)
            if gangs.awaited:
                peers = frozenset(desk.view.peer for desk in gangs.awaited)
                self.unmet.append(Unmet(claim, len(peers), peers))
            self._locks |= set(locks)

    def _note(self, run: Run, wanted: Need, tests: int, reasons: tuple[Reason, ...]) -> bool:
        """Say what tests wait for that others hold; whether that is a lock."""
        holders = holders_of(self._state, wanted.takes.locks)
        if holders or reasons:
            seconds = max(0.0, self._now - run.submitted_at)
            self.waiting.append(Waiting(run.id, str(wanted), tests, seconds, reasons, None, holders))
        return bool(holders)

    def _await(self, run: Run, wanted: Need, tests: int, short: list[tuple[Desk, str]]) -> None:
        """Say what tests wait for that others hold, and keep it for them where it comes free first."""
        reasons = tuple(Reason(desk.view.peer, desk.view.name, text) for desk, text in short)
        holders = self._note(run, wanted, tests, reasons)
        if not holders and short and not any(desk.kept or desk.reserved for desk, _ in short):
            desk = min((desk for desk, _ in short), key=lambda desk: (desk.load(), desk.view.peer))
            desk.keep()
            desk.reserved = not desk.can_empty(shelf.slots_of(wanted.takes, desk.view))

    def _grant_held(self, run: Run, desk: Desk, tasks: list[Task], wanted: Need) -> float:
        devices = desk.shelf.choose(desk.view, wanted.takes, wanted.requires)
        assert devices is not None, "nothing is missing on this desk"
        desk.shelf.take(desk.view, wanted.takes, devices)
        self._locks |= set(wanted.takes.locks)
        self._drafts.append(Draft(run.id, desk, list(tasks), ranges.size(tasks), devices))
        return desk.hold_serially(tasks, self._estimates.get(run.id), self._scales.get(run.id, 1.0))

    def _may_join(self, run: Run, desk: Desk) -> bool:
        """Whether `spec.worker_count` lets this worker have a part of the run beside those that hold one."""
        if not run.spec.worker_count:
            return True
        holders = {self._state.leases[lease].worker for lease in run.leases}
        holders |= {draft.desk.view.peer for draft in self._drafts if draft.run == run.id}
        return desk.view.peer in holders or len(holders) < run.spec.worker_count

    def _fill_desk(self, run: Run, desk: Desk, supply: Supply, budget: float, tests_max: int) -> float:
        """Grant of the supply: about `budget` seconds on this worker, uncorrected; at least a test. How many slots that
        takes."""
        estimates, taken = self._estimates[run.id], 0.0
        budget /= estimates.factor(desk.view.peer)
        chosen, spent = supply.choose(desk, estimates, budget, tests_max)
        if chosen:
            taken += self._grant(run, desk, chosen, joins=self._shared)
        while spent < budget and desk.has_lease_left():
            place = next((i for i in reversed(range(len(supply.lossy))) if supply.suits(supply.lossy[i], desk)), None)
            room = desk.single_tests()
            if place is None or not room:
                break
            head = supply.take_lossy(place, room)
            spent += estimates.total(head.first, head.count)
            taken += self._grant(run, desk, [head])
        return taken

    def _isolate(self, run: Run, wanted: Need, desks: list[Desk], tasks: list[Task]) -> Iterator[float]:
        """Tests that must have a node to themselves: one each for idle desks; if none is idle, let one become so."""
        ranked = self._ranked(desks, run, wanted)
        waiting = list(reversed(tasks))
        for desk in ranked:
            if waiting and fits_beside(waiting[-1], desk) and desk.has_lease_left() and self._may_join(run, desk):
                yield self._grant(run, desk, [waiting.pop()])
        if waiting and not any(desk.reserved for desk in ranked):
            min(ranked, key=lambda desk: (desk.load(), desk.view.peer)).reserve()

    def _grant(self, run: Run, desk: Desk, tasks: list[Task], joins: bool = False) -> float:
        """A lease, or with `joins` more of the one that the plan has already for this run and desk."""
        size = ranges.size(tasks)
        draft = self._draft_of.get((run.id, desk.view.peer)) if joins else None
        joins = draft is not None and draft.tests + size <= TESTS_PER_COMMAND_MAX
        if draft is not None and joins:
            draft.tasks += tasks
            draft.tests += size
        else:
            draft = Draft(run.id, desk, list(tasks), size)
            self._drafts.append(draft)
            if not any(task.losses for task in tasks):
                self._draft_of[run.id, desk.view.peer] = draft
        return desks.hold(desk, self._lengths, run.id, tasks, joins)

    def hedges(self, recalls: Sequence[Recall]) -> tuple[tuple[Hedge, ...], tuple[Recall, ...]]:
        able, may = self._able_to, self._may_join
        return hedging.decide(self._state, self._views, self._roomy, self._lengths, able, may, recalls, self.fat)

    def grants(self) -> tuple[Grant, ...]:
        """All of them, in the order in which they were begun."""
        return tuple(draft.grant for draft in self._drafts)

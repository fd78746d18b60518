"""Where runs would go, and how long they would take: `plan()` itself, on a copy of the state, in a time of its own.

Grants, ends and verdicts are applied as the log would have them. A worker here runs the tests of its leases in the
order of their grants, each for as long as it is expected to take, and tells of those that ended a moment later,
together. Other runs go on beside it, as far as they are collected; nothing new comes, nobody dies. Not in it:
collection, the fetching of bundles, the report.

A generator of small steps, so that a coordinator can do its work between two, and stop when it took too long.
Rejected: a formula (the sum over the slots): it knows no requirements, locks, shares or other runs.
"""

import copy
import dataclasses
import heapq
import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from mesh.scheduler import feasibility, shelf
from mesh.scheduler.desk import BACKLOG_SECONDS_MAX, Desk
from mesh.scheduler.durations import Estimates
from mesh.scheduler.fleet import WorkerView, unusable
from mesh.scheduler.outlook import Outlook
from mesh.scheduler.plan import plan
from mesh.scheduler.preemption import Recall
from mesh.scheduler.proposal import Plan
from mesh.scheduler.supply import Memory
from mesh.scheduler.tasks import shard
from mesh.scheduler.waiting import Waiting
from mesh.state import ranges
from mesh.state.apply import apply
from mesh.state.model import CoordinatorState, Lease, Run, RunPhase
from mesh.state.results import Applied, Rejected
from protocols.commands import Abandon, Collected, Command, Complete, Finish, Preempt, Return, Skip, Submit
from protocols.errors import UsageError
from protocols.ids import Cid, LeaseId, PeerId, RunId, TestIndex
from protocols.manifests import Manifest, RunSpec

REPORT_SECONDS = 0.2
"""After which a worker tells of tests that ended."""
PLANS_MAX = 20_000
"""Of one rehearsal."""
ROUNDS_MAX = 64
"""Plans at one moment: each may open what the one before it could not."""
NOWHERE = Cid("bafkqaaa")
"""Stands for content that is never made."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A run that might be submitted."""

    spec: RunSpec
    manifest: Manifest
    estimates: Estimates


@dataclass(slots=True)
class Share:
    """What one worker does of the runs that were asked for. Times in seconds from now."""

    peer: PeerId
    name: str
    slots: int
    tests: int = 0
    seconds: float = 0.0
    """Of its slots, together."""
    first: float = 0.0
    last: float = 0.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it went."""

    shares: tuple[Share, ...]
    """Of every worker that could be given something, by peer."""
    tests: int
    done: int
    makespan: float
    """Seconds from now to the end of the last test."""
    bound: float
    """No schedule of these tests on these workers is shorter, even if nothing else ran."""
    waiting: tuple[Waiting, ...]
    """What found no place, and what would help."""
    is_cut: bool = False
    """It was stopped before its end: the rest of the makespan is work over slots."""


@dataclass(slots=True)
class _Work:
    """A lease in a worker's hands."""

    lease: Lease
    seconds: Sequence[float]
    """Of each test of its run."""
    factor: float
    """How many times as long they take on this worker."""
    slots: int
    """That one of its tests takes."""
    is_asked: bool
    todo: deque[int]
    """Tests that have not started."""
    running: int = 0

    def takes(self, test: int) -> float:
        return self.seconds[test] * self.factor

    @property
    def may_start(self) -> bool:
        return bool(self.todo) and not (self.running and self.lease.needs.held)


@dataclass(slots=True)
class _Node:
    view: WorkerView
    free: int
    queue: list[_Work] = field(default_factory=list)
    """Leases with tests that have not started, in the order of their grants."""
    held: float = 0.0
    """Seconds of all tests that it holds, each counted as a backlog at most."""


class Rehearsal:
    """`steps` drives it; `outcome` may be asked for at any time."""

    def __init__(
        self,
        state: CoordinatorState,
        fleet: Mapping[PeerId, WorkerView],
        estimates: Mapping[RunId, Sequence[float]],
        asked: Iterable[Asked],
        now: float,
    ) -> None:
        """`estimates`: of the runs that are open. `UsageError`: a run would not be accepted."""
        self._state = _sketch(state)
        self._fleet = fleet
        self._begun = now
        self._now = now
        self._memory = Memory()
        self._waiting: tuple[Waiting, ...] = ()
        self._nodes = {
            peer: _Node(fleet[peer], fleet[peer].slots)
            for peer in sorted(fleet)
            if not unusable(self._state, fleet[peer])
        }
        self._shares = {peer: Share(peer, n.view.name or peer, n.view.slots) for peer, n in self._nodes.items()}
        self._estimates = {
            run.id: Estimates.checked(estimates.get(run.id), run.tests) for run in self._state.runs.values()
        }
        self._seconds: dict[RunId, list[float]] = {}
        self._works: dict[LeaseId, _Work] = {}
        self._ends: list[tuple[float, int, LeaseId, int]] = []
        """When a test ends, a number that makes it unlike any other, and which it is."""
        self._numbers = itertools.count()
        self._recalled: dict[LeaseId, float] = {}
        self._asked = {self._submit(one, number): one for number, one in enumerate(asked)}
        self._special = any(one.manifest.needs or one.manifest.dependencies for one in self._asked.values()) or any(
            run.needs or run.barriers is not None for run in self._open()
        )
        self._last = 0.0
        self._ended = False
        for lease in self._state.leases.values():
            if not lease.collects and all(peer in self._nodes for peer in lease.hosts):
                self._take(lease)

    def steps(self) -> Iterator[int]:
        """Go on to the end; yields how many plans were made, now and then."""
        plans = 0
        touched = set(self._nodes)
        while plans < PLANS_MAX:
            for _ in range(ROUNDS_MAX):
                plans += 1
                changed = self._advance(touched)
                yield plans
                if not changed:
                    break
            for peer in sorted(touched):
                self._start(self._nodes[peer])
            if self._is_over() or not self._ends:
                self._ended = True
                return
            touched = set()
            while self._ends and not self._pass(touched):
                yield plans

    def outcome(self) -> Outcome:
        runs = [self._state.runs[run] for run in self._asked]
        tests, done = sum(len(one.manifest.tests) for one in self._asked.values()), sum(run.done for run in runs)
        outlook = Outlook(self._state, self._fleet, self._waiting, _desks(self._memory), self._now)
        waiting = [one for run in runs if self._ended and not _is_done(run) for one in outlook.of_run(run)]
        makespan = self._last if self._ended else self._now - self._begun + self._rest() / max(1, self._slots())
        return Outcome(
            tuple(self._shares.values()), tests, done, makespan, self._bound(), tuple(waiting), not self._ended
        )

    def _do(self, command: Command) -> Applied | Rejected:
        return apply(self._state, self._state.applied + 1, command)

    def _submit(self, asked: Asked, number: int) -> RunId:
        made = self._do(Submit(b"rehearsal %d" % number, asked.spec, self._now))
        if isinstance(made, Rejected) or made.run is None:
            raise UsageError(f"the run would not be accepted: {made.reason if isinstance(made, Rejected) else ''}")
        self._estimates[made.run] = asked.estimates
        return made.run

    def _advance(self, touched: set[PeerId]) -> bool:
        """One plan, and what follows from it at once; whether another one may find more to do."""
        made = plan(self._state, self._fleet, self._estimates, self._now, self._memory)
        self._waiting = made.waiting
        changed = self._settle(made)
        for grant in made.grants:
            result = self._do(grant)
            if isinstance(result, Rejected) or result.lease is None:
                continue
            changed = True
            if grant.tasks:
                self._take(self._state.leases[result.lease])
                touched.add(grant.worker)
            elif grant.run in self._asked:
                self._collect(result.lease, self._asked[grant.run])
        for recall in made.recalls:
            changed = self._give_back(recall, touched) or changed
        return changed

    def _settle(self, made: Plan) -> bool:
        """What a plan finds to be over."""
        commands: list[Command] = [*made.cancels]
        commands += [Abandon(run, test, NOWHERE) for run, test in made.abandons]
        commands += [Skip(skipped.run, skipped.tests, NOWHERE) for skipped in made.skips]
        commands += [Finish(run, None, 0, self._now) for run in made.finished]
        results = [self._do(command) for command in commands]
        return any(isinstance(result, Applied) for result in results)

    def _collect(self, lease: LeaseId, asked: Asked) -> None:
        manifest = asked.manifest
        tasks = shard(manifest, asked.estimates)
        self._do(
            Collected(
                lease, NOWHERE, len(manifest.tests), tasks, manifest.requirements, manifest.needs, manifest.dependencies
            )
        )

    def _take(self, lease: Lease) -> None:
        node = self._nodes[lease.worker]
        tests = deque(test for task in lease.open for test in range(task.first, ranges.end(task)))
        if lease.run not in self._seconds:
            self._seconds[lease.run] = list(self._estimates[lease.run])
        slots = max(1, shelf.slots_of(lease.needs, node.view))
        factor = self._estimates[lease.run].factor(lease.worker)
        work = _Work(lease, self._seconds[lease.run], factor, slots, lease.run in self._asked, tests)
        self._works[lease.id] = work
        node.queue.append(work)
        node.held += _counted(work, tests)
        for companion in self._companions(work):
            companion.free -= max(1, shelf.slots_of(lease.needs, companion.view))

    def _companions(self, work: _Work) -> list[_Node]:
        """Where slots are kept for its test as long as its lease is open."""
        return [self._nodes[peer] for peer in work.lease.hosts[1:]]

    def _close(self, work: _Work) -> set[PeerId]:
        """Its lease has ended; who has slots free for that, beside its worker."""
        del self._works[work.lease.id]
        for companion in self._companions(work):
            companion.free += max(1, shelf.slots_of(work.lease.needs, companion.view))
            self._start(companion)
        return set(work.lease.hosts[1:])

    def _start(self, node: _Node) -> None:
        """Fill the free slots."""
        for work in node.queue:
            while work.may_start and node.free >= work.slots:
                test = work.todo.popleft()
                node.free -= work.slots
                work.running += 1
                ended = self._now + work.takes(test)
                heapq.heappush(self._ends, (ended, next(self._numbers), work.lease.id, test))
                if work.is_asked:
                    self._note(self._shares[node.view.peer], ended, work.takes(test))
            if node.free <= 0:
                break
        if node.queue and not node.queue[0].todo:
            node.queue = [work for work in node.queue if work.todo]

    def _note(self, share: Share, ended: float, seconds: float) -> None:
        begun = self._now - self._begun
        share.first = begun if not share.tests else min(share.first, begun)
        share.last = max(share.last, ended - self._begun)
        share.tests += 1
        share.seconds += seconds
        self._last = max(self._last, share.last)

    def _pass(self, touched: set[PeerId]) -> bool:
        """Let a moment pass; whether a plan may have something to do: a worker runs low, or somebody may wait for a
        lock, or for a run."""
        for peer in self._end(self._ends[0][0] + REPORT_SECONDS):
            touched.add(peer)
            self._start(self._nodes[peer])
        low = any(self._nodes[peer].held < BACKLOG_SECONDS_MAX * self._nodes[peer].view.slots for peer in touched)
        return (low or self._special) and any(
            run.pending or run.phase is not RunPhase.RUNNING for run in self._open()
        )  # fmt: skip

    def _open(self) -> list[Run]:
        return [run for run in self._state.runs.values() if run.phase is not RunPhase.FINISHED]

    def _end(self, until: float) -> set[PeerId]:
        """Tests that end by then are told of, a lease's together; whose they were. A free slot goes on at once."""
        done: dict[LeaseId, list[int]] = {}
        peers: set[PeerId] = set()
        while self._ends and self._ends[0][0] <= until:
            self._now, _, lease_id, test = heapq.heappop(self._ends)
            work = self._works[lease_id]
            node = self._nodes[work.lease.worker]
            node.free += work.slots
            work.running -= 1
            peers.add(node.view.peer)
            done.setdefault(lease_id, []).append(test)
            self._start(node)
        self._now = until
        for lease_id, tests in done.items():
            peers |= self._complete(self._works[lease_id], sorted(tests))
        return peers

    def _complete(self, work: _Work, tests: list[int]) -> set[PeerId]:
        """Its tests are recorded; who has slots free now beside its worker."""
        self._nodes[work.lease.worker].held -= _counted(work, tests)
        took = tuple(round(work.takes(test) * 1e6) for test in tests)
        self._do(Complete(work.lease.id, NOWHERE, tuple(map(TestIndex, tests)), bytes(len(tests)), took))
        return set() if work.todo or work.running else self._close(work)

    def _give_back(self, recall: Recall, touched: set[PeerId]) -> bool:
        """What has not started goes back at once, and what runs after its grace."""
        work = self._works.get(recall.lease)
        if work is None:
            return False
        node = self._nodes[work.lease.worker]
        since = self._recalled.setdefault(recall.lease, self._now)
        todo = list(work.todo)
        work.todo.clear()
        node.held -= _counted(work, todo)
        if todo:
            self._do(Return(recall.lease, tuple(map(TestIndex, todo))))
        if work.running and recall.grace is not None and self._now - since >= recall.grace:
            if isinstance(self._do(Preempt(recall.lease, recall.run)), Rejected):
                return bool(todo)
            node.held -= _counted(work, [end[3] for end in self._ends if end[2] == recall.lease])
            node.free += work.running * work.slots
            self._ends = [end for end in self._ends if end[2] != recall.lease]
            heapq.heapify(self._ends)
            work.running = 0
        if not work.running:
            touched |= self._close(work)
        touched.add(node.view.peer)
        return bool(todo) or not work.running

    def _is_over(self) -> bool:
        return all(_is_done(self._state.runs[run]) for run in self._asked)

    def _slots(self) -> int:
        return sum(node.view.slots for node in self._nodes.values())

    def _rest(self) -> float:
        """Expected seconds of what has no verdict, of the runs asked for."""
        total = sum(one.estimates.total(0, len(one.estimates)) for one in self._asked.values())
        return max(0.0, total - sum(self._state.runs[run].microseconds for run in self._asked) / 1e6)

    def _bound(self) -> float:
        """For each set of workers that some tests must share: their work over its slots; and the longest test."""
        work: dict[frozenset[PeerId], float] = {}
        longest = 0.0
        views = [node.view for node in self._nodes.values()]
        slots = {view.peer: view.slots * self._speed(view.peer) for view in views}
        speeds = [self._speed(view.peer) for view in views]
        slowest, fastest = min(speeds, default=1.0), max(speeds, default=1.0)
        for run, one in self._asked.items():
            by_requirement: dict[int, float] = {}
            for test, expected in zip(one.manifest.tests, one.estimates, strict=True):
                by_requirement[test.requirement] = by_requirement.get(test.requirement, 0.0) + expected
            longest = max(longest, max(one.estimates, default=0.0) / fastest)
            for requirement, seconds in by_requirement.items():
                wanted = feasibility.need(
                    (one.spec.requires, one.spec.prefers),
                    one.manifest.requirements[requirement],
                    one.manifest.needs_of(requirement),
                )
                capable, _ = feasibility.split(self._state, views, wanted, run)
                peers = frozenset(view.peer for view in capable)
                beside = (wanted.takes.hosts - 1) * slowest / fastest  # they wait for whoever leads
                work[peers] = work.get(peers, 0.0) + seconds * (1 + beside)
        return max([longest, *(_share_of(peers, work, slots) for peers in work if peers)], default=0.0)

    def _speed(self, peer: PeerId) -> float:
        """Seconds of a common worker that a slot of this one does in a second, at most."""
        return max((1 / one.estimates.factor(peer) for one in self._asked.values()), default=1.0)


def _share_of(
    peers: frozenset[PeerId], work: Mapping[frozenset[PeerId], float], slots: Mapping[PeerId, float]
) -> float:
    """Seconds for all work that none but these can do; `slots`: of each, as many as of a common worker."""
    inside = sum(seconds for those, seconds in work.items() if those and those <= peers)
    return inside / sum(slots[peer] for peer in peers)


def _counted(work: _Work, tests: Iterable[int]) -> float:
    """Seconds of tests, each a backlog at most."""
    return sum(min(work.takes(test), BACKLOG_SECONDS_MAX) for test in tests)


def _is_done(run: Run) -> bool:
    return run.phase in (RunPhase.REPORTING, RunPhase.FINISHED)


def _desks(memory: Memory) -> dict[PeerId, Desk]:
    return {peer: kept.desk for peer, kept in memory.desks.items()}


def _sketch(state: CoordinatorState) -> CoordinatorState:
    """A state that may be changed: all that plans go by."""
    return CoordinatorState(
        applied=state.applied,
        mesh=state.mesh,
        yielded=state.yielded,
        format=state.format,
        runs={run.id: run if run.phase is RunPhase.FINISHED else _own(run) for run in state.runs.values()},
        archive=dict(state.archive),
        finished=list(state.finished),
        leases={lease.id: dataclasses.replace(lease, open=list(lease.open)) for lease in state.leases.values()},
        workers={
            worker.peer: dataclasses.replace(worker, leases=list(worker.leases), hosted=list(worker.hosted))
            for worker in state.workers.values()
        },
        locks=dict(state.locks),
    )


def _own(run: Run) -> Run:
    """A copy. What was recorded together never changes, and may be large: these are shared."""
    made = copy.deepcopy(dataclasses.replace(run, chunks=[]))
    made.chunks = list(run.chunks)
    return made

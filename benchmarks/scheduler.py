"""`make bench-scheduler`: the scheduler alone, with simulated workers: no processes, no network, no clock but its own.

Placing: how many tests a second `plan()` gives to 1,000 nodes, and how long a plan takes once they are busy.
The day: 1,000,000 tests of skewed lengths on 1,000 nodes, submitted by several people at several priorities, through
`plan()` and `apply()` as a coordinator would; how far the end is from the bound that no scheduler can beat, how even
the shares of equals were, and how long anybody waited for a first slot (to rise by waiting, and then for the longest
test to end). Durations are whole steps of the simulation, so
that it loses nothing between a test's end and the plan that follows, which takes milliseconds in a mesh.
"""

import argparse
import heapq
import itertools
import random
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from mesh.scheduler.durations import Estimates
from mesh.scheduler.fleet import WorkerView
from mesh.scheduler.plan import plan
from mesh.scheduler.proposal import Plan
from mesh.scheduler.queue import AGEING_SECONDS
from mesh.scheduler.supply import Memory
from mesh.state import ranges
from mesh.state.apply import apply
from mesh.state.model import CoordinatorState, Lease, Run, RunPhase, Task
from mesh.state.results import Applied
from protocols.commands import Collected, Command, Complete, Finish, Grant, RaiseFormat, Register, Submit
from protocols.ids import Cid, LeaseId, PeerId, RunId, TestIndex
from protocols.manifests import RunSpec
from protocols.raft import LOG_FORMAT_NEWEST

NODES, DAY_SECONDS, STEP_SECONDS = 1_000, 86_400, 5.0
PLACEMENTS_A_SECOND, PLAN_SECONDS = 20_000, 0.010
SIMULATION_SECONDS, MAKESPAN, JAIN = 600.0, 1.03, 0.95
CHUNK = Cid("bafkchunk")


class Mesh:
    """A state, a fleet, and what `plan()` needs beside them."""

    def __init__(self, slots: list[int]) -> None:
        self.state = CoordinatorState()
        self.fleet: dict[PeerId, WorkerView] = {}
        self.estimates: dict[RunId, Estimates] = {}
        self.now = 0.0
        self.memory = Memory()
        self.planned = 0.0
        self.plans = 0
        self.do(RaiseFormat(LOG_FORMAT_NEWEST))
        for number, count in enumerate(slots):
            peer = PeerId(f"node{number:04}")
            self.do(Register(peer, peer, 1, count))
            self.fleet[peer] = WorkerView(peer, 1, alive=True, slots=count, name=peer)

    def do(self, command: Command) -> Applied:
        result = apply(self.state, self.state.applied + 1, command)
        assert isinstance(result, Applied), result
        return result

    def plan(self) -> Plan:
        start = time.perf_counter()
        made = plan(self.state, self.fleet, self.estimates, self.now, self.memory)
        self.planned += time.perf_counter() - start
        self.plans += 1
        return made

    def run(self, seconds: list[float], submitter: str = "s", project: str = "p", priority: int = 50) -> Run:
        """Submitted and collected; tasks of up to 64 tests and about 2 seconds, as `shard` makes them."""
        nonce = str(self.state.applied).encode()
        spec = RunSpec(Cid("bafybundle"), project, project, PeerId(submitter), priority=priority)
        run = self.do(Submit(nonce, spec, self.now)).run
        assert run is not None
        lease = self.do(Grant(run, next(iter(self.fleet)), 1, ())).lease
        assert lease is not None
        tasks, first, total = [], 0, 0.0
        for test, expected in enumerate(seconds):
            if test > first and (total + expected > 2.0 or test - first >= 64):
                tasks.append(Task(first, test - first))
                first, total = test, 0.0
            total += expected
        tasks.append(Task(first, len(seconds) - first))
        self.do(Collected(lease, Cid("bafkm"), len(seconds), tuple(tasks)))
        self.estimates[run] = Estimates(seconds)
        return self.state.runs[run]

    def finish(self, run: Run) -> None:
        if run.phase is RunPhase.REPORTING:
            self.do(Finish(run.id, None, 0, self.now))
            self.estimates.pop(run.id, None)

    def complete(self, lease: Lease, tests: list[int], micros: list[int]) -> None:
        """All of them passed."""
        self.do(Complete(lease.id, CHUNK, tuple(map(TestIndex, tests)), bytes(len(tests)), tuple(micros)))


def members(lease: Lease) -> list[int]:
    return [test for task in lease.open for test in range(task.first, ranges.end(task))]


def row(name: str, figure: str, goal: str, good: bool) -> None:
    print(f"{name:<58}{figure:>14}   {goal:<14}{'' if good else '  MISSED'}", flush=True)


def placing(runs: int, tests: int) -> tuple[float, float]:
    """Placements a second from an idle mesh until all tests are handed out; the median plan while it is busy."""
    rng = random.Random(1)
    mesh = Mesh([4] * NODES)
    for number in range(runs):
        mesh.run([rng.choice((0.2, 0.5, 1.0, 3.0)) for _ in range(tests // runs)], f"s{number % 5}", f"p{number % 2}")
    busy: list[float] = []
    placed = 0
    while placed < tests:
        before = mesh.planned
        made = mesh.plan()
        if not made.grants:
            busy.append(mesh.planned - before)
            mesh.planned = before
        for grant in made.grants:
            mesh.do(grant)
            placed += ranges.size(grant.tasks)
        if placed < tests // 2:
            for _ in range(3):
                took, more = small_change(mesh, rng)
                busy.append(took)
                placed += more
        for lease in list(mesh.state.leases.values()):
            done = members(lease)
            mesh.complete(lease, done, [round(mesh.estimates[lease.run][test] * 1e6) for test in done])
    return tests / mesh.planned, statistics.median(busy)


def small_change(mesh: Mesh, rng: random.Random) -> tuple[float, int]:
    """Ten workers report something; how long the plan takes that follows, and what it grants, which is done."""
    for lease in rng.sample(list(mesh.state.leases.values()), 10):
        done = members(lease)[:4]
        mesh.complete(lease, done, [round(mesh.estimates[lease.run][test] * 1e6) for test in done])
    before = mesh.planned
    made = mesh.plan()
    took, mesh.planned = mesh.planned - before, before
    for grant in made.grants:
        mesh.do(grant)
    return took, sum(ranges.size(grant.tasks) for grant in made.grants)


@dataclass
class Node:
    """A worker: leases in the order of their grants, a slot runs one test at a time."""

    peer: PeerId
    free: int
    waiting: list[LeaseId]


class Day:
    """The simulation: `ends` is a heap of (step, number, node, lease, test)."""

    def __init__(self, slots: list[int], seed: int) -> None:
        self.mesh = Mesh(slots)
        self.rng = random.Random(seed)
        self.nodes = {peer: Node(peer, view.slots, []) for peer, view in self.mesh.fleet.items()}
        self.todo: dict[LeaseId, list[int]] = {}
        self.ends: list[tuple[int, int, PeerId, LeaseId, int]] = []
        self.numbers = itertools.count()
        self.durations: dict[RunId, list[int]] = {}
        self.served: dict[str, float] = defaultdict(float)
        self.first: dict[RunId, float] = {}
        self.submitted: dict[RunId, float] = {}
        self.taken = 0

    def submit(self, tests: int, submitter: str, project: str, priority: int) -> None:
        """Skewed: most tests take a step or a few, some a hundred, one in ten thousand an hour."""
        steps = [min(720, max(1, round(self.rng.lognormvariate(2.0, 1.2)))) for _ in range(tests)]
        run = self.mesh.run([step * STEP_SECONDS for step in steps], submitter, project, priority)
        self.durations[run.id] = steps
        self.submitted[run.id] = self.mesh.now

    def start(self, node: Node, step: int) -> None:
        """Fill the node's slots from its leases, the oldest first."""
        while node.free and node.waiting:
            lease_id = node.waiting[0]
            tests = self.todo.get(lease_id)
            if not tests or lease_id not in self.mesh.state.leases:
                node.waiting.pop(0)
                continue
            test = tests.pop(0)
            run = self.mesh.state.leases[lease_id].run
            self.first.setdefault(run, self.mesh.now)
            node.free -= 1
            ended = step + self.durations[run][test]
            heapq.heappush(self.ends, (ended, next(self.numbers), node.peer, lease_id, test))

    def end(self, step: int) -> set[PeerId]:
        """Tests that end at this step are reported, a lease's together; who has slots free again."""
        done: dict[LeaseId, list[int]] = {}
        touched: set[PeerId] = set()
        while self.ends and self.ends[0][0] <= step:
            _, _, peer, lease_id, test = heapq.heappop(self.ends)
            self.nodes[peer].free += 1
            touched.add(peer)
            done.setdefault(lease_id, []).append(test)
        for lease_id, tests in done.items():
            lease = self.mesh.state.leases.get(lease_id)
            if lease is None:
                continue
            run = self.mesh.state.runs[lease.run]
            took = [round(self.durations[run.id][test] * STEP_SECONDS * 1e6) for test in tests]
            self.served[run.spec.submitter] += sum(took) / 1e6
            self.mesh.complete(lease, sorted(tests), took)
            self.mesh.finish(run)
        return touched

    def act(self, step: int, touched: set[PeerId]) -> None:
        """Plans, until one changes nothing; recalled tests come back at once, taken ones too."""
        while True:
            made = self.mesh.plan()
            for grant in made.grants:
                lease = self.mesh.do(grant).lease
                assert lease is not None
                self.todo[lease] = members(self.mesh.state.leases[lease])
                self.nodes[grant.worker].waiting.append(lease)
                touched.add(grant.worker)
            for peer in sorted(touched):
                self.start(self.nodes[peer], step)
            touched.clear()
            if not made.grants or not any(node.free and not node.waiting for node in self.nodes.values()):
                return


def day(tests: int, nodes: int) -> None:
    slots = [1 + number % 2 for number in range(nodes)]
    simulated = Day(slots, seed=7)
    begin = time.perf_counter()
    people = [f"person{number}" for number in range(8)]
    size = tests // 100
    for number in range(40):  # five runs each, of equal priority, there from the start
        simulated.submit(size, people[number % 8], f"project{number // 8 % 2}", 50)
    arrivals = later(simulated.rng, tests - 40 * size, size)
    upcoming = next(arrivals, None)
    step = 0
    jain: list[float] = []
    longest = max(max(steps) for steps in simulated.durations.values())
    while True:
        simulated.mesh.now = step * STEP_SECONDS
        touched = simulated.end(step)
        while upcoming is not None and upcoming[0] <= step:
            simulated.submit(upcoming[1], upcoming[2], "late", upcoming[3])
            longest = max(longest, max(simulated.durations[max(simulated.durations)]))
            upcoming = next(arrivals, None)
        simulated.act(step, touched)
        if step == round(DAY_SECONDS * 0.05 / STEP_SECONDS):
            shares = [simulated.served[one] for one in people]
            jain.append(sum(shares) ** 2 / (len(shares) * sum(share**2 for share in shares)))
        if not simulated.ends and upcoming is None:
            break
        step = min(simulated.ends[0][0] if simulated.ends else upcoming[0], upcoming[0] if upcoming else 10**9)
    took = time.perf_counter() - begin
    work = sum(sum(steps) for steps in simulated.durations.values())
    bound = max(work / sum(slots), longest)
    patience = 100 * AGEING_SECONDS + longest * STEP_SECONDS  # to rise, and for a slot to come free
    waits = [simulated.first[run] - at for run, at in simulated.submitted.items()]
    row(
        f"a day of {tests:,} tests on {nodes:,} nodes, seconds to simulate",
        f"{took:.0f}",
        f"<= {SIMULATION_SECONDS:.0f}",
        took <= SIMULATION_SECONDS,
    )
    row(
        f"  makespan {step * STEP_SECONDS / 3600:.2f} h over the bound",
        f"{step / bound:.4f}",
        f"<= {MAKESPAN}",
        step / bound <= MAKESPAN,
    )
    row("  Jain's index of eight equals", f"{min(jain):.4f}", f"> {JAIN}", min(jain) > JAIN)
    row(
        "  longest wait for a first slot, seconds",
        f"{max(waits):.0f}",
        f"<= {patience:.0f}",
        max(waits) <= patience,
    )
    print(f"  {simulated.mesh.plans} plans, {1e3 * simulated.mesh.planned / simulated.mesh.plans:.1f} ms each")


def later(rng: random.Random, tests: int, size: int) -> Iterator[tuple[int, int, str, int]]:
    """(step, tests, who, priority) of runs that come in the course of the day."""
    left = tests
    steps = sorted(rng.randrange(1, round(DAY_SECONDS * 0.5 / STEP_SECONDS)) for _ in range(-(-tests // size)))
    for number, step in enumerate(steps):
        yield step, min(size, left), f"guest{number % 5}", rng.choice((0, 20, 50, 50, 55, 80, 100))
        left -= size


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tests", type=int, default=1_000_000, help="of the day")
    parser.add_argument("--nodes", type=int, default=NODES, help="of the day")
    parser.add_argument("--only-day", action="store_true", help="without the placing")
    options = parser.parse_args()
    print(f"{'':<58}{'figure':>14}   goal")
    for runs in () if options.only_day else (1, 10):
        rate, median = placing(runs, 100_000)
        row(
            f"100,000 tests of {runs} runs on 1,000 nodes, placements/s",
            f"{rate:,.0f}",
            f">= {PLACEMENTS_A_SECOND:,}",
            rate >= PLACEMENTS_A_SECOND,
        )
        row("  an incremental plan, ms", f"{1e3 * median:.2f}", f"<= {1e3 * PLAN_SECONDS:.0f}", median <= PLAN_SECONDS)
    day(options.tests, options.nodes)


if __name__ == "__main__":
    main()

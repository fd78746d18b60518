"""Scheduler, state and fake workers against everything that hypothesis does to them.

After each step: the state's invariants (no test lost, none in two places, none recorded twice, no slot that is kept for
a test of several hosts given to others), no lease that one of its hosts could not have (requirements, no slots, not
there), no grant that the log refuses, and no verdict that changes.
Plans of a coordinator that was deposed come late, and so do completions of leases that are closed: the log's order
decides, and the late one changes nothing. At the end the fleet heals: as long as capable workers are there, as many as
a test needs at once, every run ends, with one verdict for each test.
"""

from collections.abc import Callable
from random import Random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule
from scheduler_rig import CHUNK, GPU, PLAIN, Rig, members

from mesh.scheduler import feasibility
from mesh.scheduler.desk import is_last_chance
from mesh.scheduler.durations import Estimates
from mesh.scheduler.tasks import shard
from mesh.state.model import LEASES_PER_WORKER_MAX, NO_VERDICT, Lease, Run, RunPhase
from mesh.state.results import Applied, Rejected
from mesh.state.snapshot import decode_state, encode_state
from protocols.commands import (
    TESTS_PER_COMMAND_MAX,
    Abandon,
    Cancel,
    Collected,
    CollectFailed,
    Complete,
    Return,
)
from protocols.ids import Cid, LeaseId, PeerId, RunId, TestIndex
from protocols.manifests import NOTHING, CollectedTest, Manifest, Needs, Outcome
from tests.properties import examples

WORKERS = ("a", "b", "c")
"""Only "a" has a GPU."""
ROUNDS_MAX = 400
STRAGGLE_ROUNDS = 8
NEEDS = (("", ""), ("gpu.memory >= 8GiB", ""), ("os == linux", "gpu"), ("os == linux", ""))
TAKES = (NOTHING, NOTHING, NOTHING, Needs(hosts=2))

names = st.sampled_from(WORKERS)
seeds = st.integers(0, 2**32).map(Random)
specs = {
    "priority": st.integers(0, 100),
    "retries": st.integers(0, 2),
    "worker_count": st.integers(0, 2),
    "hedge": st.booleans(),
    "requires": st.sampled_from(["", "os == linux", "gpu"]),
}


class Scheduling(RuleBasedStateMachine):
    runs = Bundle("runs")

    def start(self) -> None:
        self.rig = Rig()
        self.incarnations = dict.fromkeys(WORKERS, 1)
        self.killers: dict[RunId, set[int]] = {}
        self.lost_alone: set[tuple[RunId, int]] = set()
        self.up: set[str] = set()
        self.slots = {"a": 2, "b": 1, "c": 3}
        self.granted: dict[LeaseId, list[int]] = {}
        self.verdicts: dict[tuple[RunId, int], int] = {}
        for name in WORKERS:
            self.boot(name)

    def boot(self, name: str) -> None:
        self.up.add(name)
        slots = self.slots[name]
        self.rig.worker(name, slots=slots, incarnation=self.incarnations[name], capabilities=capabilities(name))

    def look(self, name: str, **view: object) -> None:
        view = {"slots": self.slots[name], "incarnation": self.incarnations[name], **view}
        self.rig.see(name, capabilities=capabilities(name), **view)

    @initialize(target=runs, random=seeds, tests=st.integers(1, 60), **specs)
    def begin(self, random: Random, tests: int, **changes: object) -> RunId:
        """A run is on before anything else happens."""
        self.start()
        run = self.submit(**changes)
        self.plan()
        for lease in self.leases(collects=True):
            self.collect_one(lease, random, tests)
        return run

    @rule(target=runs, **specs)
    def submit(self, **changes: object) -> RunId:
        run = self.rig.submit(str(len(self.rig.state.nonces)), **changes)
        return run.id

    @rule()
    def plan(self) -> None:
        plan = self.rig.plan()
        self.expect_losses([self.rig.state.leases[expire.lease] for expire in plan.expires])
        idle = {worker.peer for worker in self.rig.state.workers.values() if worker.is_idle}
        for lease in self.rig.follow(plan):
            run = self.rig.state.runs[lease.run]
            self.check_elsewhere(run, lease, idle)
            for requirement in {task.requirement for task in lease.open} or {None}:
                own = NEEDS[requirement] if requirement is not None else ("", "")
                wanted = feasibility.need((run.spec.requires, ""), own)
                assert not any(feasibility.unmet(wanted, self.rig.fleet[peer]) for peer in lease.hosts)
            for view in (self.rig.fleet[peer] for peer in lease.hosts):
                assert (view.alive, view.draining, view.lost) == (True, False, False), "only who is there gets work"
                assert view.slots >= 1, "who has no slot gets no work"
            self.granted[lease.id] = members(lease.open)

    def check_elsewhere(self, run: Run, lease: Lease, idle: set[PeerId]) -> None:
        """What was bad here is not here again, if somebody else could do it at once (who had nothing to do, and got no
        more than a worker is waited for, and no more urgent run wants it)."""
        priorities = [other.spec.priority for other in self.rig.state.runs.values() if other.phase is RunPhase.RUNNING]
        if max(priorities, default=0) > run.spec.priority:
            return
        for task in lease.open:
            failed = run.failed_on.get(task.first, ()) if task.count == 1 and not is_last_chance(task) else ()
            if lease.worker not in failed or run.spec.worker_count or lease.companions:
                continue
            wanted = feasibility.need((run.spec.requires, ""), NEEDS[task.requirement])
            capable, _ = feasibility.split(self.rig.state, self.rig.fleet.values(), wanted, run.id)
            assert not [view for view in capable if view.peer in idle - set(failed)], "it was bad here"

    @rule(random=seeds, tests=st.integers(0, 40))
    def depose(self, random: Random, tests: int) -> None:
        """A coordinator plans and is deposed; its successor goes on, and then the first one's proposals arrive. Each of
        them still holds, or is refused."""
        plan = self.rig.plan()
        self.proceed(random, 1, tests)
        for expire in plan.expires:
            self.expect_losses([self.rig.state.leases[expire.lease]] if expire.lease in self.rig.state.leases else [])
            self.rig.do(expire)
        for run, test in plan.abandons:
            self.rig.do(Abandon(run, test, CHUNK))
        for grant in plan.grants:
            run = self.rig.state.runs[grant.run]
            if run.spec.worker_count:
                continue  # how many workers is the planner's to keep; the log does not fence it
            result = self.rig.do(grant)
            if isinstance(result, Applied) and result.lease is not None:
                self.granted[result.lease] = members(self.rig.state.leases[result.lease].open)

    @rule()
    def report_late(self) -> None:
        """Workers offer what they still have of leases that are closed: expired, cancelled, returned or completed."""
        for lease, tests in self.granted.items():
            held = self.rig.state.leases.get(lease)
            if held is not None and (gone := sorted(set(tests) - set(members(held.open)))):
                late = Complete(lease, CHUNK, tuple(map(TestIndex, gone)), b"\1" * len(gone), (1,) * len(gone))
                assert self.rig.accept(late).tests == (), "what a lease has lost it can't record"
            if lease not in self.rig.state.leases and tests:
                late = Complete(lease, CHUNK, tuple(map(TestIndex, tests)), b"\1" * len(tests), (1,) * len(tests))
                assert isinstance(self.rig.do(late), Rejected), "a closed lease records nothing"

    @rule(name=names, slots=st.integers(0, 3))
    def resize(self, name: str, slots: int) -> None:
        """A worker is registered again by the same process, with another number of slots."""
        self.slots[name] = slots
        if name in self.up:
            self.boot(name)

    @rule(random=seeds, tests=st.integers(0, 40))
    def collect(self, random: Random, tests: int) -> None:
        for lease in self.leases(collects=True):
            if self.awake(lease):
                self.collect_one(lease, random, tests)

    def collect_one(self, lease: Lease, random: Random, tests: int) -> None:
        if not tests and random.random() < 0.5:
            self.rig.accept(CollectFailed(lease.id, 2, "SyntaxError"))
            return
        may_need_two = self.rig.state.runs[lease.run].spec.requires != "gpu"  # which only one worker has
        kinds = (0, 0, 0, 1, 2, 3) if may_need_two else (0, 0, 0, 1, 2)
        made = Manifest(
            Cid("b"),
            tuple(CollectedTest(f"t{i}", f"m{i // 7}", random.choice(kinds)) for i in range(tests)),
            NEEDS,
        )
        seconds = [random.choice((0.01, 0.1, 5.0)) for _ in range(tests)]
        contending = frozenset(test for test in range(tests) if random.random() < 0.1)
        factors = {peer: random.choice((0.5, 3.0)) for peer in sorted(self.rig.fleet) if random.random() < 0.3}
        estimates = Estimates(seconds, random.random() < 0.5, factors, contending=contending)
        self.rig.accept(Collected(lease.id, Cid("m"), tests, shard(made, estimates), NEEDS, TAKES))
        self.rig.estimates[lease.run] = estimates
        self.killers[lease.run] = {i for i in range(tests) if random.random() < 0.02}

    @rule(random=seeds, rounds=st.integers(1, 4), tests=st.integers(0, 40))
    def proceed(self, random: Random, rounds: int, tests: int) -> None:
        for _ in range(rounds):
            self.plan()
            self.collect(random, tests)
            self.work(random)

    @rule(random=seeds)
    def work(self, random: Random) -> None:
        """Workers report some tests of some leases; one that meets a killer dies instead."""
        for lease in self.leases(collects=False):
            if lease.id in self.rig.state.leases and self.awake(lease) and random.random() < 0.7:
                tests = [test for test in members(lease.open) if random.random() < 0.6]
                if self.killers[lease.run] & set(tests):
                    self.kill(random.choice(lease.hosts))
                elif tests:
                    self.report(lease, tests, random)

    def report(self, lease: Lease, tests: list[int], random: Random) -> None:
        outcomes = bytes(random.choice((0, 0, 0, 1, 2, 3)) for _ in tests)
        micros = tuple(random.randrange(0, 10_000_000) for _ in tests)
        command = Complete(lease.id, CHUNK, tuple(map(TestIndex, tests)), outcomes, micros)
        assert self.rig.accept(command).tests == tuple(tests)
        again = self.rig.do(command)
        assert isinstance(again, Rejected) or not again.tests, "the same completion never counts twice"

    @rule(random=seeds)
    def straggle(self, random: Random) -> None:
        """Everybody is up, and all but the first test of each run ends soon; these take long, so that who is idle runs
        them, too."""
        for name in sorted(set(WORKERS) - self.up):
            self.restart(name)
        for _ in range(STRAGGLE_ROUNDS):
            for name in WORKERS:
                self.look(name)
            self.plan()
            for lease in self.leases(collects=False):
                if lease.id in self.rig.state.leases and self.awake(lease):
                    first = min(
                        self.rig.state.leases[one].open[0].first for one in self.rig.state.runs[lease.run].leases
                    )
                    tests = [test for test in members(lease.open) if test != first]
                    if tests and not self.killers[lease.run] & set(tests):
                        self.report(lease, tests, random)
        for name in WORKERS:
            leases = self.leases(worker=name, collects=False)
            running = tuple(
                (lease.id, TestIndex(lease.open[0].first), random.choice((1.0, 100.0, 100.0))) for lease in leases
            )
            self.look(name, running=running)
        self.plan()

    @rule(name=names)
    def kill(self, name: str) -> None:
        self.up.discard(name)
        self.look(name, alive=False)

    @rule(name=names)
    def lose(self, name: str) -> None:
        if name not in self.up:
            self.look(name, alive=False, lost=True)

    @rule(name=names)
    def restart(self, name: str) -> None:
        self.expect_losses(self.leases_on(name))
        self.incarnations[name] += 1
        self.boot(name)

    def expect_losses(self, leases: list[Lease]) -> None:
        """These leases are about to be lost. A test may only ever be blamed if it held all its hosts alone."""
        for lease in leases:
            beside = {other.id for peer in lease.hosts for other in self.leases_on(peer)}
            if beside == {lease.id} and len(members(lease.open)) == 1:
                self.lost_alone.add((lease.run, members(lease.open)[0]))

    @rule(name=names)
    def drain(self, name: str) -> None:
        if name in self.up:
            self.look(name, draining=True)
            for lease in self.leases(worker=name):
                self.rig.accept(Return(lease.id, tuple(TestIndex(test) for test in members(lease.open)[1:])))

    @rule(name=names)
    def forget(self, name: str) -> None:
        """A new coordinator has not heard of this worker yet."""
        if name in self.up:
            self.rig.fleet.pop(PeerId(name), None)

    @rule(run=runs)
    def cancel(self, run: RunId) -> None:
        self.rig.do(Cancel(run, "enough"))

    @rule()
    def fail_over(self) -> None:
        self.rig.state = decode_state(encode_state(self.rig.state))

    @invariant()
    def within_bounds(self) -> None:
        for lease in self.rig.state.leases.values():
            assert len(members(lease.open)) <= TESTS_PER_COMMAND_MAX
        for worker in self.rig.state.workers.values():
            assert len(worker.leases) <= LEASES_PER_WORKER_MAX
        for run in self.rig.state.runs.values():
            if run.spec.worker_count:
                assert len({self.rig.state.leases[lease].worker for lease in run.leases}) <= run.spec.worker_count

    @invariant()
    def verdicts_stay(self) -> None:
        for run in self.rig.state.runs.values():
            for done in run.chunks:
                for test, code in zip(done.tests, done.outcomes, strict=True):
                    assert self.verdicts.setdefault((run.id, test), code) == code, "a verdict is recorded once"

    def teardown(self) -> None:
        if not hasattr(self, "rig"):
            return
        for name in WORKERS[2:]:
            self.kill(name)
            self.lose(name)
        self.slots |= {"a": 2, "b": 1}
        for name in WORKERS[:2]:
            self.restart(name)
        everything = list(self.rig.state.runs.values())
        for _ in range(ROUNDS_MAX):
            if all(run.phase is RunPhase.FINISHED for run in everything):
                break
            self.heal_one_round()
        self.report_late()
        self.verdicts_stay()
        for run in everything:
            self.check_end(run)

    def heal_one_round(self) -> None:
        """The two workers that are left do all that they are told, and come back each time that a test kills one."""
        self.plan()
        for lease in self.leases():
            if lease.id not in self.rig.state.leases:
                continue
            if lease.collects:
                self.rig.accept(CollectFailed(lease.id, 5, "nothing"))
            elif self.killers[lease.run] & set(members(lease.open)):
                self.restart(lease.hosts[-1])
            else:
                self.rig.complete(lease.id, members(lease.open))

    def check_end(self, run: Run) -> None:
        assert run.phase is RunPhase.FINISHED, f"run {run.id} has not ended, but is {run.state}"
        if run.cancelled is not None:
            return
        assert NO_VERDICT not in run.outcomes
        for test in self.killers.get(run.id, ()):
            assert run.outcomes[test] == Outcome.ERROR.code, "a test that always kills its node is an error"
        for done in run.chunks:
            if not done.worker:
                assert (run.id, done.tests[0]) in self.lost_alone, "who is abandoned has lost a node alone"

    def leases(self, **wanted: object) -> list[Lease]:
        return [x for x in self.rig.state.leases.values() if all(getattr(x, k) == v for k, v in wanted.items())]

    def leases_on(self, name: str) -> list[Lease]:
        """Those of a worker, and those of which it is a companion."""
        return [lease for lease in self.rig.state.leases.values() if name in lease.hosts]

    def awake(self, lease: Lease) -> bool:
        return lease.worker in self.up and self.incarnations[lease.worker] == lease.incarnation


def capabilities(name: str) -> object:
    return GPU if name == "a" else PLAIN


TestScheduling = Scheduling.TestCase
TestScheduling.settings = settings(
    max_examples=examples(50), stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)


@settings(max_examples=examples(40))
@given(seeds, st.integers(0, 2), st.integers(1, 30))
def test_stragglers(random: Random, retries: int, tests: int) -> None:
    """The same machine on its way through hedges: whatever becomes of their workers."""
    machine = Scheduling()
    machine.begin(random, tests, hedge=True, retries=retries)
    for _ in range(20):
        name = random.choice(WORKERS)
        steps: list[Callable[[], object]] = [
            lambda: machine.straggle(random),
            lambda: machine.straggle(random),
            lambda: machine.work(random),
            lambda name=name: (machine.kill(name), machine.lose(name), machine.plan()),
            lambda name=name: machine.restart(name),
            lambda name=name: machine.drain(name),
            lambda: machine.report_late(),
            lambda: machine.fail_over(),
            lambda: machine.submit(hedge=True, retries=retries),
            lambda: machine.collect(random, tests),
        ]
        random.choice(steps)()
        machine.within_bounds()
        machine.verdicts_stay()
    machine.teardown()

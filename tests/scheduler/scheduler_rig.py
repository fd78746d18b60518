"""Shared by the scheduler's tests: a coordinator without a mesh. Its workers are names that do what a test says."""

from collections.abc import Iterable, Mapping

from mesh.scheduler.durations import Estimates
from mesh.scheduler.fleet import WorkerView
from mesh.scheduler.plan import plan
from mesh.scheduler.proposal import Plan
from mesh.scheduler.supply import Memory
from mesh.state import ranges
from mesh.state.apply import apply
from mesh.state.invariants import check
from mesh.state.model import CoordinatorState, Lease, Run, RunPhase, Task
from mesh.state.results import Applied, Rejected
from protocols.codec import Value
from protocols.commands import (
    Abandon,
    Collected,
    Command,
    Complete,
    Finish,
    Grant,
    RaiseFormat,
    Register,
    Skip,
    Submit,
)
from protocols.ids import Cid, LeaseId, PeerId, RunId, TestIndex
from protocols.manifests import Dependency, Needs, Outcome, RunSpec
from protocols.raft import LOG_FORMAT_NEWEST

BUNDLE = Cid("bafybundle")
CHUNK = Cid("bafkchunk")

GPU: Mapping[str, Value] = {"gpu": ({"memory": 8 * 2**30, "cuda": "12.4"},), "os": "linux"}
PLAIN: Mapping[str, Value] = {"gpu": (), "os": "linux"}


class Rig:
    def __init__(self, log_format: int = LOG_FORMAT_NEWEST) -> None:
        self.state = CoordinatorState()
        self.fleet: dict[PeerId, WorkerView] = {}
        self.estimates: dict[RunId, Estimates] = {}
        self.now = 1000.0
        self.memory = Memory()
        self.accept(RaiseFormat(log_format))

    def do(self, command: Command) -> Applied | Rejected:
        result = apply(self.state, self.state.applied + 1, command)
        check(self.state)
        return result

    def accept(self, command: Command) -> Applied:
        result = self.do(command)
        assert isinstance(result, Applied), result
        return result

    def worker(self, name: str, slots: int = 2, incarnation: int = 1, **view: object) -> PeerId:
        peer = PeerId(name)
        self.accept(Register(peer, name, incarnation, slots))
        self.see(name, slots=slots, incarnation=incarnation, **view)
        return peer

    def see(self, name: str, **view: object) -> None:
        """Change how the worker looks, without a word in the log."""
        fields = {"incarnation": 1, "slots": 2, "capabilities": PLAIN, "name": name, "alive": True, **view}
        self.fleet[PeerId(name)] = WorkerView(PeerId(name), **fields)  # type: ignore[arg-type]

    def submit(self, nonce: str = "n", **changes: object) -> Run:
        fields = {"bundle": BUNDLE, "name": "s", "project": "s", "submitter": PeerId("c"), **changes}
        spec = RunSpec(**fields)  # type: ignore[arg-type]
        run = self.accept(Submit(nonce.encode(), spec, self.now)).run
        assert run is not None
        return self.state.runs[run]

    def running(
        self,
        tasks: Iterable[Task],
        seconds: Iterable[float] | None = None,
        nonce: str = "n",
        requirements: tuple[tuple[str, str], ...] = (("", ""),),
        needs: tuple[Needs, ...] = (),
        waits: tuple[Dependency, ...] = (),
        **changes: object,
    ) -> Run:
        """A collected run; `seconds`: known durations of its tests."""
        run = self.submit(nonce, **changes)
        tasks = tuple(tasks)
        collector = sorted(self.fleet)[0]
        lease = self.accept(Grant(run.id, collector, self.fleet[collector].incarnation, ())).lease
        assert lease is not None
        self.accept(Collected(lease, Cid("bafkm"), ranges.size(tasks), tasks, requirements, needs, waits))
        run.workers.clear()
        self.estimates[run.id] = Estimates.unknown(run.tests) if seconds is None else Estimates(seconds)
        return run

    def plan(self) -> Plan:
        made = plan(self.state, self.fleet, self.estimates, self.now, self.memory)
        assert made == plan(self.state, self.fleet, self.estimates, self.now), "what is remembered changes nothing"
        return made

    def follow(self, made: Plan) -> list[Lease]:
        """Apply a plan: everything in it must hold, since nothing happened in between. The leases that it opened."""
        for expire in made.expires:
            self.accept(expire)
        for run, test in made.abandons:
            self.accept(Abandon(run, test, CHUNK))
        opened = []
        for skip in made.skips:
            self.accept(Skip(skip.run, skip.tests, CHUNK))
        for grant in made.grants:
            lease = self.accept(grant).lease
            assert lease is not None
            opened.append(self.state.leases[lease])
        for hedge in made.hedges:
            lease = self.accept(hedge).lease
            assert lease is not None
            opened.append(self.state.leases[lease])
        for run in made.finished:
            self.accept(Finish(run, None, 0, self.now))
        return opened

    def complete(self, lease: LeaseId, tests: Iterable[int], micros: int = 100_000, code: int = 0) -> None:
        tests = tuple(TestIndex(test) for test in tests)
        self.accept(Complete(lease, CHUNK, tests, bytes([code]) * len(tests), (micros,) * len(tests)))

    def finish_leases(self, micros: int = 100_000) -> None:
        for lease in list(self.state.leases.values()):
            self.complete(lease.id, members(lease.open), micros)


def members(tasks: Iterable[Task]) -> list[int]:
    return [test for task in tasks for test in range(task.first, ranges.end(task))]


def errors(run: Run) -> list[int]:
    return [test for test, code in enumerate(run.outcomes) if code == Outcome.ERROR.code]


def over(run: Run) -> bool:
    return run.phase in (RunPhase.REPORTING, RunPhase.FINISHED)

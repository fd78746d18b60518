"""Shared by the tests of the state: a state under construction, each command through `apply`, checked after each."""

from mesh.state.apply import apply
from mesh.state.invariants import check
from mesh.state.model import CoordinatorState, Run, Task
from mesh.state.results import Applied, Rejected, Result
from protocols.commands import Collected, Command, Complete, Found, Grant, Register, Submit
from protocols.ids import Cid, LeaseId, PeerId, RunId, TestIndex
from protocols.manifests import Outcome, RunSpec

ALICE, BOB = PeerId("alice"), PeerId("bob")
CHUNK = Cid("bafkchunk")
MANIFEST = Cid("bafkmanifest")


def spec(**changes: object) -> RunSpec:
    fields = {"bundle": Cid("bafybundle"), "name": "suite", "project": "suite", "submitter": PeerId("client")}
    return RunSpec(**{**fields, **changes})  # type: ignore[arg-type]


class Builder:
    def __init__(self) -> None:
        self.state = CoordinatorState()
        self.index = 0
        self.log: list[tuple[int, Command]] = []
        self.accept(Found("lab"))

    def do(self, command: Command) -> Result:
        self.index += 1
        self.log.append((self.index, command))
        result = apply(self.state, self.index, command)
        check(self.state)
        return result

    def accept(self, command: Command) -> Applied:
        result = self.do(command)
        assert isinstance(result, Applied), result
        return result

    def reject(self, command: Command) -> str:
        result = self.do(command)
        assert isinstance(result, Rejected), result
        return result.reason

    def worker(self, peer: PeerId, incarnation: int = 1, slots: int = 2) -> None:
        self.accept(Register(peer, f"host-{peer}", incarnation, slots))

    def submit(self, nonce: bytes = b"nonce", **changes: object) -> Run:
        run = self.accept(Submit(nonce, spec(**changes), 100.0)).run
        assert run is not None
        return self.state.runs[run]

    def running(self, *tasks: Task, nonce: bytes = b"nonce", **changes: object) -> Run:
        """A collected run, its workers registered."""
        for peer in (ALICE, BOB):
            if peer not in self.state.workers:
                self.worker(peer)
        run = self.submit(nonce, **changes)
        lease = self.grant(run.id, ALICE)
        tests = sum(task.count for task in tasks)
        requirements = tuple((f"r{i}", "") for i in range(1 + max((t.requirement for t in tasks), default=0)))
        self.accept(Collected(lease, MANIFEST, tests, tasks, requirements))
        return run

    def grant(self, run: RunId, peer: PeerId, *tasks: Task) -> LeaseId:
        lease = self.accept(Grant(run, peer, self.state.workers[peer].incarnation, tasks)).lease
        assert lease is not None
        return lease


def complete(lease: LeaseId, *tests: int, outcome: Outcome = Outcome.PASSED, micros: int = 1_000) -> Complete:
    return Complete(
        lease, CHUNK, tuple(TestIndex(t) for t in tests), bytes([outcome.code]) * len(tests), (micros,) * len(tests)
    )

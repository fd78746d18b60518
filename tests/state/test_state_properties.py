"""`apply` against everything that the codec lets through: the state's invariants hold after each command, what is
rejected changed nothing, a verdict stays, and a voter that starts from a snapshot anywhere goes on the same.

Commands are made from the state as it is (live and closed leases, pending and foreign tests), so that many of them
hold; a share of their numbers is at the ends of what a message can carry.
"""

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from state_builder import ALICE, BOB, CHUNK, MANIFEST, spec

from mesh.state import alerts, invariants, pinset, ranges, retention
from mesh.state.apply import apply
from mesh.state.invariants import check
from mesh.state.model import CoordinatorState, Lease, Run, RunPhase, Task
from mesh.state.results import Rejected
from mesh.state.snapshot import decode_state, encode_state, state_hash
from protocols.alerts import (
    AcknowledgeAlert,
    AlertKind,
    AlertsTold,
    ClearAlerts,
    Finding,
    Quarantine,
    RaiseAlerts,
    Release,
    Severity,
)
from protocols.codec import decode, encode
from protocols.commands import (
    COMMANDS,
    Abandon,
    Cancel,
    Collected,
    CollectFailed,
    Command,
    Complete,
    Expire,
    Finish,
    Found,
    Grant,
    Hedge,
    PinKind,
    PinReference,
    PinRoot,
    Placed,
    Placement,
    Preempt,
    RaiseFormat,
    Register,
    Return,
    Skip,
    Submit,
    Unpin,
    Yield,
)
from protocols.ids import AlertId, Cid, LeaseId, PeerId, RunId, TestIndex
from protocols.manifests import NOTHING, Companion, Dependency, Device, Needs
from tests.properties import examples

PEERS = (ALICE, BOB, PeerId("carol"))
EXTREMES = (-(2**63), -1, 0, 2**31, 2**63 - 1)
SEEDS = st.builds(
    lambda seed, length: list(range(seed, seed + length)), st.integers(0, 2**32), st.integers(0, 150)
)  # not a list of integers, which is short as a rule


class Author:
    """Writes one command about a state, from one seed."""

    def __init__(self, state: CoordinatorState, seed: int) -> None:
        self.state = state
        self.random = Random(seed)

    def command(self) -> Command:
        often = (self.grant, self.complete) if self.lease() else (self.grant, self.collected)
        others = (
            self.register,
            self.submit,
            self.collected,
            self.finish,
            self.finish,
            self.give_back,
            self.preempt,
            self.expire,
            self.skip,
            self.hedge,
            self.hedge,
            self.pin,
            self.unpin,
            self.place,
            self.alert,
        )
        rarely = (self.abandon, self.cancel, self.rare)
        kinds = self.random.choice((often, often, others, others, rarely if self.random.random() < 0.3 else others))
        return self.random.choice(kinds)()

    def number(self, usual: int) -> int:
        return usual if self.random.random() < 0.97 else self.random.choice(EXTREMES)

    def lease(self, collects: bool = False) -> Lease | None:
        held = [lease for lease in self.state.leases.values() if lease.collects is collects]
        return self.random.choice(held) if held else None

    def lease_id(self, lease: Lease | None) -> LeaseId:
        return LeaseId(self.number(lease.id if lease else self.random.randint(0, self.state.applied + 1)))

    def run(self, *phases: RunPhase) -> Run | None:
        """One in one of these phases, if there is one."""
        everything = list(self.state.runs.values())
        fit = [run for run in everything if run.phase in phases] or everything
        return self.random.choice(fit) if fit else None

    def run_id(self, run: Run | None) -> RunId:
        return RunId(self.number(run.id if run else self.random.randint(0, self.state.applied + 1)))

    def tests(self, tasks: list[Task]) -> tuple[TestIndex, ...]:
        """Some of those in `tasks`, some that are not, some twice, in any order."""
        held = [test for task in tasks for test in range(task.first, ranges.end(task))]
        chosen = [test for test in held if self.random.random() < 0.6]
        if self.random.random() < 0.2:
            chosen += [self.number(self.random.randint(-1, 20)), *chosen[:1]]
        self.random.shuffle(chosen)
        return tuple(map(TestIndex, chosen))

    def register(self) -> Command:
        peer = self.random.choice(PEERS)
        known = self.state.workers.get(peer)
        incarnation = known.incarnation + self.random.choice((-1, 0, 0, 1)) if known else 1
        slots = self.number(self.random.choice((2, 2, 2, 1, 3)))
        return Register(peer, "host", self.number(max(-5, min(incarnation, 2**62))), slots)

    def submit(self) -> Command:
        nonce = bytes([self.random.randrange(40)])
        retries, priority = self.random.randint(0, 2), self.random.choice((0, 50, 50, 100))
        hedge = self.random.random() < 0.7
        return Submit(
            nonce, spec(retries=retries, priority=priority, hedge=hedge), self.random.choice((0.0, -1e300, 1e300))
        )

    def collected(self) -> Command:
        lease = self.lease(collects=True)
        if self.random.random() < 0.1:
            return CollectFailed(self.lease_id(lease), self.number(2), "reason", self.random.choice((None, CHUNK)))
        count = self.random.randint(0, 12)
        cut = self.random.randint(0, count)
        parts = [(0, cut), (cut, count - cut)]
        tasks = tuple(
            Task(self.number(first) % 2**63, size, self.random.randint(0, 2)) for first, size in parts if size
        )
        requirements = (("", ""), ("a", "b"), ("c", ""))
        needs = self.random.choice(((), (NOTHING, self.needs()), (self.needs(), NOTHING, self.needs())))
        dependencies = self.dependencies(cut, count) if self.random.random() < 0.5 else ()
        return Collected(self.lease_id(lease), MANIFEST, self.number(count), tasks, requirements, needs, dependencies)

    def needs(self) -> Needs:
        locks = tuple(lock for lock in ("camera", "rig") if self.random.random() < 0.4)
        gpu, hosts = self.random.choice((0, 0, 300, 1000, 2000)), self.random.choice((1, 1, 2, 3))
        return Needs(gpu=gpu, locks=locks, memory=self.number(0) % 2**53, hosts=hosts)

    def dependencies(self, cut: int, count: int) -> tuple[Dependency, ...]:
        """Between the two parts of the tests, as a rule one way."""
        made = []
        for _ in range(self.random.randint(0, 2)):
            first = cut if self.random.random() < 0.9 else 0
            waiting = max(1, count - cut) if self.random.random() < 0.9 else 1
            on = self.random.randint(0, max(cut - 1, 0))
            on_count = self.random.randint(0, max(cut - on, 0))
            made.append(Dependency(first, waiting, on, on_count, self.random.random() < 0.7))
        return tuple(made)

    def grant(self) -> Command:
        run, peer = self.run(RunPhase.COLLECTING, RunPhase.RUNNING), self.random.choice(PEERS)
        known = self.state.workers.get(peer)
        tasks = []
        for task in run.pending if run else ():
            if self.random.random() < 0.6:
                first = self.random.randint(task.first, ranges.end(task) - 1)
                count = self.random.randint(1, ranges.end(task) - first + self.random.choice((0, 0, 0, 1)))
                tasks.append(Task(first, count, task.requirement, task.losses))
        self.random.shuffle(tasks)
        if run and tasks and self.random.random() < 0.5:
            tasks = [task for task in tasks if task.requirement == tasks[0].requirement]
        needs = run.needs_of(tasks[0].requirement) if run and tasks else NOTHING
        others = [other for other in PEERS if other != peer] * 2
        hosts = self.random.sample(others if self.random.random() < 0.1 else others[:2], needs.hosts - 1)
        companions = tuple(
            Companion(other, self.state.workers[other].incarnation, self.devices(needs.gpu))
            for other in hosts
            if other in self.state.workers
        )
        if needs.hosts > 1 and self.random.random() < 0.8:
            tasks = [replace(task, count=1) for task in tasks[:1]]
        incarnation = self.number(known.incarnation if known else 1)
        return Grant(self.run_id(run), peer, incarnation, tuple(tasks), self.devices(needs.gpu), companions)

    def devices(self, gpu: int) -> tuple[Device, ...]:
        names = self.random.sample(("gpu0", "gpu1", "gpu2"), max(1, gpu // 1000))
        devices = tuple(Device(name, min(gpu, 1000)) for name in names) if gpu else ()
        return (*devices, Device("gpu0", 500)) if self.random.random() < 0.05 else devices

    def hedge(self) -> Command:
        lease, peer = self.lease(), self.random.choice(PEERS)
        known = self.state.workers.get(peer)
        test = (self.tests(lease.open if lease else []) or (TestIndex(0),))[0]
        return Hedge(self.lease_id(lease), test, peer, self.number(known.incarnation if known else 1))

    def complete(self) -> Command:
        lease = self.lease()
        tests = self.tests(lease.open if lease else [])
        outcomes = bytes(self.random.choice((0, 0, 1, 2, 3, 4, 5)) for _ in tests)
        durations = tuple(self.random.choice((0, 1000, *EXTREMES)) for _ in tests)
        return Complete(self.lease_id(lease), CHUNK, tests, outcomes, durations)

    def give_back(self) -> Command:
        lease = self.lease(collects=self.random.random() < 0.3)
        return Return(self.lease_id(lease), self.tests(lease.open if lease else []))

    def preempt(self) -> Command:
        return Preempt(
            self.lease_id(self.lease(collects=self.random.random() < 0.1)), self.run_id(self.run(RunPhase.RUNNING))
        )

    def expire(self) -> Command:
        lease = self.lease(collects=self.random.random() < 0.2)
        lost = self.random.choice(lease.hosts) if lease and self.random.random() < 0.7 else PeerId("")
        return Expire(self.lease_id(lease), "gone", lost)

    def abandon(self) -> Command:
        run = self.run(RunPhase.RUNNING)
        tests = self.tests(run.pending if run else []) or (TestIndex(0),)
        return Abandon(self.run_id(run), tests[0], CHUNK)

    def skip(self) -> Command:
        run = self.run(RunPhase.RUNNING)
        return Skip(self.run_id(run), self.tests(run.pending if run else []), CHUNK)

    def cancel(self) -> Command:
        return Cancel(self.run_id(self.run()), "enough", self.number(2))

    def finish(self) -> Command:
        run = self.run(RunPhase.REPORTING)
        return Finish(self.run_id(run), self.random.choice((None, CHUNK)), self.number(0), 9.0)

    def root(self) -> Cid:
        return self.random.choice([*self.state.pins, CHUNK, Cid(f"bafk{self.random.randrange(9)}")])

    def pin(self) -> Command:
        return PinRoot(self.root(), self.number(2), "mine", self.random.choice((1.0, 2.0)))

    def unpin(self) -> Command:
        pins = list(self.state.pins.values())
        chosen = self.random.sample(pins, min(len(pins), 3))
        known = [PinReference(pin.root, reason.kind, reason.since) for pin in chosen for reason in pin.reasons]
        return Unpin((*known, PinReference(self.root(), PinKind.USER, 2.0)))

    def place(self) -> Command:
        held, lost = (tuple(self.random.sample(PEERS, self.random.randrange(3))) for _ in range(2))
        return Placed((Placement(self.root(), held, lost, self.number(7)),))

    def alert(self) -> Command:
        """One of the commands about alerts."""
        known = [*self.state.alerts, AlertId(7)]
        one, other = self.random.choice(known), self.random.choice(known)
        kind, subject = self.random.choice((AlertKind.BAD_HOST, AlertKind.FLAKY_TEST)), self.random.choice("abc")
        return self.random.choice(
            (
                RaiseAlerts((Finding(kind, subject, Severity.INFO, "seen"),), 5.0),
                ClearAlerts((one, other), 6.0),
                AcknowledgeAlert(one, "me", 7.0),
                AlertsTold((one,), (other,)),
                Quarantine(self.random.choice(PEERS), one, 5.0, 9.0),
                Release(self.random.choice(PEERS)),
            )
        )

    def rare(self) -> Command:
        return self.random.choice((Found("lab"), RaiseFormat(3), RaiseFormat(5), Found(""), Yield("other"), Yield("")))


@pytest.fixture(autouse=True, scope="module")
def short_memory() -> object:
    """Finished runs are soon summed up, and soon forgotten."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(retention, "RUNS_DETAILED_MAX", 2)
        patch.setattr(retention, "RUNS_SUMMARISED_MAX", 5)
        patch.setattr(pinset, "USER_PINS_MAX", 4)
        for module in (alerts, invariants):
            patch.setattr(module, "ALERTS_ACTIVE_MAX", 3)
            patch.setattr(module, "ALERTS_MAX", 5)
        yield


def nothing(seeds: list[int]) -> CoordinatorState:
    """An empty log of some format."""
    return CoordinatorState(format=(1, 3, 4, 5)[seeds[0] % 4] if seeds else 1)


def verdicts(state: CoordinatorState) -> dict[tuple[int, int], int]:
    return {
        (run.id, test): code for run in state.runs.values() for done in run.chunks
        for test, code in zip(done.tests, done.outcomes, strict=True)
    }  # fmt: skip


@settings(max_examples=examples(40))
@given(SEEDS)
def test_whatever_is_applied_the_state_holds(seeds: list[int]) -> None:
    state = nothing(seeds)
    for seed in seeds:
        command = Author(state, seed).command()
        assert decode(encode(command), *COMMANDS) == command, "nothing is tried that could not come from a log"
        known, index = verdicts(state), state.applied + 1
        before = encode_state(replace(state, applied=index))
        result = apply(state, index, command)
        check(state)
        if isinstance(result, Rejected):
            assert encode_state(state) == before, "what is rejected changes nothing"
        now = verdicts(state)
        assert all(now[key] == code for key, code in known.items() if key[0] in state.runs), "a verdict stays"


@settings(max_examples=examples(20))
@given(SEEDS, st.data())
def test_a_voter_that_starts_from_any_snapshot_goes_on_the_same(seeds: list[int], data: st.DataObject) -> None:
    state, log, hashes = nothing(seeds), [], [state_hash(nothing(seeds))]
    for seed in seeds:
        command = Author(state, seed).command()
        log.append((command, apply(state, state.applied + 1, command)))
        hashes.append(state_hash(state))
    start = data.draw(st.integers(0, len(log)))
    twin = nothing(seeds)
    for command, _ in log[:start]:
        apply(twin, twin.applied + 1, command)
    twin = decode_state(encode_state(twin))
    assert state_hash(twin) == hashes[start]
    for position, (command, result) in enumerate(log[start:], start):
        assert apply(twin, twin.applied + 1, command) == result
        assert state_hash(twin) == hashes[position + 1]

"""The worker's state machine: events in, instructions out (after dask's WorkerState). Pure.

It owns which leases this worker holds and which of their tests are still open. Invariants:
- a lease is held from its assignment until all its tests are reported and acknowledged, or it is closed or revoked;
- leases are fed to the slots in the order in which they were granted, one run's at a time, so that `slots` bounds what
  runs at once; while that leaves slots free, the next leases' tests fill them, one for one, whatever their run;
- a test is given back only if it never started, and is never reported after that.
Rejected: one queue over all runs (a session of processes belongs to one bundle and environment).
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from protocols.errors import MeshFailed
from protocols.ids import LeaseId, RunId, TestIndex
from protocols.work import Assign

LEASES_MAX = 256
"""Leases that one worker holds at once; more are refused."""


@dataclass(frozen=True, slots=True)
class Prepare:
    """Get the run's bundle and manifest and open its session; then tell `ready` or `unfit`."""

    assign: Assign


@dataclass(frozen=True, slots=True)
class Collect:
    """Collect the run's tests, then tell `collected`."""

    assign: Assign


@dataclass(frozen=True, slots=True)
class Feed:
    """Queue these tests of the lease on the run's session."""

    assign: Assign
    tests: tuple[TestIndex, ...]


@dataclass(frozen=True, slots=True)
class Kill:
    """Stop whatever runs of the lease; nothing of it is reported any more."""

    run: RunId
    lease: LeaseId


@dataclass(frozen=True, slots=True)
class Offer:
    """Tell the coordinator that these tests will not be started here."""

    lease: LeaseId
    tests: tuple[TestIndex, ...]
    reason: str
    exit_code: int = MeshFailed.exit_code
    """What the run ends with if no worker can run them."""


Instruction = Prepare | Collect | Feed | Kill | Offer


@dataclass(slots=True)
class HeldLease:
    """`open` are its tests without a result, in order; `started` those of them under way or done."""

    assign: Assign
    open: dict[TestIndex, None]
    started: set[TestIndex] = field(default_factory=set)
    unfed: dict[TestIndex, None] = field(default_factory=dict)
    """Those of `open` that the session does not have yet."""
    unreported: int = 0
    """Tests that ended and whose result is not yet in the outbox."""
    unacknowledged: int = 0
    """Results in the outbox."""

    @property
    def fed(self) -> int:
        """Tests that the session has, and that have not ended."""
        return len(self.open) - len(self.unfed)

    def give_up(self, tests: Iterable[TestIndex]) -> None:
        for test in tests:
            self.open.pop(test, None)
            self.unfed.pop(test, None)


class WorkerMachine:
    """All leases of one worker process."""

    def __init__(self, slots: int) -> None:
        self.held: dict[LeaseId, HeldLease] = {}
        self._slots = slots
        self.draining = False
        self._ready: set[RunId] = set()
        self._preparing: set[RunId] = set()

    # What the agent asks

    def leases(self) -> tuple[LeaseId, ...]:
        """Leases held, oldest first."""
        return tuple(sorted(self.held))

    def running(self) -> tuple[tuple[LeaseId, TestIndex], ...]:
        """Tests under way now."""
        return tuple(
            (lease, test)
            for lease, held in sorted(self.held.items())
            for test in sorted(held.started)
            if test in held.open
        )

    def wants(self, run: RunId) -> bool:
        """Whether some lease of the run is held."""
        return any(held.assign.run == run for held in self.held.values())

    # Events

    def assigned(self, assign: Assign) -> list[Instruction]:
        """A lease was granted to this worker. The same one again changes nothing."""
        if assign.lease in self.held:
            return []
        tests = tuple(TestIndex(i) for task in assign.tasks for i in range(task.first, task.first + task.count))
        if self.draining or len(self.held) >= LEASES_MAX:
            return [Offer(assign.lease, tests, "")]
        self.held[assign.lease] = HeldLease(assign, dict.fromkeys(tests), unfed=dict.fromkeys(tests))
        if not tests:
            return [Collect(assign)]
        if assign.run in self._ready:
            return self._feed()
        if assign.run in self._preparing:
            return []
        self._preparing.add(assign.run)
        return [Prepare(assign)]

    def ready(self, run: RunId) -> list[Instruction]:
        """The run's session is open."""
        self._preparing.discard(run)
        self._ready.add(run)
        return self._feed()

    def unfit(self, run: RunId, reason: str, exit_code: int = MeshFailed.exit_code) -> list[Instruction]:
        """The run's session could not be opened, or broke: give back everything of it."""
        self._preparing.discard(run)
        self._ready.discard(run)
        offers: list[Instruction] = []
        for lease in self.leases():
            held = self.held[lease]
            if held.assign.run == run and held.open:
                offers.append(Offer(lease, tuple(held.open), reason, exit_code))
                self._drop_open(lease)
        return offers + self._feed()

    def closed_session(self, run: RunId) -> None:
        """The run's idle session was closed; a later lease prepares it again."""
        self._ready.discard(run)

    def collected(self, lease: LeaseId) -> None:
        """The collection was delivered, or the collect lease was given back."""
        self.held.pop(lease, None)

    def started(self, lease: LeaseId, test: TestIndex) -> bool:
        """A slot began a test; False if the lease is no longer held."""
        held = self.held.get(lease)
        if held is None or test not in held.open:
            return False
        held.started.add(test)
        return True

    def finished(self, lease: LeaseId, test: TestIndex) -> bool:
        """A test ended; False if its result must be thrown away."""
        held = self.held.get(lease)
        if held is None or test not in held.open:
            return False
        held.give_up([test])
        held.unreported += 1
        return True

    def reported(self, lease: LeaseId, tests: int) -> None:
        """A result with so many tests of the lease lies in the outbox."""
        if lease in self.held:
            self.held[lease].unreported -= tests
            self.held[lease].unacknowledged += 1

    def acknowledged(self, lease: LeaseId) -> None:
        """The coordinator has a result of the lease."""
        held = self.held.get(lease)
        if held is not None:
            held.unacknowledged -= 1
            self._forget_if_done(lease)

    def idle(self) -> list[Instruction]:
        """A test ended: perhaps another run's turn. Worth asking when a lease has nothing open, or `mixed`."""
        return self._feed()

    @property
    def mixed(self) -> bool:
        """Whether leases of several runs are held."""
        runs = iter(self.held.values())
        first = next(runs, None)
        return first is not None and any(held.assign.run != first.assign.run for held in runs)

    def revoked(self, leases: Sequence[LeaseId]) -> list[Instruction]:
        """These leases are no longer open: stop them."""
        kills: list[Instruction] = []
        for lease in leases:
            held = self.held.pop(lease, None)
            if held is not None and (held.open or not held.assign.tasks):
                kills.append(Kill(held.assign.run, lease))
        return kills + self._feed()

    def drain(self) -> list[Instruction]:
        """Start nothing more: what has not started goes back."""
        self.draining = True
        offers: list[Instruction] = []
        for lease in self.leases():
            offers += self._offer_unfed(lease)
        return offers

    def recalled(self, lease: LeaseId) -> list[Instruction]:
        """The coordinator would have back what has not started: what no session has yet goes at once."""
        return self._offer_unfed(lease) if lease in self.held else []

    def withdrawn(self, lease: LeaseId, tests: Sequence[TestIndex]) -> list[Instruction]:
        """The session gave up these queued tests, on our asking: give them back."""
        held = self.held.get(lease)
        if held is None:
            return []
        back = tuple(test for test in tests if test in held.open)
        self._withdraw(lease, back)
        return [Offer(lease, back, ""), *self._feed()] if back else []

    # Inside

    def _offer_unfed(self, lease: LeaseId) -> list[Instruction]:
        back = tuple(self.held[lease].unfed)
        self._withdraw(lease, back)
        return [Offer(lease, back, "")] if back else []

    def _withdraw(self, lease: LeaseId, tests: Sequence[TestIndex]) -> None:
        if tests:
            self.held[lease].give_up(tests)
            self._forget_if_done(lease)

    def _drop_open(self, lease: LeaseId) -> None:
        self.held[lease].give_up(list(self.held[lease].open))
        self._forget_if_done(lease)

    def _forget_if_done(self, lease: LeaseId) -> None:
        held = self.held[lease]
        if not held.open and held.unreported <= 0 and held.unacknowledged <= 0:
            del self.held[lease]

    def _feed(self) -> list[Instruction]:
        """The oldest leases of one run whole, up to the first of another; then as much as fills the slots."""
        leases = [self.held[lease] for lease in self.leases()]
        waiting = [held for held in leases if held.open and held.assign.run in self._ready]
        room = self._slots - sum(held.fed for held in waiting)
        feeds: list[Instruction] = []
        is_turn = not any(held.fed and held.assign.run != waiting[0].assign.run for held in waiting)
        for held in waiting:
            is_turn = is_turn and held.assign.run == waiting[0].assign.run
            tests = tuple(itertools.islice(held.unfed, None if is_turn else max(0, room)))
            if tests:
                room -= len(tests)
                for test in tests:
                    del held.unfed[test]
                feeds.append(Feed(held.assign, tests))
        return feeds

"""What a worker has on its desk while a plan is made: what it holds by the log, and what the plan has added.

A worker should always hold a little more than it can run at once, so that no slot waits for the coordinator, and not
much more, so that the end of a run can still be balanced. A test occupies one slot however long it takes: it counts for
at most one backlog, so that a worker with one endless test and an idle slot still has room.
"""

from dataclasses import dataclass

from mesh.scheduler.durations import Estimates
from mesh.scheduler.fleet import WorkerView
from mesh.scheduler.shelf import Shelf
from mesh.state.model import LEASES_PER_WORKER_MAX, LOSSES_MAX, Task
from protocols.commands import TESTS_PER_COMMAND_MAX
from protocols.ids import RunId
from protocols.manifests import Device, Needs

BACKLOG_SECONDS_MAX = 1.0
"""Expected seconds a slot below which a worker gets more."""
COLLECT_SECONDS = 1.0
"""What a collection counts for."""


@dataclass(slots=True)
class Piece:
    """Tests that a worker holds: how many, and their expected seconds together."""

    tests: int
    seconds: float

    def capped(self, backlog: float) -> float:
        return min(self.seconds, self.tests * backlog)

    def long(self, backlog: float) -> int:
        """Tests that occupy a slot for the whole backlog."""
        return self.tests if self.seconds >= self.tests * backlog else 0


class Desk:
    """One usable worker during one plan."""

    def __init__(self, view: WorkerView, losses: int) -> None:
        self.view = view
        self.losses = losses
        """Leases that it ever lost."""
        self.leases = 0
        self.pieces: list[Piece] = []
        self.contenders = 0
        """Tests on it that had better not run beside each other."""
        self.suspects = 0
        """Leases with a task that lost its node more than once."""
        self.reserved = False
        """Kept empty for a test that must have a node to itself, or given to one."""
        self.shelf = Shelf()
        self.kept = False
        """Nothing more is taken from its shelf in this plan: somebody waits for what is there."""
        self.hosts = False
        """Slots are kept here for tests that run elsewhere: it gets no more than its other slots can run at once."""
        self.awaited = False
        """Some are kept in this plan for a test that finds too few hosts with a slot free."""
        self.changed = False
        """Whether the plan put something on it, or reserved it."""
        self.stuck = 0
        """Slots whose tests run longer than was expected,"""
        self.soon = 0
        """and those whose long ones are about to end."""
        self._full = 0.0
        self._seconds = 0.0
        self._tests = 0
        self._tests_of: dict[RunId, int] = {}
        """But those that hold something."""
        self.guessed: set[RunId] = set()
        """Runs of which nobody knows how long their tests are."""

    def reserve(self) -> None:
        self.reserved = self.changed = True

    def keep(self) -> None:
        self.kept = self.changed = True

    def await_slots(self, needs: Needs, devices: tuple[Device, ...]) -> None:
        """Keep for a test that can't have them yet what it would take here."""
        self.shelf.take(self.view, needs, devices)
        self.shelf.leases -= 1
        self.hosts = self.awaited = self.changed = True

    def hold_serially(self, tasks: list[Task], estimates: Estimates | None, scale: float) -> float:
        """Put a lease on the desk whose tests run one after another; its needs are taken from the shelf. How many slots
        that takes."""
        self.leases += 1
        seconds = 0.0
        if estimates is not None:
            seconds = sum(estimates.total(task.first, task.count) for task in tasks)
            seconds *= scale * estimates.factor(self.view.peer)
        self.pieces.append(Piece(1, seconds))
        self.suspects += any(is_suspect(task) for task in tasks)
        if self.leases == 1 and len(tasks) == 1 and is_last_chance(tasks[0]):
            self.reserved = True
        self.changed = True
        return self._count(len(self.pieces) - 1)

    def single_tests(self) -> int:
        """How many more tests of one slot may be granted: any number, until some lease takes several slots, or takes
        them for a test that runs elsewhere."""
        serial = self.shelf.leases
        if self.shelf.slots <= serial and not self.hosts:
            return TESTS_PER_COMMAND_MAX
        return max(0, self.view.slots - self.shelf.slots - (self.tests() - serial))

    def can_empty(self, slots: int) -> bool:
        """Whether a test of several slots finds them free now; one of a single slot may queue, if none is kept."""
        return (slots == 1 and not self.hosts) or self.has_free(slots)

    def has_free(self, slots: int) -> bool:
        """Whether so many slots have nothing to run, and nothing waits for them."""
        return self.shelf.slots + slots + self.tests() - self.shelf.leases <= self.view.slots

    def hold(
        self, run: RunId, tasks: list[Task], estimates: Estimates | None, scale: float, joins: bool = False
    ) -> float:
        """Put a lease on the desk; no tasks: a collection. With `joins`, tasks of a lease that lies there. How many
        slots they take."""
        self.leases += not joins
        self.changed = True
        before = len(self.pieces)
        if not tasks:
            self.pieces.append(Piece(1, COLLECT_SECONDS))
        if estimates is not None:
            scale *= estimates.factor(self.view.peer)
            if estimates.contending:
                self.contenders += sum(task.first in estimates.contending for task in tasks)
        tests, suspects = 0, False
        for task in tasks:
            seconds = estimates.total(task.first, task.count) * scale if estimates else 0.0
            self.pieces.append(Piece(task.count, seconds))
            tests += task.count
            suspects = suspects or is_suspect(task)
        if tests:
            self._tests_of[run] = self._tests_of.get(run, 0) + tests
        self.suspects += suspects
        if self.leases == 1 and len(tasks) == 1 and is_last_chance(tasks[0]):
            self.reserved = True
        return self._count(before)

    def _count(self, before: int) -> float:
        """Add up what lies there since; the slots that it takes."""
        full = self._full
        for piece in self.pieces[before:]:
            self._full += piece.capped(BACKLOG_SECONDS_MAX)
            self._seconds += piece.seconds
            self._tests += piece.tests
        return min((self._full - full) / BACKLOG_SECONDS_MAX, float(self.view.slots))

    def load(self) -> float:
        """Expected seconds of work a slot."""
        return self._seconds / self.view.slots

    def tests(self) -> int:
        """Tests on it."""
        return self._tests

    def room_for(self, run: RunId, tests_max: int) -> int:
        """How many more tests of a run may lie here, when a slot may have so many of them, and of others that may be
        just as long."""
        there = sum(tests for other, tests in self._tests_of.items() if other == run or other in self.guessed)
        return tests_max * self.view.slots - there

    def has_lease_left(self) -> bool:
        return not self.reserved and self.leases < LEASES_PER_WORKER_MAX

    def has_room(self, backlog: float) -> bool:
        slots = self.view.slots - self.stuck + self.soon
        if self._full >= BACKLOG_SECONDS_MAX * slots or not self.has_lease_left():
            return False  # what fills the largest backlog fills any
        if backlog >= BACKLOG_SECONDS_MAX or self._full < backlog * slots:
            return True  # what does not fill this one by the measure of the largest does not fill it by its own
        return sum(piece.capped(backlog) for piece in self.pieces) < backlog * slots

    def free_slots(self, backlog: float) -> int:
        """Slots that are not taken by a long test; at least 1."""
        return max(1, self.view.slots - self.stuck - sum(piece.long(backlog) for piece in self.pieces))


def is_suspect(task: Task) -> bool:
    """It lost its node more than once: two such tasks on one worker could not be told apart."""
    return task.losses >= LOSSES_MAX - 1


def is_last_chance(task: Task) -> bool:
    """One more loss abandons this test, so it must be lost alone."""
    return task.count == 1 and is_suspect(task)

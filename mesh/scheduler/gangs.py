"""Tests that need several hosts at once: which hosts a test gets, and what is kept for it while there are too few.

All or nothing: a test is placed when so many workers have what it takes free at once, and takes nothing before, so two
such tests never each hold half of what both need. Who waits would starve if whatever comes free went to others, so a
plan keeps slots for it: on as many workers as it needs, on those that have them free already and on those that
will have them the soonest, nothing more is put into as many slots as it takes. **Bound:** once it is its turn in the
queue, it waits for what these workers hold by then, and for nothing that is granted later; the longest test among that
is what it takes. Other slots of the same workers go on. Of those who wait for the same workers one at a time keeps
them, in the order of the queue; one whose hosts are free runs meanwhile.
"""

from collections.abc import Callable, Mapping, Sequence

from mesh.scheduler import shelf
from mesh.scheduler.desk import Desk, is_last_chance
from mesh.scheduler.elsewhere import WAIT_SECONDS_MAX, Elsewhere
from mesh.scheduler.feasibility import Need, Reason
from mesh.scheduler.portions import Draft, cut, fits_beside
from mesh.scheduler.supply import Group, Lengths
from mesh.state.model import Run, Task
from protocols.ids import PeerId
from protocols.manifests import Companion

TRIED_MAX = 64
"""Tests of one requirement that find no place, in one plan: others than the first are tried only if what keeps a test
back is its own past."""
REASONS_MAX = 64
"""Workers that are said to have nothing free."""


class Gangs:
    """The tests of one run and requirement, while one plan places them. `ranked`: desks of those who can do it, the
    best first; they only fill up, so who has nothing free is not asked again."""

    def __init__(
        self,
        run: Run,
        wanted: Need,
        ranked: Sequence[Desk],
        group: Group,
        lengths: Lengths,
        may_join: Callable[[Run, Desk], bool],
    ) -> None:
        self._run = run
        self._wanted = wanted
        self._everyone = ranked
        self._free = list(ranked)
        self._lengths = lengths
        self._may_join = may_join
        self._elsewhere = Elsewhere(run, ranked, may_join)
        self._tasks = [task for _, task in (*group.lossy, *group.fresh, *group.again)]
        self._stuck: list[Task] = []
        """Tests that found no place."""
        self.awaited: list[Desk] = []
        """Where slots are kept for the first of them."""
        self.reasons: tuple[Reason, ...] = ()
        """Why it found none."""

    @property
    def tests(self) -> int:
        """How many have no place."""
        return sum(task.count for task in (*self._tasks, *self._stuck))

    def place(self) -> tuple[Draft, float] | None:
        """A test and its hosts, and how many slots they take in all; None once no more can be placed."""
        while self._tasks and len(self._stuck) < TRIED_MAX:
            task, rest = cut(self._tasks.pop(), 1)
            self._tasks += rest
            hosts = self._hosts(task)
            if hosts:
                return self._take(task, hosts)
            self._stuck.append(task)
            if len(self._stuck) == 1:
                self._await(task)
            if not task.losses and task.first not in self._run.failed_on:
                break
        return None

    def _hosts(self, task: Task) -> list[Desk]:
        """Where it would run first, then its companions; empty if there are too few."""
        leader: Desk | None = None
        others: list[Desk] = []
        place = 0
        while place < len(self._free) and (leader is None or len(others) < self._wanted.takes.hosts - 1):
            desk = self._free[place]
            if self._missing(desk):
                del self._free[place]
                continue
            place += 1
            if task.losses and not fits_beside(task, desk):
                continue
            if leader is None and self._may_lead(task, desk):
                leader = desk
            else:
                others.append(desk)
        wanted = self._wanted.takes.hosts - 1
        return [leader, *others[:wanted]] if leader is not None and len(others) >= wanted else []

    def _may_lead(self, task: Task, desk: Desk) -> bool:
        return self._may_join(self._run, desk) and not self._elsewhere.shuns(task, desk.view.peer)

    def _missing(self, desk: Desk) -> str:
        """What it has not free now, as the end of a sentence."""
        if desk.kept or not desk.has_lease_left():
            return "has to wait"
        if not desk.has_free(shelf.slots_of(self._wanted.takes, desk.view)):
            return "has no slot free"
        return desk.shelf.missing(desk.view, self._wanted.takes, self._wanted.requires)

    def _take(self, task: Task, hosts: Sequence[Desk]) -> tuple[Draft, float]:
        estimates, scale, _ = self._lengths
        held = []
        slots = 0.0
        for desk in hosts:
            devices = desk.shelf.choose(desk.view, self._wanted.takes, self._wanted.requires)
            assert devices is not None, "nothing is missing on this desk"
            desk.shelf.take(desk.view, self._wanted.takes, devices)
            desk.hosts = desk.hosts or desk is not hosts[0]
            slots += desk.hold_serially([task], estimates, scale)
            held.append(Companion(desk.view.peer, desk.view.incarnation, devices))
        return Draft(self._run.id, hosts[0], [task], 1, held[0].devices, tuple(held[1:])), slots

    def _await(self, task: Task) -> None:
        """Note what is missing where, and keep slots where the test will have them the soonest."""
        missing = {desk.view.peer: self._missing(desk) for desk in self._everyone}
        named = [desk.view for desk in self._everyone if missing[desk.view.peer]][:REASONS_MAX]
        self.reasons = tuple(Reason(view.peer, view.name, missing[view.peer]) for view in named)
        soonest = self._soonest(task, missing)
        if not soonest or any(desk.awaited for desk in soonest):
            return
        for desk in soonest:
            devices = desk.shelf.choose(desk.view, self._wanted.takes, self._wanted.requires)
            desk.await_slots(self._wanted.takes, devices or ())
            if is_last_chance(task):  # all of the worker has to become free
                desk.reserve()
        self.awaited = [desk for desk in soonest if missing[desk.view.peer]]

    def _soonest(self, task: Task, missing: Mapping[PeerId, str]) -> list[Desk]:
        """Who will have what it takes before others: one who may lead it, and its companions; empty if there are too
        few that could."""
        open_to = [desk for desk in self._everyone if not (desk.kept or desk.reserved)]
        ordered = sorted(open_to, key=lambda desk: _delay(desk, missing[desk.view.peer]))
        leader = next((desk for desk in ordered if self._may_lead(task, desk)), None)
        if leader is None or len(ordered) < self._wanted.takes.hosts:
            return []
        return [leader, *(desk for desk in ordered if desk is not leader)][: self._wanted.takes.hosts]


def _delay(desk: Desk, missing: str) -> tuple[bool, int, float, PeerId]:
    """Smaller for who has what is needed sooner: now, or when what it holds has ended, as far as that is known."""
    endless = sum(seconds >= WAIT_SECONDS_MAX for _, _, seconds in desk.view.running)
    return (bool(missing), endless, desk.load(), desk.view.peer)

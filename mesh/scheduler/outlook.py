"""Why the tests of a run wait, worker by worker, and what would help: for those who ask. Pure.

The plan notes only what it can give to nobody. Here every worker has its reason, also the one that is merely busy, for
the whole run requirement by requirement, or for one test.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mesh.scheduler import feasibility
from mesh.scheduler.desk import Desk
from mesh.scheduler.feasibility import Need, Reason
from mesh.scheduler.fleet import WorkerView
from mesh.scheduler.helps import about, helps
from mesh.scheduler.waiting import Help, Waiting, holders_of
from mesh.state import ranges
from mesh.state.dependencies import NO_VERDICT, Standing
from mesh.state.model import CoordinatorState, Run, RunPhase
from protocols.ids import PeerId

REQUIREMENTS_SHOWN_MAX = 16
"""Of one run; the rest waits likewise."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is judged by: the fleet as the newest plan saw it, what that plan found, and what lies on its desks."""

    state: CoordinatorState
    views: Mapping[PeerId, WorkerView]
    waiting: Sequence[Waiting]
    desks: Mapping[PeerId, Desk]
    now: float
    """Seconds since the epoch."""

    def of_run(self, run: Run) -> Iterator[Waiting]:
        """What of it waits; at most `REQUIREMENTS_SHOWN_MAX` kinds of tests. Each takes some 50 ms among a thousand
        workers: who has other things to do does them in between."""
        if run.phase is not RunPhase.RUNNING:
            wanted = feasibility.need_of(run)
            yield from (self._helped(run, one, wanted) for one in self.waiting if one.run == run.id)
            return
        counts: dict[int, int] = {}
        for task in run.pending:
            counts[task.requirement] = counts.get(task.requirement, 0) + task.count
        shown = sorted(counts.items())[:REQUIREMENTS_SHOWN_MAX]
        yield from (self._of_requirement(run, requirement, tests) for requirement, tests in shown)

    def of_test(self, run: Run, test: int, names: Sequence[str]) -> Waiting | None:
        """Why a test waits, if it does; `names`: IDs of all of the run's tests."""
        place = ranges.locate(run.pending, test)
        if place is None:
            return None
        if run.barriers is not None:
            standing, on = run.barriers.standing(run.outcomes, test)
            if standing is Standing.WAITING and on is not None:
                first = max(run.outcomes.find(NO_VERDICT, on.on, on.on + on.on_count), on.on)
                reason = Reason(PeerId(""), names[first], "has no verdict yet, and this test depends on it")
                help = Help("wait", f"wait for {names[first]}")
                return Waiting(run.id, "", 1, self._age(run), (reason,), helps=(help,))
        return self._of_requirement(run, run.pending[place].requirement, 1)

    def _of_requirement(self, run: Run, requirement: int, tests: int) -> Waiting:
        wanted = feasibility.need_of(run, requirement)
        noted = [one for one in self.waiting if (one.run, one.requirement, one.is_busy) == (run.id, str(wanted), False)]
        capable, reasons = feasibility.split(self.state, self.views.values(), wanted, run.id)
        taken = {reason.peer: reason for one in noted for reason in one.reasons}
        locks = holders_of(self.state, wanted.takes.locks)
        enough = len(capable) >= wanted.takes.hosts
        busy = [self._busy(view, taken) for view in capable]
        made = Waiting(
            run=run.id,
            requirement=str(wanted),
            tests=tests,
            seconds=self._age(run),
            reasons=(*reasons, *busy),
            wanted=None if enough else wanted,
            locks=locks,
            is_busy=enough and not noted and not locks,
            able=len(capable),
        )
        return self._helped(run, made, wanted)

    def _busy(self, view: WorkerView, taken: Mapping[PeerId, Reason]) -> Reason:
        """Why a worker that could do it does not do it now."""
        if view.peer in taken:
            return taken[view.peer]
        seconds = self._free_in(view.peer)
        text = f"could take it, and is busy for {about(seconds)}" if seconds else "could take it, and has an idle slot"
        return Reason(view.peer, view.name, text)

    def _helped(self, run: Run, waiting: Waiting, wanted: Need) -> Waiting:
        if not waiting.requirement and not waiting.tests and waiting.reasons and not waiting.reasons[0].peer:
            found: tuple[Help, ...] = tuple(
                Help("wait", f"wait for {reason.name} to end") for reason in waiting.reasons
            )
        else:
            free_in = {peer: self._free_in(peer) for peer in self.views}
            found = helps(wanted, self.state, list(self.views.values()), free_in, run.id, waiting.locks)
        return dataclasses.replace(waiting, helps=found)

    def _free_in(self, peer: PeerId) -> float:
        """Seconds until a worker has a slot for what comes next, about."""
        desk = self.desks.get(peer)
        return 0.0 if desk is None or (desk.tests() < desk.view.slots and not desk.reserved) else desk.load()

    def _age(self, run: Run) -> float:
        return max(0.0, self.now - run.submitted_at)

"""Where a test goes that was bad: to a worker where it was not, so that a broken host is told from a broken test.

Never for ever: only workers that can do it now, and whose work is expected to let it in soon, are waited for. Where
there is none, the test goes wherever it can. Rejected: a place kept for it (an idle slot on one worker, while another
has work for it), and a timer (a plan has no memory; what it waits for is seen anew each time).
"""

from collections.abc import Callable, Iterable

from mesh.scheduler.desk import Desk
from mesh.state.model import Run, Task
from protocols.ids import PeerId

WAIT_SECONDS_MAX = 30.0
"""A worker that has more work than that for each slot is not waited for, nor one whose slots are all taken by tests
that have run for as long."""


class Elsewhere:
    """Of one run, while one plan is made; `able` are the desks of those who can do its tests and are open to it, and
    `may_join` says who may have a part of it."""

    __slots__ = ("_failed_on", "_others")

    def __init__(self, run: Run, able: Iterable[Desk], may_join: Callable[[Run, Desk], bool]) -> None:
        self._failed_on = run.failed_on
        self._others = {desk.view.peer for desk in able if not _is_taken(desk) and may_join(run, desk)}

    def shuns(self, task: Task, peer: PeerId) -> bool:
        """Whether this worker should leave the task to others. What was bad is a task by itself."""
        failed = self._failed_on.get(task.first) if task.count == 1 else None
        return failed is not None and peer in failed and not self._others <= set(failed)

    def split(self, tasks: list[Task], peer: PeerId) -> tuple[list[Task], list[Task]]:
        """In their order, those for this worker, and those that it leaves to others."""
        if not self._failed_on:
            return tasks, []
        shunned = [task for task in tasks if self.shuns(task, peer)]
        return ([task for task in tasks if not self.shuns(task, peer)] if shunned else tasks), shunned


def _is_taken(desk: Desk) -> bool:
    """Whether it has no slot for others soon."""
    endless = sum(seconds >= WAIT_SECONDS_MAX for _, _, seconds in desk.view.running)
    return desk.load() > WAIT_SECONDS_MAX or endless >= desk.view.slots

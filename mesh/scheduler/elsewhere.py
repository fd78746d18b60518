"""Where a test goes that was bad: to a worker where it was not, so that a broken host is told from a broken test.

Never for ever: only workers that can do it now, and whose work is expected to let it in soon, are waited for. Where
there is none, the test goes wherever it can. Rejected: a place kept for it (an idle slot on one worker, while another
has work for it), and a timer (a plan has no memory; what it waits for is seen anew each time).
"""

from collections.abc import Set

from mesh.scheduler.desk import Desk
from mesh.state.model import Run, Task
from protocols.ids import PeerId

WAIT_SECONDS_MAX = 30.0
"""Expected seconds of work a slot; a worker that has more is not waited for."""


class Elsewhere:
    """Of one run, while one plan is made; `others` can do its tests, and may be waited for."""

    __slots__ = ("_failed_on", "_others")

    def __init__(self, run: Run, others: Set[PeerId]) -> None:
        self._failed_on = run.failed_on
        self._others = others

    def shuns(self, task: Task, peer: PeerId) -> bool:
        """Whether this worker should leave the task to others. What was bad is a task by itself."""
        failed = self._failed_on.get(task.first) if task.count == 1 else None
        return failed is not None and peer in failed and not self._others <= set(failed)


def waited_for(desk: Desk) -> bool:
    """Whether a test that had better not run elsewhere waits for this worker."""
    return desk.load() <= WAIT_SECONDS_MAX

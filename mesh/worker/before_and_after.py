"""What a worker does for a run before its first lease, and knows of it after its last."""

import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence

import trio

from protocols.errors import MeshError, MeshFailed, cause
from protocols.ids import LeaseId, RunId
from protocols.work import Assign, MakeReady

log = logging.getLogger(__name__)

PREPARED_MAX = 2
"""Runs prepared at once for which there is no lease yet."""
ERRORS_MAX = 16
"""Errors of one run's last teardowns that are told."""
ACKNOWLEDGED_SECONDS_MAX = 5.0
"""From a run's last verdict in the log to the acknowledgement of its result."""
RUNS_MAX = 64
"""Runs of which it is remembered how their processes ended."""


class Preparations:
    """Runs that are prepared before they have a lease here. What fails is nobody's concern: who gets a lease of the run
    meets the same, and says so."""

    def __init__(self, prepare: Callable[[Assign], Awaitable[None]]) -> None:
        self._prepare = prepare
        self._under_way: dict[RunId, trio.Event] = {}

    def begin(self, request: MakeReady, nursery: trio.Nursery) -> None:
        """Nothing, if there is enough to do already."""
        if len(self._under_way) < PREPARED_MAX and request.run not in self._under_way:
            self._under_way[request.run] = trio.Event()
            assign = Assign(LeaseId(0), request.run, request.spec, None, (), request.holders)
            nursery.start_soon(self._run, assign)

    async def wait(self, run: RunId) -> None:
        """Until the run is prepared, or can't be; at once if nobody is at it."""
        if run in self._under_way:
            await self._under_way[run].wait()

    async def _run(self, assign: Assign) -> None:
        try:
            await self._prepare(assign)
        except Exception as error:
            log.info("run %d can't be prepared yet: %s", assign.run, cause(error))
        finally:
            self._under_way.pop(assign.run).set()


class Endings:
    """What went wrong as the processes of a run ended, if anything; of the newest runs."""

    def __init__(self) -> None:
        self._errors: OrderedDict[RunId, tuple[str, ...]] = OrderedDict()

    def note(self, run: RunId, errors: Sequence[str]) -> None:
        if errors:
            self._errors[run] = (*self._errors.pop(run, ()), *errors)[:ERRORS_MAX]
            while len(self._errors) > RUNS_MAX:
                self._errors.popitem(last=False)

    def of(self, run: RunId) -> tuple[str, ...]:
        return self._errors.get(run, ())


def told(error: Exception) -> tuple[str, int]:
    """Why a run can't be prepared here, and the exit code that this means. What nobody foresaw is told as such, and
    costs this node the run, not its life: the next worker would only die of the same."""
    found = cause(error)
    if isinstance(found, MeshError):
        return str(found), found.exit_code
    log.error("a run could not be prepared: %r", found, exc_info=error)
    return f"{type(found).__name__}: {found}", MeshFailed.exit_code

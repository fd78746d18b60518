"""What of a run can't be handed out, and why: data of a plan, for `mesh why` and for those who end what has no hope."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from mesh.scheduler.feasibility import Need, Reason
from mesh.state.model import CoordinatorState
from protocols.ids import PeerId, RunId, TestIndex


@dataclass(frozen=True, slots=True)
class Holder:
    """A lock, and a test that the lease which holds it has not finished."""

    lock: str
    run: RunId
    test: TestIndex
    worker: str
    """By name."""


@dataclass(frozen=True, slots=True)
class Help:
    """One thing that would help work that waits."""

    kind: str
    """"wait", "return", a remedy's ("label", "install", "restart", "free"), "several", "less", "node"."""
    text: str
    nodes: tuple[PeerId, ...] = ()
    """Of which it speaks."""
    seconds: float | None = None
    """When it comes by itself, about."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """Work that no worker can take now."""

    run: RunId
    requirement: str
    """What they need; empty when any worker would do."""
    tests: int
    """How many tests wait; 0: the run waits to be collected."""
    seconds: float
    """Since the submission."""
    reasons: tuple[Reason, ...]
    """One for each worker, by peer; or for each lock that is held."""
    wanted: Need | None = field(default=None, compare=False)
    """What no worker here has; None if they are only busy."""
    locks: tuple[Holder, ...] = ()
    """Who holds the locks that they wait for."""
    helps: tuple[Help, ...] = ()
    """What would end it; worked out for those who ask, not by a plan."""
    is_busy: bool = False
    """Workers could take it, and have no slot free; these are among `reasons`, too."""
    able: int = field(default=0, compare=False)
    """How many workers could be a host of it, where too few could for a test that needs several."""

    @property
    def shortage(self) -> str:
        """What is wanting, of tests that need more hosts at once than would do; else empty."""
        return short_of(self.tests, self.wanted, self.able) if self.wanted is not None else ""


@dataclass(frozen=True, slots=True)
class Skipped:
    """Pending tests of one run that will not be run, since `on`, which they depend on, did not pass. None: it is not a
    part of the run."""

    run: RunId
    tests: tuple[TestIndex, ...]
    on: TestIndex | None


def short_of(tests: int, wanted: Need, able: int) -> str:
    """That tests need so many hosts at once, and how many would do; empty if one is enough."""
    if wanted.takes.hosts == 1:
        return ""
    return f"{tests} test{'s need' if tests != 1 else ' needs'} {wanted}, and {able or 'none'} would do"


def holders_of(state: CoordinatorState, locks: Iterable[str]) -> tuple[Holder, ...]:
    """Who has those of the locks that are held."""
    leases = [(lock, state.leases[state.locks[lock]]) for lock in locks if lock in state.locks]
    return tuple(
        Holder(lock, lease.run, TestIndex(lease.open[0].first), state.workers[lease.worker].name)
        for lock, lease in leases
    )

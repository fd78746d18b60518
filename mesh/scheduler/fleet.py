"""Workers as the coordinator sees them now: soft state, an input of the plan beside the log's."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from mesh.state import alerts
from mesh.state.model import CoordinatorState
from protocols.codec import Value
from protocols.ids import Cid, LeaseId, PeerId, RunId, TestIndex


@dataclass(frozen=True, slots=True)
class WorkerView:
    """One worker. `alive` and `lost` may both be false: silent, but not for long enough to expire its leases."""

    peer: PeerId
    incarnation: int
    alive: bool
    lost: bool = False
    draining: bool = False
    slots: int = 1
    capabilities: Mapping[str, Value] = field(default_factory=dict)
    load: float = 0.0
    """Share of its processors that is busy, 0 to 1."""
    bundles: frozenset[Cid] = frozenset()
    """Bundles that it holds whole."""
    name: str = ""
    unfit: frozenset[RunId] = frozenset()
    """Runs that it tried to work on lately and could not (no bundle, a broken environment)."""
    running: tuple[tuple[LeaseId, TestIndex, float], ...] = ()
    """Tests that it has said to run, and for how many seconds already."""


def unusable(state: CoordinatorState, view: WorkerView) -> str:
    """Why a worker can be given nothing now, whatever the work; empty if it can."""
    worker = state.workers.get(view.peer)
    if view.lost:
        return "is lost"
    if not view.alive:
        return "does not answer"
    if view.draining:
        return "is draining"
    if view.slots < 1:
        return "has no slots"
    if worker is None or worker.incarnation != view.incarnation:
        return "is not registered yet"
    return alerts.quarantined(state, view.peer)

"""Which leases have lost their worker.

Time is not here: whether a silence was long enough is the fleet's `lost`, which a new coordinator starts to count anew.
"""

from collections.abc import Mapping

from mesh.scheduler.fleet import WorkerView
from mesh.state.model import CoordinatorState
from protocols.commands import Expire
from protocols.ids import PeerId


def expired(state: CoordinatorState, fleet: Mapping[PeerId, WorkerView]) -> tuple[Expire, ...]:
    """The leases to expire now, in their order. A worker that the fleet does not know yet keeps its leases."""
    expires = []
    for lease in state.leases.values():
        view = fleet.get(lease.worker)
        if view is None:
            continue
        if view.lost:
            expires.append(Expire(lease.id, "its worker is lost"))
        elif view.incarnation > lease.incarnation:
            expires.append(Expire(lease.id, "its worker has restarted"))
    return tuple(expires)

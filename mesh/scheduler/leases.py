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
    for peer, view in fleet.items():
        worker = state.workers.get(peer)
        if worker is None or not worker.leases:
            continue
        if view.lost:
            expires += [Expire(lease, "its worker is lost") for lease in worker.leases]
        elif view.incarnation > worker.incarnation:  # which is that of all its leases
            expires += [Expire(lease, "its worker has restarted") for lease in worker.leases]
    return tuple(sorted(expires, key=lambda expire: expire.lease))

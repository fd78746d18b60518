"""Which leases have lost their worker.

Time is not here: whether a silence was long enough is the fleet's `lost`, which a new coordinator starts to count anew.
"""

from collections.abc import Mapping

from mesh.scheduler.fleet import WorkerView
from mesh.state.model import CoordinatorState
from protocols.commands import Expire
from protocols.ids import LeaseId, PeerId


def expired(state: CoordinatorState, fleet: Mapping[PeerId, WorkerView]) -> tuple[Expire, ...]:
    """The leases to expire now, in their order. A worker that the fleet does not know yet keeps its leases."""
    expires = []
    for peer, view in fleet.items():
        worker = state.workers.get(peer)
        if worker is None or (not view.lost and view.incarnation <= worker.incarnation):  # which is that of its leases
            continue
        what = "is lost" if view.lost else "has restarted"
        expires += [Expire(lease, f"its worker {what}") for lease in worker.leases]
        expires += [Expire(lease, f"a companion of its worker {what}", peer) for lease in worker.hosted]
    once: dict[LeaseId, Expire] = {}
    for expire in sorted(expires, key=lambda expire: (expire.lease, expire.companion)):
        once.setdefault(expire.lease, expire)
    return tuple(once.values())

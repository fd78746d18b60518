"""What open leases hold for their tests alone: named locks, of which there is one in the mesh, and devices.

A lease holds from its grant until it is closed, by the log's order, so no two voters disagree who has a lock. Nothing
is kept for it beside the leases: a lock that no open lease holds is free. Amounts that only steer (processors, memory,
disk, network) are the plan's affair; what must never be held twice is judged here.
"""

from collections.abc import Sequence

from mesh.state.model import CoordinatorState, Lease, Run, Task, Worker
from protocols.commands import Grant
from protocols.ids import PeerId
from protocols.manifests import NOTHING, THOUSAND, Device, Needs


def needs_of(run: Run, tasks: Sequence[Task]) -> Needs:
    """What the tests of a lease take; those that hold anything are of one requirement."""
    return run.needs_of(tasks[0].requirement) if tasks else NOTHING


def slots_of(needs: Needs, slots: int) -> int:
    """Slots of a worker that has so many, which a lease of such tests takes; 0: as many as it has tests."""
    return min(max(1, -(-needs.cpu // THOUSAND)), max(1, slots)) if needs.held else 0


def devices_on(lease: Lease, peer: PeerId) -> tuple[Device, ...]:
    """What a lease holds of one of its hosts."""
    if lease.worker == peer:
        return lease.devices
    return next((companion.devices for companion in lease.companions if companion.worker == peer), ())


def devices_in_use(state: CoordinatorState, peer: PeerId) -> dict[str, int]:
    """Thousandths of each of a worker's devices that open leases hold."""
    used: dict[str, int] = {}
    worker = state.workers.get(peer)
    for lease in (*worker.leases, *worker.hosted) if worker else ():
        for device in devices_on(state.leases[lease], peer):
            used[device.name] = used.get(device.name, 0) + device.share
    return used


def refusal(state: CoordinatorState, run: Run, worker: Worker, grant: Grant) -> str:
    """Why a grant of tasks that are pending does not hold; empty if it does."""
    needs = needs_of(run, grant.tasks)
    if any(run.needs_of(task.requirement).held for task in grant.tasks):
        if len({task.requirement for task in grant.tasks}) > 1:
            return f"tests of run {run.id} that hold something are not leased together with others"
        for lock in needs.locks:
            if lock in state.locks:
                return f"{lock} is held by lease {state.locks[lock]}"
    return devices_refusal(state, needs, worker, grant.devices)


def devices_refusal(state: CoordinatorState, needs: Needs, worker: Worker, devices: Sequence[Device]) -> str:
    """Why a worker can't give these devices to a test; empty if it can."""
    if not _fits(needs.gpu, devices):
        return f"{needs.gpu / THOUSAND:g} GPUs are needed, not {sum(d.share for d in devices) / THOUSAND:g}"
    used = devices_in_use(state, worker.peer)
    for device in devices:
        if used.get(device.name, 0) + device.share > THOUSAND:
            return f"{device.name} of worker {worker.name} is held by another lease"
    return ""


def _fits(gpu: int, devices: Sequence[Device]) -> bool:
    """Whether these are as many devices as a test takes: different ones, whole, or a share of one."""
    if gpu < THOUSAND:
        return [device.share for device in devices] == ([gpu] if gpu else [])
    names = {device.name for device in devices}
    return len(names) == len(devices) == gpu // THOUSAND and all(device.share == THOUSAND for device in devices)


def take(state: CoordinatorState, lease: Lease) -> None:
    """A lease that opens holds what its tests need."""
    lease.needs = needs_of(state.runs[lease.run], lease.open)
    for lock in lease.needs.locks:
        state.locks[lock] = lease.id


def give_back(state: CoordinatorState, lease: Lease) -> None:
    """What a lease that closes held is free."""
    for lock in lease.needs.locks:
        del state.locks[lock]

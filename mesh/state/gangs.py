"""Tests that need several hosts at once: what the log judges of their companions, and of who else may go there.

On a worker that is somebody's companion, the slots that are kept are kept by the log: whatever is granted there, by
whichever coordinator, what it holds and what is kept fit its slots together, so that nothing of ours ever runs in a
kept one. Elsewhere slots only steer: a worker may hold more tests than it runs at once.
"""

from mesh.state import holdings, ranges
from mesh.state.model import CoordinatorState, Run, Worker
from protocols.commands import Grant


def occupied(state: CoordinatorState, worker: Worker) -> int:
    """Slots of a worker that its leases would take if all their tests ran, and those kept for others' tests."""
    taken = 0
    for lease in (state.leases[one] for one in (*worker.leases, *worker.hosted)):
        taken += holdings.slots_of(lease.needs, worker.slots) or ranges.size(lease.open)
    return taken


def crowded(state: CoordinatorState, worker: Worker, slots: int) -> str:
    """Why so many more slots of a companion can't be had; empty if they can, or it is nobody's companion."""
    if worker.hosted and occupied(state, worker) + slots > worker.slots:
        return f"worker {worker.name} keeps slots for a test of several hosts, and has no other left"
    return ""


def refusal(state: CoordinatorState, run: Run, grant: Grant) -> str:
    """Why a grant of pending tests does not hold, as far as slots and companions go; empty if it does."""
    needs, worker = holdings.needs_of(run, grant.tasks), state.workers[grant.worker]
    text = crowded(state, worker, holdings.slots_of(needs, worker.slots) or ranges.size(grant.tasks))
    if text:
        return text
    if len(grant.companions) != needs.hosts - 1:
        return f"{needs.hosts} hosts are needed, not {1 + len(grant.companions)}"
    if needs.hosts > 1 and ranges.size(grant.tasks) > 1:
        return "a test that needs several hosts is leased alone"
    if len({grant.worker, *(companion.worker for companion in grant.companions)}) < needs.hosts:
        return "a host is named twice"
    for companion in grant.companions:
        host = state.workers[companion.worker]
        if occupied(state, host) + holdings.slots_of(needs, host.slots) > host.slots:
            return f"worker {host.name} has no slot free for a test of several hosts"
        text = holdings.devices_refusal(state, needs, host, companion.devices)
        if text:
            return text
    return ""

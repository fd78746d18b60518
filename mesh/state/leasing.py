"""How leases open and end, and where their tests are then.

A test is leased once. A **hedge** is a second lease of one test that another worker holds: it is in no count, and
whatever ends one of the two leaves the test to the other. A verdict from either ends the test in both, so that the
other's comes too late; a hedge that ends without one leaves no trace; a lease that gives its test up, or is lost,
leaves it to the hedge, which from then on is a lease like any other. Rejected: the test in two leases of equal rank
(each count and each walk over leases would have to know which tests it has seen), a lease of two workers (its ID would
no longer tell whose result is late).

A test that needs several hosts is leased to one of them, and the others are the lease's **companions**: all of them are
taken by its grant, or none, so that two such tests never wait for each other's half, and all are free when it closes,
whatever closes it. It ends with any of them as if its worker had been lost.
"""

from mesh.state import alerts, gangs, holdings, ranges, shared
from mesh.state.dependencies import Standing
from mesh.state.model import LEASES_PER_WORKER_MAX, NO_LEASE, CoordinatorState, Lease, Run, RunPhase, Task
from mesh.state.results import Applied, Rejected, Result
from protocols.commands import TESTS_PER_COMMAND_MAX, Grant, Hedge
from protocols.ids import LeaseId, PeerId, TestIndex


def grant(state: CoordinatorState, index: int, command: Grant) -> Result:
    run = state.runs.get(command.run)
    refusal = _grant_refusal(state, run, command)
    if refusal or run is None:
        return Rejected(refusal, command.run)
    for task in command.tasks:
        ranges.cut_out(run.pending, task)
    run.leased += ranges.size(command.tasks)
    lease = _open(state, index, run, command)
    return Applied(run=run.id, lease=lease.id)


def hedge(state: CoordinatorState, index: int, command: Hedge) -> Result:
    first = state.leases.get(command.lease)
    if first is None or first.collects or first.hedges:
        return Rejected(f"lease {command.lease} is not open, or not one that holds tests")
    run = state.runs[first.run]
    refusal = _hedge_refusal(state, run, first, command)
    if refusal:
        return Rejected(refusal, run.id)
    task = first.open[ranges.locate(first.open, command.test) or 0]
    alone = Task(command.test, 1, task.requirement, task.losses)
    lease = _open(state, index, run, Grant(run.id, command.worker, command.incarnation, (alone,)))
    lease.hedges = first.id
    run.hedges[command.test] = lease.id
    return Applied(run=run.id, lease=lease.id)


def _open(state: CoordinatorState, index: int, run: Run, grant: Grant) -> Lease:
    worker = state.workers[grant.worker]
    companions = [state.workers[companion.worker] for companion in grant.companions]
    lease = Lease(
        id=LeaseId(index),
        run=run.id,
        worker=worker.peer,
        incarnation=worker.incarnation,
        open=sorted(grant.tasks, key=lambda task: task.first),
        collects=not grant.tasks,
        alone=ranges.size(grant.tasks) == 1 and all(host.is_idle for host in (worker, *companions)),
        devices=grant.devices,
        companions=grant.companions,
    )
    for host in (worker, *companions):
        for other in (*host.leases, *host.hosted):
            state.leases[other].alone = False
    run.leases.append(lease.id)
    worker.leases.append(lease.id)
    for companion in companions:
        companion.hosted.append(lease.id)
    state.leases[lease.id] = lease
    if worker.peer not in run.workers:
        run.workers.append(worker.peer)
    holdings.take(state, lease)
    return lease


def _worker_refusal(state: CoordinatorState, peer: PeerId, incarnation: int) -> str:
    """Why this process can't have another lease; empty if it can."""
    worker = state.workers.get(peer)
    if state.yielded:
        return f"this mesh gave way to {state.yielded}"
    if worker is None or worker.incarnation != incarnation:
        return f"worker {peer} is not registered as that process"
    if len(worker.leases) + len(worker.hosted) >= LEASES_PER_WORKER_MAX:
        return f"worker {worker.name} holds {LEASES_PER_WORKER_MAX} leases already"
    held = alerts.quarantined(state, peer)
    return f"worker {worker.name} {held}" if held else ""


def _grant_refusal(state: CoordinatorState, run: Run | None, command: Grant) -> str:
    """Why a grant does not hold; empty if it does."""
    if run is None:
        return f"there is no run {command.run}"
    refusal = _worker_refusal(state, command.worker, command.incarnation)
    if refusal:
        return refusal
    if not command.tasks:
        if command.devices or command.companions:
            return "a collection holds no devices, and needs one host"
        ready = run.phase is RunPhase.COLLECTING and not run.leases
        return "" if ready else f"run {run.id} is {run.state}, not waiting to be collected"
    if run.phase is not RunPhase.RUNNING:
        return f"run {run.id} is {run.state}"
    ordered = sorted(command.tasks, key=lambda task: task.first)
    if ranges.size(ordered) > TESTS_PER_COMMAND_MAX:
        return f"a lease has at most {TESTS_PER_COMMAND_MAX} tests"
    if not ranges.disjoint(ordered) or not all(ranges.holds(run.pending, task) for task in ordered):
        return f"not all of these tests of run {run.id} are pending"
    if run.barriers and any(
        run.barriers.standing(run.outcomes, task.first)[0] is not Standing.MET for task in command.tasks
    ):
        return f"some of these tests of run {run.id} wait for others"
    for companion in command.companions:
        refusal = _worker_refusal(state, companion.worker, companion.incarnation)
        if refusal:
            return refusal
    return holdings.refusal(state, run, state.workers[command.worker], command) or gangs.refusal(state, run, command)


def _hedge_refusal(state: CoordinatorState, run: Run, first: Lease, command: Hedge) -> str:
    """Why a hedge does not hold; empty if it does."""
    if not run.spec.hedge:
        return f"tests of run {run.id} are run by one worker at a time"
    if ranges.locate(first.open, command.test) is None:
        return f"lease {first.id} does not hold test {command.test}"
    if command.test in run.hedges:
        return f"test {command.test} of run {run.id} is hedged by lease {run.hedges[command.test]}"
    if first.needs.held:
        return f"what test {command.test} of run {run.id} holds is there once"
    if command.worker == first.worker:
        return f"worker {command.worker} runs test {command.test} already"
    refusal = _worker_refusal(state, command.worker, command.incarnation)
    return refusal or gangs.crowded(state, state.workers[command.worker], 1)


def close(state: CoordinatorState, lease: Lease) -> None:
    """Take a lease off the books. Its open tests are the caller's to put somewhere."""
    holdings.give_back(state, lease)
    del state.leases[lease.id]
    run = state.runs[lease.run]
    run.leases.remove(lease.id)
    if lease.hedges:
        for test in tests_of(lease):
            del run.hedges[test]
    else:
        run.leased -= ranges.size(lease.open)
    state.workers[lease.worker].leases.remove(lease.id)
    for companion in lease.companions:
        state.workers[companion.worker].hosted.remove(lease.id)
    shared.release(state, run.id, lease.worker)


def tests_of(lease: Lease) -> list[TestIndex]:
    """Those that are open in it."""
    return [TestIndex(test) for task in lease.open for test in range(task.first, ranges.end(task))]


def take_out(state: CoordinatorState, lease: Lease, tests: list[TestIndex]) -> tuple[list[Task], list[Lease]]:
    """Open tests (sorted) leave a lease without a verdict: in pieces those that nobody runs any more, and the leases
    of those that hedged them."""
    run = state.runs[lease.run]
    if lease.hedges:
        lease.open, dropped = ranges.subtract(lease.open, tests)
        for task in dropped:
            del run.hedges[task.first]
        return [], []
    heirs = [_take_over(state, run, test) for test in tests if test in run.hedges]
    lease.open, taken = ranges.subtract(lease.open, ranges.within(lease.open, tests))
    run.leased -= ranges.size(taken)
    return taken, heirs


def retire(state: CoordinatorState, lease: Lease, tests: list[TestIndex]) -> tuple[LeaseId, ...]:
    """Open tests (sorted) of a lease are done; the leases that this closes, of those who ran them, too."""
    run = state.runs[lease.run]
    closed: list[Lease] = []
    if lease.hedges and tests:
        first = state.leases[lease.hedges]
        _take_over(state, run, tests[0])
        closed += [] if first.open else [first]
    closed += [state.leases[run.hedges[test]] for test in tests if test in run.hedges]
    for loser in closed:
        close(state, loser)
    lease.open, _ = ranges.subtract(lease.open, tests)
    run.leased -= len(tests)
    return tuple(loser.id for loser in closed)


def _take_over(state: CoordinatorState, run: Run, test: TestIndex) -> Lease:
    """The hedge of a test holds it from now on, alone."""
    heir = state.leases[run.hedges.pop(test)]
    first = state.leases[heir.hedges]
    first.open, _ = ranges.subtract(first.open, [test])
    heir.hedges = NO_LEASE
    return heir

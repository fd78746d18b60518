"""`apply`: one committed command against the one owned state. Total, deterministic, and the only writer.

A command is a proposal that was right when somebody made it. Whatever no longer holds when it is applied is rejected,
and changes nothing: here, in the log's order, two coordinators' grants, a late completion and an expiry meet, and the
first one wins. That order is the fence; there is no other. Rejected: letting the coordinator check before it
proposes, alone: a new coordinator may have proposed in between.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from mesh.state import admission, alerts, dependencies, leasing, pinset, ranges, shared, unrun, verdicts
from mesh.state.dependencies import Barriers
from mesh.state.model import (
    COLLECT_LOSSES_MAX,
    LOSSES_MAX,
    PREEMPTIONS_MAX,
    RUN_TESTS_MAX,
    WORKERS_MAX,
    CoordinatorState,
    Failure,
    Lease,
    Run,
    RunPhase,
    Task,
    Worker,
)
from mesh.state.results import Applied, Rejected, Result
from mesh.state.retention import retain
from protocols.alerts import AcknowledgeAlert, AlertsTold, ClearAlerts, Quarantine, RaiseAlerts, Release
from protocols.commands import (
    Abandon,
    Cancel,
    Claim,
    Collected,
    CollectFailed,
    Command,
    Complete,
    Expire,
    Finish,
    Found,
    Grant,
    Hedge,
    PinRoot,
    Placed,
    Preempt,
    RaiseFormat,
    Register,
    Return,
    Reuse,
    Settle,
    Skip,
    Submit,
    Unpin,
    Yield,
)
from protocols.ids import LeaseId, RunId, TestIndex

EXIT_TESTS_FAILED = 1
EXIT_MESH_FAILED = 12


def apply(state: CoordinatorState, index: int, command: Command) -> Result:
    """Apply the entry at `index`, which is above every earlier one. Never raises for a command that was decoded."""
    assert index > state.applied, "entries are applied once, in order"
    state.applied = index
    return _HANDLERS[type(command)](state, index, command)


def _found(state: CoordinatorState, index: int, command: Found) -> Result:
    if state.mesh:
        return Rejected(f"the mesh has a name: {state.mesh}")
    state.mesh = command.mesh
    return Applied()


def _raise_format(state: CoordinatorState, index: int, command: RaiseFormat) -> Result:
    if command.version <= state.format:
        return Rejected(f"the log is in format {state.format} already")
    before, state.format = state.format, command.version
    if before < pinset.LOG_FORMAT_MIN:
        pinset.adopt(state)
    return Applied()


def _yield(state: CoordinatorState, index: int, command: Yield) -> Result:
    if state.runs or state.archive:
        return Rejected("a mesh that has runs does not give way")
    if state.yielded or command.mesh in ("", state.mesh):
        return Rejected(f"nothing to give way to: {state.yielded or 'that is this mesh'}")
    state.yielded = command.mesh
    return Applied()


def _register(state: CoordinatorState, index: int, command: Register) -> Result:
    if state.yielded:
        return Rejected(f"this mesh gave way to {state.yielded}")
    if command.slots < 0:
        return Rejected(f"worker {command.name} registers {command.slots} slots")
    worker = state.workers.get(command.worker)
    if worker is None:
        if len(state.workers) >= WORKERS_MAX and not _forget_worker(state):
            return Rejected(f"{WORKERS_MAX} workers hold leases already")
        state.workers[command.worker] = Worker(
            command.worker, command.name, command.incarnation, command.slots, registered=index
        )
        return Applied()
    if command.incarnation < worker.incarnation:
        return Rejected(f"worker {command.name} has registered as a newer process")
    closed: tuple[LeaseId, ...] = ()
    if command.incarnation > worker.incarnation:
        closed = tuple(sorted((*worker.leases, *worker.hosted)))
        for lease in closed:
            _expire_lease(state, state.leases[lease], worker)
        worker.incarnation = command.incarnation
        worker.registered = index
    elif command.slots < worker.slots:
        closed = tuple(worker.hosted)
        for lease in closed:  # what is kept there may no longer fit
            _put_back(state, state.leases[lease])
    worker.name = command.name
    worker.slots = command.slots
    return Applied(closed=closed)


def _put_back(state: CoordinatorState, lease: Lease) -> list[Task]:
    """Close a lease; its tests are pending again, without a loss (but those that another worker runs, too)."""
    run = state.runs[lease.run]
    taken, _ = leasing.take_out(state, lease, leasing.tests_of(lease))
    leasing.close(state, lease)
    for task in taken:
        ranges.insert(run.pending, task)
    return taken


def _forget_worker(state: CoordinatorState) -> bool:
    """Drop the oldest registration without a lease, if there is one."""
    idle = [worker for worker in state.workers.values() if worker.is_idle]
    if not idle:
        return False
    del state.workers[min(idle, key=lambda worker: worker.registered).peer]
    return True


def _submit(state: CoordinatorState, index: int, command: Submit) -> Result:
    known = state.nonces.get(command.nonce)
    if known is not None:
        return Applied(run=known)
    if state.yielded:
        return Rejected(f"this mesh gave way to {state.yielded}")
    refusal = admission.refusal(state, command.spec)
    if refusal:
        return Rejected(refusal, limit=True)
    for before in command.spec.after:
        if before not in state.runs and before not in state.archive:
            return Rejected(f"there is no run {before} to come after")
    run = RunId(index)
    state.runs[run] = Run(run, command.nonce, command.spec, command.at)
    state.nonces[command.nonce] = run
    pinset.enter(state, state.runs[run])
    return Applied(run=run)


def _collect_lease(state: CoordinatorState, lease_id: LeaseId) -> Lease | Rejected:
    lease = state.leases.get(lease_id)
    if lease is None or not lease.collects:
        return Rejected(f"lease {lease_id} is not open, or not one to collect", lease.run if lease else None)
    return lease


def _collected(state: CoordinatorState, index: int, command: Collected) -> Result:
    lease = _collect_lease(state, command.lease)
    if isinstance(lease, Rejected):
        return lease
    run = state.runs[lease.run]
    if not 0 <= command.tests <= RUN_TESTS_MAX:
        return Rejected(f"a run has at most {RUN_TESTS_MAX} tests", run.id)
    if not ranges.partitions(command.tasks, command.tests):
        return Rejected(f"the tasks are not a partition of 0..{command.tests}", run.id)
    if any(task.requirement >= len(command.requirements) or task.losses for task in command.tasks):
        return Rejected("a task names a requirement that is not listed, or has losses before it ran", run.id)
    wrong = dependencies.refusal(command.dependencies, command.tests, command.tasks)
    if wrong:
        return Rejected(wrong, run.id)
    leasing.close(state, lease)
    run.manifest = command.manifest
    run.requirements = command.requirements
    run.needs = command.needs
    run.barriers = Barriers(command.dependencies) if command.dependencies else None
    run.pending = ranges.TaskList(command.tasks)
    verdicts.open_book(run, command.tests)
    run.phase = RunPhase.RUNNING
    pinset.enter(state, run)
    if not run.tests:
        _report(run, Failure(5, "nothing was collected"))
    return Applied(run=run.id, lease=lease.id, closed=(lease.id,))


def _collect_failed(state: CoordinatorState, index: int, command: CollectFailed) -> Result:
    lease = _collect_lease(state, command.lease)
    if isinstance(lease, Rejected):
        return lease
    leasing.close(state, lease)
    _report(state.runs[lease.run], Failure(command.exit_code, command.reason, command.record))
    return Applied(run=lease.run, lease=lease.id, closed=(lease.id,))


def _complete(state: CoordinatorState, index: int, command: Complete) -> Result:
    lease = state.leases.get(command.lease)
    if lease is None or lease.collects:
        return Rejected(f"lease {command.lease} is not open, or not one to run tests")
    run = state.runs[lease.run]
    place = {test: i for i, test in reversed(list(enumerate(command.tests)))}
    counted = ranges.within(lease.open, sorted(place))
    retried, again = verdicts.split_retries(run, lease, counted, lambda test: command.outcomes[place[test]])
    if retried and state.format >= verdicts.LOG_FORMAT_MIN:
        verdicts.keep_tries(run, lease, command, [(test, place[test]) for test in retried])
    skip = set(retried)
    recorded = [test for test in counted if test not in skip] if skip else counted
    if run.spec.maxfail:  # in the order in which they ended: what comes after the limit does not count
        ended = sorted(recorded, key=place.__getitem__)
        recorded = verdicts.up_to_limit(run, ended, lambda test: command.outcomes[place[test]])
    verdicts.record(
        run,
        recorded,
        bytes([command.outcomes[place[test]] for test in recorded]),
        [command.durations[place[test]] for test in recorded],
        command.chunk,
        lease.worker,
        lease.id,
    )
    taken, _ = leasing.take_out(state, lease, retried)
    for task in again:
        if ranges.locate(taken, task.first) is not None:
            ranges.insert(run.pending, task)
    closed = leasing.retire(state, lease, [test for test in counted if test not in skip] if skip else counted)
    return Applied(
        run.id,
        lease.id,
        tuple(counted),
        tuple(retried),
        (*closed, *(_stop_at_limit(state, run) or _close_if_done(state, lease))),
    )


def _return(state: CoordinatorState, index: int, command: Return) -> Result:
    lease = state.leases.get(command.lease)
    if lease is None:
        return Rejected(f"lease {command.lease} is not open")
    run = state.runs[lease.run]
    if lease.collects:
        leasing.close(state, lease)
        return Applied(run.id, lease.id, closed=(lease.id,))
    tests = sorted({test for test in command.tests if ranges.locate(lease.open, test) is not None})
    taken, _ = leasing.take_out(state, lease, tests)
    for task in taken:
        ranges.insert(run.pending, task)
    closed = _close_if_done(state, lease)
    return Applied(run.id, lease.id, tuple(tests), closed=closed)


def _preempt(state: CoordinatorState, index: int, command: Preempt) -> Result:
    lease = state.leases.get(command.lease)
    if lease is None or lease.collects:
        return Rejected(f"lease {command.lease} is not open, or not one to run tests")
    run, taker = state.runs[lease.run], state.runs.get(command.run)
    if taker is None or taker.phase is not RunPhase.RUNNING or taker.spec.priority <= run.spec.priority:
        return Rejected(f"run {command.run} does not run, or not before run {run.id}", run.id)
    tests = leasing.tests_of(lease)
    if any(run.preempted.get(test, 0) >= PREEMPTIONS_MAX for test in tests):
        return Rejected(f"a test of lease {lease.id} was preempted {PREEMPTIONS_MAX} times already", run.id)
    for task in _put_back(state, lease):
        for test in range(task.first, ranges.end(task)):
            run.preempted[test] = run.preempted.get(test, 0) + 1
    return Applied(run.id, lease.id, tuple(tests), closed=(lease.id,))


def _expire(state: CoordinatorState, index: int, command: Expire) -> Result:
    lease = state.leases.get(command.lease)
    if lease is None:
        return Rejected(f"lease {command.lease} is not open")
    lost = command.companion or lease.worker
    if lost not in lease.hosts:
        return Rejected(f"worker {lost} is no host of lease {lease.id}", lease.run)
    _expire_lease(state, lease, state.workers[lost])
    return Applied(run=lease.run, lease=lease.id, closed=(lease.id,))


def _expire_lease(state: CoordinatorState, lease: Lease, lost: Worker) -> None:
    """Close a lease of whose hosts one is gone; its tests are pending again, halved, with one more loss (but those that
    another worker runs, too).

    Only a test that had its nodes to itself gets the last loss, the one that abandons it: losing a node in company
    proves nothing about a single test.
    """
    run = state.runs[lease.run]
    lost.losses += 1
    bound = LOSSES_MAX if lease.alone else LOSSES_MAX - 1
    tests = leasing.tests_of(lease)
    taken, heirs = leasing.take_out(state, lease, tests)
    leasing.close(state, lease)
    for task in taken:
        for half in ranges.halve(task):
            ranges.insert(run.pending, replace(half, losses=min(task.losses + 1, bound)))
    for heir in heirs:
        heir.open = [replace(task, losses=min(task.losses + 1, bound)) for task in heir.open]
    for test in tests:
        verdicts.end_attempt(run, test)
    if lease.collects:
        run.collect_losses += 1
        if run.collect_losses >= COLLECT_LOSSES_MAX:
            _report(run, Failure(EXIT_MESH_FAILED, f"{run.collect_losses} workers were lost while collecting"))


def _abandon(state: CoordinatorState, index: int, command: Abandon) -> Result:
    return _unrun(state, command.run, unrun.abandon(state.runs.get(command.run), command))


def _skip(state: CoordinatorState, index: int, command: Skip) -> Result:
    return _unrun(state, command.run, unrun.skip(state.runs.get(command.run), command))


def _reuse(state: CoordinatorState, index: int, command: Reuse) -> Result:
    return _unrun(state, command.run, unrun.reuse(state, command))


def _unrun(state: CoordinatorState, run: RunId, tests: tuple[TestIndex, ...] | Rejected) -> Result:
    if isinstance(tests, Rejected):
        return tests
    closed = _stop_at_limit(state, state.runs[run])
    _report_if_done(state.runs[run])
    return Applied(run=run, tests=tests, closed=closed)


def _cancel(state: CoordinatorState, index: int, command: Cancel) -> Result:
    run = state.runs.get(command.run)
    if run is None or run.phase in (RunPhase.REPORTING, RunPhase.FINISHED):
        return Rejected(f"run {command.run} is over" if run else f"there is no run {command.run}", command.run)
    return Applied(run=run.id, closed=_stop(state, run, command.reason, command.exit_code))


def _stop(state: CoordinatorState, run: Run, reason: str, exit_code: int) -> tuple[LeaseId, ...]:
    """End a run with the verdicts that it has; the leases that this closes."""
    closed = tuple(run.leases)
    for lease in closed:
        leasing.close(state, state.leases[lease])
    run.pending.clear()
    run.cancelled = reason
    run.cancel_code = exit_code
    run.phase = RunPhase.REPORTING
    return closed


def _stop_at_limit(state: CoordinatorState, run: Run) -> tuple[LeaseId, ...]:
    """End a run whose limit of bad verdicts is reached, in pytest's words; the leases that this closes."""
    if not run.spec.maxfail or verdicts.bad(run) < run.spec.maxfail or run.done == run.tests:
        return ()
    return _stop(state, run, f"stopping after {run.spec.maxfail} failures", EXIT_TESTS_FAILED)


def _finish(state: CoordinatorState, index: int, command: Finish) -> Result:
    run = state.runs.get(command.run)
    if run is None or run.phase is not RunPhase.REPORTING:
        return Rejected(f"run {command.run} is not waiting for its report", command.run)
    run.phase = RunPhase.FINISHED
    run.report = command.report
    run.exit_code = command.exit_code
    run.reason = command.reason
    run.finished_at = command.at
    state.finished.append(run.id)
    pinset.enter(state, run)
    retain(state)
    return Applied(run=run.id)


def _close_if_done(state: CoordinatorState, lease: Lease) -> tuple[LeaseId, ...]:
    if lease.open:
        return ()
    leasing.close(state, lease)
    _report_if_done(state.runs[lease.run])
    return (lease.id,)


def _report_if_done(run: Run) -> None:
    if run.done == run.tests:
        run.phase = RunPhase.REPORTING


def _report(run: Run, failure: Failure) -> None:
    """The run ends here, without tests to run."""
    run.failure = failure
    run.phase = RunPhase.REPORTING


_HANDLERS: dict[type[Any], Callable[[CoordinatorState, int, Any], Result]] = {
    Found: _found,
    RaiseFormat: _raise_format,
    Yield: _yield,
    Register: _register,
    Submit: _submit,
    Collected: _collected,
    CollectFailed: _collect_failed,
    Grant: leasing.grant,
    Hedge: leasing.hedge,
    Complete: _complete,
    Return: _return,
    Preempt: _preempt,
    Expire: _expire,
    Abandon: _abandon,
    Skip: _skip,
    Reuse: _reuse,
    Cancel: _cancel,
    Finish: _finish,
    Claim: shared.claim,
    Settle: shared.settle,
    PinRoot: pinset.pin_root,
    Unpin: pinset.unpin,
    Placed: pinset.placed,
    RaiseAlerts: alerts.raise_alerts,
    ClearAlerts: alerts.clear_alerts,
    AcknowledgeAlert: alerts.acknowledge,
    AlertsTold: alerts.told,
    Quarantine: alerts.quarantine,
    Release: alerts.release,
}

"""What always holds of a state, as asserts. Tests and the simulator call `check` after every entry."""

from mesh.state import alerts, gangs, holdings, pinset, ranges
from mesh.state.dependencies import GOOD
from mesh.state.model import (
    ALERTS_ACTIVE_MAX,
    ALERTS_MAX,
    HOLDERS_MAX,
    LEASES_PER_WORKER_MAX,
    LOSSES_MAX,
    NO_LEASE,
    NO_VERDICT,
    NO_WORKER,
    PINS_MAX,
    PREEMPTIONS_MAX,
    QUARANTINED_MAX,
    RUNS_DETAILED_MAX,
    RUNS_SUMMARISED_MAX,
    TRIES_MAX,
    USER_PINS_MAX,
    CoordinatorState,
    Lease,
    Run,
    RunPhase,
)
from protocols.commands import REPLICAS_MAX
from protocols.manifests import THOUSAND, Outcome


def check(state: CoordinatorState) -> None:
    """Assert every invariant; time linear in the tests of all runs."""
    for key, run in state.runs.items():
        assert key == run.id <= state.applied, "a run's ID is the index of its submission"
        _check_run(state, run)
    for lease_key, lease in state.leases.items():
        assert lease_key == lease.id <= state.applied, "a lease's ID is the index of its grant"
        _check_lease(state, lease)
    for peer, worker in state.workers.items():
        held = [lease.id for lease in state.leases.values() if lease.worker == peer]
        assert worker.peer == peer, "workers are known by their peer"
        hosted = [lease.id for lease in state.leases.values() if peer in lease.hosts[1:]]
        assert worker.leases == sorted(held), f"{worker.name}'s leases are not the state's"
        assert worker.hosted == sorted(hosted), f"{worker.name} is not the companion that the leases say"
        assert len(held) + len(hosted) <= LEASES_PER_WORKER_MAX, f"{worker.name} holds too many leases"
        assert not hosted or gangs.occupied(state, worker) <= worker.slots, f"{worker.name} has not kept what it should"
    _check_holdings(state)
    for name, claim in state.claims.items():
        works = any((lease.run, lease.worker) == (claim.run, claim.worker) for lease in state.leases.values())
        assert works, f"{name} is held by a worker that has no test of its run"
        assert name not in state.runs[claim.run].values, f"{name} has its value"
    known = {run.nonce: run.id for run in state.runs.values()}
    known |= {summary.nonce: summary.id for summary in state.archive.values()}
    assert state.nonces == known, "the nonces are not those of the runs"
    assert sorted(state.finished) == [run.id for run in state.runs.values() if run.phase is RunPhase.FINISHED]
    assert len(state.finished) <= RUNS_DETAILED_MAX, "too many finished runs are kept whole"
    assert len(state.finished) + len(state.archive) <= RUNS_SUMMARISED_MAX, "too many finished runs are kept"
    assert not (state.yielded and (state.runs or state.leases)), "a mesh that gave way has nothing to do"
    _check_pins(state)
    _check_alerts(state)


def _check_alerts(state: CoordinatorState) -> None:
    """Of one thing at most one alert is active; whoever is in quarantine is so for an alert."""
    assert state.format >= alerts.LOG_FORMAT_MIN or not (state.alerts or state.quarantine), "older voters know of none"
    current = [alert.about for alert in state.alerts.values() if alert.cleared_at is None]
    assert len(set(current)) == len(current) <= ALERTS_ACTIVE_MAX, "an alert is raised twice, or too many are"
    assert len(state.alerts) <= ALERTS_MAX, "too many alerts are kept"
    assert list(state.alerts) == sorted(state.alerts), "alerts are in the order of their IDs"
    for key, alert in state.alerts.items():
        assert key == alert.id, "alerts are known by their ID"
        assert (alert.acknowledged_at is None) == (not alert.acknowledged_by), "somebody acknowledges at some time"
        assert alert.told or not alert.told_end, "an end is told of what was told"
    assert all(peer == held.worker for peer, held in state.quarantine.items()), "quarantine is by worker"
    assert len(state.quarantine) <= QUARANTINED_MAX, "too many workers are in quarantine"


def _check_pins(state: CoordinatorState) -> None:
    """What an open run needs is pinned; each pin has its reasons, and each of its holders once."""
    assert not state.pins or state.format >= pinset.LOG_FORMAT_MIN, "older voters know of no pins"
    assert state.format < pinset.LOG_FORMAT_MIN or pinset.needed(state) <= state.pins.keys(), "an open run lacks a pin"
    assert len(state.pins) <= PINS_MAX, "too many roots are pinned"
    assert sum(map(pinset.is_users, state.pins.values())) <= USER_PINS_MAX, "users have too many pins"
    for root, pin in state.pins.items():
        kinds = [reason.kind for reason in pin.reasons]
        assert root == pin.root, "pins are known by their root"
        assert kinds, f"{root} is pinned for nothing"
        assert kinds == sorted(set(kinds)), f"{root} is pinned twice for one thing"
        assert 1 <= pin.wanted <= REPLICAS_MAX, f"{root} is to be on {pin.wanted} nodes"
        assert list(pin.holders) == sorted(set(pin.holders)), f"a node holds {root} twice"
        assert len(pin.holders) <= HOLDERS_MAX, f"too many nodes hold {root}"


def _check_run(state: CoordinatorState, run: Run) -> None:
    leases = [lease for lease in state.leases.values() if lease.run == run.id]
    assert run.leases == sorted(lease.id for lease in leases), f"run {run.id}'s leases are not the state's"
    if run.phase is RunPhase.COLLECTING:
        assert not run.tests, "tests are known only when they were collected"
        assert len(leases) <= 1, "one worker collects a run"
        assert all(lease.collects for lease in leases), "tests are granted only when they were collected"
    elif run.phase is RunPhase.RUNNING:
        assert run.done < run.tests, "the last verdict ends a run"
        assert not any(lease.collects for lease in leases), "a run is collected once"
    else:
        assert not leases, "a run that is over has nothing under way"
        assert not run.pending, "a run that is over has nothing to do"
        assert (run.done == run.tests > 0) or run.failure or run.cancelled is not None, "a run ends for a reason"
    assert (run.phase is RunPhase.FINISHED) == (run.exit_code is not None) == (run.finished_at is not None)
    assert all(0 <= test < run.tests for test in run.preempted), "a test that the run lacks was preempted"
    assert all(0 < times <= PREEMPTIONS_MAX for times in run.preempted.values()), "a test was preempted too often"
    _check_partition(run, leases)
    _check_hedges(state, run, leases)
    _check_book(run)
    _check_order(run, leases)


def _check_partition(run: Run, leases: list[Lease]) -> None:
    """Each test is pending, or open in one lease, or has a verdict; of a cancelled run it may be nowhere. Hedges are
    beside that."""
    leases = [lease for lease in leases if not lease.hedges]
    places = bytearray(run.tests)
    for tasks in (run.pending, *(lease.open for lease in leases)):
        assert list(tasks) == sorted(tasks, key=lambda task: task.first), "tasks out of order"
        assert ranges.disjoint(tasks), "a test is in two tasks"
        for task in tasks:
            assert task.requirement < len(run.requirements), "a task names a requirement that the run has"
            assert task.losses <= LOSSES_MAX, "a test with that many losses is abandoned"
            for test in range(task.first, ranges.end(task)):
                places[test] += 1
    for test, outcome in enumerate(run.outcomes):
        places[test] += outcome != NO_VERDICT
    allowed = {0, 1} if run.cancelled is not None else {1}
    assert set(places) <= allowed, f"a test of run {run.id} is in two places, or lost"
    assert run.leased == sum(ranges.size(lease.open) for lease in leases), "the count of leased tests is off"
    assert run.pending_tests == ranges.size(run.pending), "the partition does not add up"


def _check_hedges(state: CoordinatorState, run: Run, leases: list[Lease]) -> None:
    """A hedge runs one test, which another worker's lease holds, and no other hedge."""
    hedges = {lease.open[0].first: lease for lease in leases if lease.hedges}
    assert run.hedges == {test: lease.id for test, lease in hedges.items()}, "the hedges are not those of the leases"
    assert len(hedges) == sum(1 for lease in leases if lease.hedges), "a test is hedged twice"
    for test, lease in hedges.items():
        first = state.leases.get(lease.hedges)
        assert ranges.size(lease.open) == 1, f"lease {lease.id} hedges more than a test"
        assert not lease.needs.held, f"lease {lease.id} hedges what is held"
        assert first is not None, f"lease {lease.id} hedges a closed one"
        assert (first.run, first.hedges) == (run.id, NO_LEASE), f"lease {lease.id} hedges a hedge, or another run's"
        assert ranges.locate(first.open, test) is not None, f"lease {lease.id} hedges what lease {first.id} has not"
        assert first.worker != lease.worker, f"lease {lease.id} hedges its own worker"


def _check_book(run: Run) -> None:
    """What is counted is what is written, and what is written is what was accepted."""
    assert len(run.outcomes) == len(run.durations) == len(run.attempts) == run.tests
    assert run.counts == [run.outcomes.count(code) for code in range(len(Outcome))], "outcomes are miscounted"
    assert run.done == sum(run.counts), "verdicts are miscounted"
    assert run.microseconds == sum(run.durations), "durations are miscounted"
    accepted = [test for done in run.chunks for test in done.tests]
    assert len(accepted) == len(set(accepted)) == run.done, "a verdict was accepted twice"
    for done in run.chunks:
        assert len(done.tests) == len(done.outcomes) == len(done.durations) == len(done.attempts) > 0
        for test, outcome in zip(done.tests, done.outcomes, strict=True):
            assert run.outcomes[test] == outcome, "a verdict has changed"
    _check_tries(run)


def _check_tries(run: Run) -> None:
    """What is kept of earlier tries is bad, and of tests that were retried so often."""
    failed_on: dict[int, tuple[str, ...]] = {}
    for tried in run.tries:
        assert len(tried.tests) == len(tried.outcomes) == len(tried.durations) == len(tried.attempts) > 0
        assert all(Outcome.of_code(code).bad for code in tried.outcomes), "what is not bad is a verdict"
        for test in tried.tests:
            failed_on[test] = (*failed_on.get(test, ()), tried.worker)
    assert run.failed_on == failed_on, "the workers are not those of the tries"
    for test, workers in failed_on.items():
        assert len(workers) <= min(TRIES_MAX, run.retried.get(test, 0)), f"test {test} was tried less often"


def _check_holdings(state: CoordinatorState) -> None:
    """No lock and no device is held twice."""
    locks: dict[str, int] = {}
    for lease in state.leases.values():
        for lock in holdings.needs_of(state.runs[lease.run], lease.open).locks:
            assert lock not in locks, f"{lock} is held by leases {locks[lock]} and {lease.id}"
            locks[lock] = lease.id
    assert state.locks == locks, "the locks are not those of the leases"
    for peer in state.workers:
        for device, share in holdings.devices_in_use(state, peer).items():
            assert share <= THOUSAND, f"{device} of {peer} is held twice"


def _check_order(run: Run, leases: list[Lease]) -> None:
    """Nothing was recorded, or runs, before what it depends on, but a skip for a test that did not pass."""
    if run.barriers is None:
        return
    order = {test: (place, done.worker) for place, done in enumerate(run.chunks) for test in done.tests}
    underway = {test for lease in leases for task in lease.open for test in range(task.first, ranges.end(task))}
    for one in run.barriers.dependencies:
        before = range(one.on, one.on + one.on_count)
        for test in range(one.first, one.first + one.count):
            if test not in underway and test not in order:
                continue
            place, worker = order.get(test, (len(run.chunks), NO_LEASE))
            if worker == NO_WORKER and run.outcomes[test] == Outcome.SKIPPED.code:
                continue
            assert one.on_count, f"test {test} of run {run.id} depends on one that is not there"
            assert all(order[other][0] < place for other in before), f"test {test} of run {run.id} did not wait"
            assert not one.passed or all(run.outcomes[other] in GOOD for other in before), (
                f"test {test} was not skipped"
            )


def _check_lease(state: CoordinatorState, lease: Lease) -> None:
    worker = state.workers.get(lease.worker)
    assert lease.run in state.runs, f"lease {lease.id} is of a run that is not there"
    assert worker is not None, f"lease {lease.id} has no worker"
    assert worker.incarnation == lease.incarnation, f"lease {lease.id} is of a process that is gone"
    assert bool(lease.open) != lease.collects, f"lease {lease.id} holds nothing, or collects and holds tests"
    hosts = [state.workers[peer] for peer in lease.hosts]
    assert len({host.peer for host in hosts}) == lease.needs.hosts, f"lease {lease.id} has not the hosts that it needs"
    assert not lease.companions or ranges.size(lease.open) == 1, f"lease {lease.id} keeps hosts for more than a test"
    for host, companion in zip(hosts[1:], lease.companions, strict=True):
        assert host.incarnation == companion.incarnation, f"lease {lease.id} has a companion that is gone"
    if lease.alone:
        assert all([*host.leases, *host.hosted] == [lease.id] for host in hosts), f"lease {lease.id} is not alone"

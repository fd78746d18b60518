"""Which leases had better come back, so that a run gets the slots that are its by right.

Two degrees. **Recalled**: the worker gives back what it has not started, which costs nothing; asked of leases of runs
in a lower band, `RECALL_POINTS` of priority or more below, and of fat ones (granted while nobody else was there) of
runs that hold more than theirs. **Taken**: the log takes the lease back, running tests and all (`Preempt`), and the
worker kills them; asked of runs `TAKE_POINTS` or more below, after a grace of `GRACE_SECONDS`, or at once, as the
taker's `preempt` has it. A test that ends meanwhile is recorded, or refused, by the log's order alone.

No ping-pong. Who takes is decided by priorities as submitted, which nothing changes, so two runs never take from each
other; who has aged into the taker's band is its equal, and loses nothing; no test is taken more than `PREEMPTIONS_MAX`
times, which the log sees to, whoever plans. What was given back waits for its turn in the queue, behind the taker.
Nor does a lower band get a slot of a worker on which a lease of the taker waits to begin (its processes may still
start), and a lease that finds its worker full of lower runs asks for room there like one that was not granted.
Rejected: suspending processes (their memory and devices stay taken).
"""

import enum
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass

from mesh.scheduler.fleet import WorkerView
from mesh.scheduler.queue import Claim, band
from mesh.state import ranges
from mesh.state.model import PREEMPTIONS_MAX, CoordinatorState, Lease, Run, RunPhase
from protocols.ids import LeaseId, PeerId, RunId

RECALL_POINTS = 20
"""Priority over that of the other run, from which its tests that have not started are asked back."""
TAKE_POINTS = 40
"""And from which those that run are taken, too."""
GRACE_SECONDS = 30.0
"""What a running test has left before it is taken, unless the taker's `preempt` is "now"."""
FAT_SECONDS = 2.0
"""Expected seconds a slot of a lease, above which a run that holds less than others asks it back."""
RECALLS_PER_PLAN_MAX = 256
LOG_FORMAT_MIN = 3
"""Of a log that can hold a `Preempt`."""


@dataclass(frozen=True, slots=True)
class Unmet:
    """A run with tests that found no room on `workers`, which can do them."""

    claim: Claim
    tests: int
    workers: frozenset[PeerId]


@dataclass(frozen=True, slots=True)
class Recall:
    """A lease whose tests that have not started should come back; after `grace` seconds, all of it. None: never."""

    lease: LeaseId
    run: RunId
    """For whom."""
    grace: float | None


def recalls(
    state: CoordinatorState, claims: Iterable[Claim], unmet: Sequence[Unmet], fat: Set[LeaseId]
) -> tuple[Recall, ...]:
    """In the order of `unmet`; each lease once. `fat`: leases above `FAT_SECONDS`, or behind a test that does not end,
    of more tests than their worker has slots."""
    if not unmet:
        return ()
    everyone = {claim.run: claim for claim in (*claims, *(one.claim for one in unmet))}
    top = max(band(claim.priority) for claim in everyone.values())
    victims = _victims(state, everyone, fat)
    asked: dict[LeaseId, Recall] = {}
    for one in unmet:
        taker = state.runs[one.claim.run]
        if taker.spec.preempt == "never":
            continue
        wanted = one.tests
        for victim in victims:
            right = _right(state, taker, one.claim, victim, top)
            if right is _Right.NONE:
                continue
            for lease in victim.leases:
                if wanted <= 0 or len(asked) >= RECALLS_PER_PLAN_MAX:
                    break
                if lease.id in asked or (right is _Right.FAT and lease.id not in fat):
                    continue
                if one.workers.isdisjoint(lease.hosts):
                    continue
                asked[lease.id] = Recall(lease.id, taker.id, _grace(taker, victim.run, lease, right))
                wanted -= min(ranges.size(lease.open), state.workers[lease.worker].slots)
    return tuple(asked.values())


def queued(
    state: CoordinatorState, views: Iterable[WorkerView], claim_of: Callable[[Run], Claim], top: int
) -> tuple[dict[PeerId, int], list[Unmet]]:
    """What was granted and has not begun: by worker, the highest band of a run whose lease waits there (lower ones get
    no slot of it), and, where runs of lower priority have all its slots, what they should make room for."""
    runs = [run for run in state.runs.values() if run.phase is RunPhase.RUNNING]
    if len({run.spec.priority for run in runs}) < 2:
        return {}, []
    claims = {run.id: claim_of(run) for run in runs}
    bands: dict[PeerId, int] = {}
    blocked: list[Unmet] = []
    for view in views:
        running = {lease: state.leases[lease].run for lease, _, _ in view.running if lease in state.leases}
        least = min((state.runs[run].spec.priority for run in running.values()), default=0)
        is_full = len(view.running) >= view.slots
        for lease_id in state.workers[view.peer].leases:
            lease = state.leases[lease_id]
            if lease.run not in claims or lease_id in running:
                continue
            claim = claims[lease.run]
            bands[view.peer] = max(claim.aged(top), bands.get(view.peer, 0))
            if is_full and claim.priority - least >= RECALL_POINTS:
                blocked.append(Unmet(claim, ranges.size(lease.open), frozenset((view.peer,))))
    return bands, blocked


@dataclass(frozen=True, slots=True)
class _Victim:
    """A run that might lose leases, the newest first, since it did the least."""

    run: Run
    claim: Claim | None
    """None once all its tests are handed out."""
    leases: tuple[Lease, ...]


class _Right(enum.Enum):
    """What one run may ask of another one's leases."""

    NONE = enum.auto()
    FAT = enum.auto()
    """What has not started, of fat ones."""
    UNSTARTED = enum.auto()
    RUNNING = enum.auto()
    """What runs, too."""


def _victims(state: CoordinatorState, claims: Mapping[RunId, Claim], fat: Set[LeaseId]) -> list[_Victim]:
    """Runs with leases that might be asked for, the lowest first."""
    highest = max(claim.priority for claim in claims.values())
    found = []
    for run in sorted(state.runs.values(), key=lambda run: (run.spec.priority, -run.id)):
        below = highest - run.spec.priority >= RECALL_POINTS
        chosen = [lease for lease in reversed(run.leases) if below or lease in fat] if below or fat else []
        leases = tuple(lease for lease in map(state.leases.__getitem__, chosen) if not lease.collects)
        if leases:
            found.append(_Victim(run, claims.get(run.id), leases))
    return found


def _right(state: CoordinatorState, taker: Run, claim: Claim, victim: _Victim, top: int) -> _Right:
    """What the taker may ask of the victim."""
    points = taker.spec.priority - victim.run.spec.priority
    own, other = claim.aged(top), victim.claim.aged(top) if victim.claim else band(victim.run.spec.priority)
    if points >= RECALL_POINTS and own > other:
        takes = taker.spec.preempt in ("grace", "now") and state.format >= LOG_FORMAT_MIN
        return _Right.RUNNING if takes and points >= TAKE_POINTS else _Right.UNSTARTED
    if victim.run is not taker and (own > other or (own == other and _poorer(claim, victim))):
        return _Right.FAT
    return _Right.NONE


def _grace(taker: Run, victim: Run, lease: Lease, right: _Right) -> float | None:
    if right is not _Right.RUNNING or _worn(victim, lease):
        return None
    return GRACE_SECONDS if taker.spec.preempt == "grace" else 0.0


def _poorer(claim: Claim, victim: _Victim) -> bool:
    return victim.claim is None or claim.held / claim.weight < victim.claim.held / victim.claim.weight


def _worn(run: Run, lease: Lease) -> bool:
    """Whether a test of the lease was taken as often as may be."""
    counts = run.preempted
    return bool(counts) and any(
        counts.get(test, 0) >= PREEMPTIONS_MAX for task in lease.open for test in range(task.first, ranges.end(task))
    )

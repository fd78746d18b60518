"""What the metrics say of the mesh, as its coordinator has it: families of samples, by Prometheus' conventions.

Base units, counters in `_total`, and no label whose values nobody could list: a run, a test, a CID or another node is
never one. Pure; `mesh/monitoring/` puts it into words that Prometheus reads.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from mesh.measures import Histogram
from mesh.scheduler.queue import BAND_POINTS, BANDS, band
from mesh.scheduler.waiting import Waiting
from mesh.state.ledger import RUN_STATES, Ledger
from mesh.state.model import CoordinatorState, Run, RunPhase
from protocols.manifests import Outcome

OPEN_STATES = ("queued", "collecting", "running", "reporting")

REASONS = ("slot", "worker", "hosts", "held", "other")
"""Why tests wait: for a free slot; for a worker that has what they need; for more hosts at once than would do; for
what other leases hold; for their turn, or for other tests."""

Sample = tuple[Mapping[str, str], float | Histogram]
"""Labels, and the value."""


@dataclass(frozen=True, slots=True)
class Family:
    """Samples of one name. A counter's has no `_total` here: its samples get it."""

    name: str
    kind: str
    """ "gauge", "counter" or "histogram"."""
    help: str
    samples: tuple[Sample, ...]


def gauge(name: str, help: str, value: float) -> Family:
    return Family(name, "gauge", help, (({}, value),))


def counter(name: str, help: str, value: float) -> Family:
    return Family(name, "counter", help, (({}, value),))


def histogram(name: str, help: str, value: Histogram) -> Family:
    return Family(name, "histogram", help, (({}, value),))


def by(kind: str, name: str, help: str, label: str, values: Iterable[tuple[str, float]]) -> Family:
    """Samples that one label tells apart."""
    return Family(name, kind, help, tuple(({label: value}, number) for value, number in values))


def band_names() -> list[str]:
    """The bands of ten priorities, as `mesh why` names them."""
    starts = range(0, BANDS * BAND_POINTS, BAND_POINTS)
    return [f"{low}-{low + BAND_POINTS - 1 if low < BAND_POINTS * (BANDS - 1) else 100}" for low in starts]


def counted_families(ledger: Ledger) -> list[Family]:
    """What this node counted while it coordinated: added up over all nodes, that is what happened."""
    ended = [(state, float(ledger.ended[state])) for state in RUN_STATES]
    outcomes = [(outcome.value, float(ledger.outcomes[outcome.code])) for outcome in Outcome]
    return [
        by("counter", "mesh_tests", "Verdicts recorded while this node coordinated.", "outcome", outcomes),
        counter("mesh_tests_reused", "Verdicts of them taken from an earlier run (mesh run --cached).", ledger.reused),
        by("counter", "mesh_runs", "Runs that ended while this node coordinated.", "state", ended),
        counter("mesh_lease_expiries", "Leases lost with their worker while this node coordinated.", ledger.expiries),
    ]


def queue_families(state: CoordinatorState, waiting: Sequence[Waiting], workers: int, now: float) -> list[Family]:
    """What is open, as this coordinator sees it. `workers`: those that can be given work; `now`: since the epoch."""
    runs = [run for run in state.runs.values() if run.exit_code is None]
    pending: Counter[str] = Counter()
    leased: Counter[str] = Counter()
    oldest = dict.fromkeys(band_names(), 0.0)
    names = band_names()
    for run in runs:
        name = names[band(run.spec.priority)]
        pending[name] += run.pending_tests
        leased[name] += run.leased
        if run.pending_tests or (run.phase is RunPhase.COLLECTING and not run.leases):
            oldest[name] = max(oldest[name], now - run.submitted_at)
    states = Counter(run.state for run in runs)
    short = sum(len(pin.holders) < pin.wanted for pin in state.pins.values())
    return [
        by("gauge", "mesh_queue_tests", "Tests that wait to be handed out.", "priority", _of(names, pending)),
        by(
            "gauge", "mesh_queue_oldest_seconds",
            "Age of the oldest run that waits, or has tests that do; 0 if none does.", "priority", _of(names, oldest),
        ),
        by("gauge", "mesh_leased_tests", "Tests that workers hold.", "priority", _of(names, leased)),
        by("gauge", "mesh_waiting_tests", "Tests that wait, by why.", "reason", _reasons(runs, waiting)),
        by("gauge", "mesh_open_runs", "Runs that have not ended.", "state", _of(OPEN_STATES, states)),
        gauge("mesh_open_leases", "Leases that workers hold.", len(state.leases)),
        gauge("mesh_workers", "Workers that can be given work.", workers),
        gauge("mesh_pins", "Roots of content that the mesh keeps.", len(state.pins)),
        gauge("mesh_pins_under_replicated", "Roots that are on fewer nodes than wanted.", short),
    ]  # fmt: skip


def _of(names: Iterable[str], values: Mapping[str, float]) -> list[tuple[str, float]]:
    return [(name, values.get(name, 0.0)) for name in names]


def _reasons(runs: Sequence[Run], waiting: Sequence[Waiting]) -> list[tuple[str, float]]:
    known = {run.id for run in runs}
    tests: Counter[str] = Counter()
    for one in waiting:
        if one.run in known:
            tests[_reason(one)] += one.tests
    tests["other"] = max(0, sum(run.pending_tests for run in runs) - tests.total())
    return _of(REASONS, tests)


def _reason(waiting: Waiting) -> str:
    if waiting.is_busy:
        return "slot"
    if waiting.shortage:
        return "hosts"
    return "worker" if waiting.wanted is not None else "held"

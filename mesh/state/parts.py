"""What one host did of a past run. Pure."""

from dataclasses import dataclass

from mesh.state.past import BAD, KINDS, Results
from protocols.history import PastRun
from protocols.ids import PeerId


@dataclass(frozen=True, slots=True)
class Part:
    """Of the run's verdicts. `tests`, `bad` and `microseconds` are None where the run's results are not kept."""

    run: PastRun
    tests: int | None
    bad: int | None
    retried: int
    """Bad tries that are no verdict."""
    microseconds: int | None

    @property
    def is_empty(self) -> bool:
        return self.tests == 0 and not self.retried


def place_in(run: PastRun, host: PeerId) -> int | None:
    """Where the host stands among the run's workers; None: it is none of them, or one that is not told apart."""
    return next((place for place, (peer, _) in enumerate(run.workers) if peer == host), None)


def part_of(run: PastRun, place: int, results: Results | None) -> Part:
    """What the worker at that place did of the run."""
    retried = sum(worker == place for _, worker in run.tries)
    if results is None:
        return Part(run, None, None, retried, None)
    columns = zip(results.workers, results.outcomes.translate(KINDS), results.durations, strict=True)
    own = [(kind, took) for worker, kind, took in columns if worker == place]
    bad = sum(kind == BAD for kind, _ in own)
    return Part(run, len(own), bad, retried, sum(took for _, took in own))

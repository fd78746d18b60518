"""What became of runs, tests and leases while somebody looked: counters, made of the states that are seen.

`apply` counts nothing for it. A counter is the sum of the differences between one look and the next, and what was so
before the first look is not counted: several coordinators' counters add up to what happened. Runs that finished and
were forgotten between two looks are missed; that takes `RUNS_SUMMARISED_MAX` of them.
"""

from collections import Counter

from mesh.state.model import CoordinatorState, Run, RunSummary
from protocols.ids import PeerId, RunId
from protocols.manifests import Outcome

RUN_STATES = ("passed", "failed", "cancelled", "error")
"""How a run may end."""


class Ledger:
    """Totals since the first look."""

    def __init__(self) -> None:
        self.outcomes = [0] * len(Outcome)
        """Verdicts by `Outcome.code`."""
        self.reused = 0
        """Those of them that an earlier run had."""
        self.ended: Counter[str] = Counter()
        """Finished runs by `RUN_STATES`."""
        self.expiries = 0
        self._counted: dict[RunId, tuple[int, ...]] = {}
        self._over: set[RunId] = set()
        self._losses: dict[PeerId, int] = {}

    def begin(self, state: CoordinatorState) -> None:
        """What is so now was counted by somebody else."""
        kept = list(self.outcomes), self.reused, Counter(self.ended), self.expiries
        self.look(state)
        self.outcomes, self.reused, self.ended, self.expiries = kept

    def look(self, state: CoordinatorState) -> None:
        """Count what is new since the last look."""
        for run in state.archive.values():
            if run.id not in self._over:
                self._take(run)
        for one in state.runs.values():
            if one.id not in self._over:
                self._take(one)
        self._over = {run for run in self._over if run in state.runs or run in state.archive}
        self._counted = {run: counts for run, counts in self._counted.items() if run in state.runs}
        for peer, worker in state.workers.items():
            self.expiries += max(0, worker.losses - self._losses.get(peer, 0))
        self._losses = {peer: worker.losses for peer, worker in state.workers.items()}

    def _take(self, run: Run | RunSummary) -> None:
        counts = tuple(run.counts)
        before = self._counted.get(run.id, (0,) * len(counts))
        for code, (now, then) in enumerate(zip(counts, before, strict=True)):
            self.outcomes[code] += now - then
        self._counted[run.id] = counts
        if run.exit_code is not None:
            self.ended[run.state] += 1
            self.reused += run.reused
            self._over.add(run.id)

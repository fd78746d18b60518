"""Judges each run of a project by those before it, as it comes into this node's history while this node leads."""

import trio

from mesh.anomalies.judge import Judgement, judge
from mesh.anomalies.rules import RUNS_JUDGED_BY, Rules
from mesh.anomalies.story import story
from mesh.histories import RunHistory
from mesh.state import alerts
from mesh.state.model import CoordinatorState, Run
from protocols.alerts import AlertKind
from protocols.ids import PeerId, RunId

TESTS_MAX = 300_000
"""Of the runs together by which one is judged, and of itself."""

RECENT_SECONDS = 120.0
"""A run that finished so shortly before this node began to lead may not have been judged: it is judged again, which
changes nothing if it was."""

PATIENCE_SECONDS = 120.0
"""For a run to come into the history."""


class Judging:
    def __init__(self, rules: Rules, history: RunHistory) -> None:
        self._rules = rules
        self._history = history
        self._done: set[RunId] = set()
        self._waiting: dict[RunId, float] = {}
        """Since when a finished run is awaited, seconds since the epoch."""

    def restart(self, state: CoordinatorState, now: float) -> None:
        """This node leads from now on."""
        self._waiting.clear()
        self._done = {run for run in state.finished if now - (state.runs[run].finished_at or now) > RECENT_SECONDS}

    async def due(self, mesh: str, state: CoordinatorState, now: float) -> list[Judgement]:
        """Of the runs that finished since the last call, as far as the history has them."""
        self._done &= set(state.finished)
        made: list[Judgement] = []
        for run_id in [run for run in state.finished if run not in self._done]:
            run = state.runs[run_id]
            key = run.report or f"{mesh}/{run_id}"
            since = self._waiting.setdefault(run_id, now)
            if not run.tests or now - since > PATIENCE_SECONDS:
                self._over(run_id)
            elif self._history.has(key, whole=True):
                self._over(run_id)
                judged = await self._judge(run, key, state)
                if judged is not None:
                    made.append(judged)
        return made

    def _over(self, run: RunId) -> None:
        self._done.add(run)
        self._waiting.pop(run, None)

    async def _judge(self, run: Run, key: str, state: CoordinatorState) -> Judgement | None:
        active = set(alerts.active(state))
        blamed = [PeerId(subject) for kind, subject in active if kind is AlertKind.BAD_HOST]
        wholes, names = await self._history.wholes(run.spec.project, RUNS_JUDGED_BY + 2, TESTS_MAX)
        place = next((place for place, whole in enumerate(wholes) if whole.run.key == key), None)
        if place is None:
            return None

        def work() -> Judgement:
            newest, *past = [story(whole, names[whole.digest]) for whole in wholes[place:]]
            return judge(self._rules, newest, past, active, blamed)

        return await trio.to_thread.run_sync(work)

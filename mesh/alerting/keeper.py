"""Raises, clears and tells alerts while this node leads.

What is so is looked at again and again, and what the log should say differently is proposed; the log decides, and what
it says is told to the sinks. So a new coordinator goes on from what was agreed, and no alert is raised, or told, twice.
"""

import logging
from collections.abc import Sequence

import trio

from mesh.alerting.config import AlertConfig
from mesh.alerting.judging import Judging
from mesh.alerting.telling import Telling
from mesh.alerting.watching import Watching
from mesh.anomalies.judge import About, Judgement
from mesh.anomalies.meshwide import KINDS, meshwide
from mesh.histories import RunHistory
from mesh.ports import Clock, Nodes, ReplicatedLog
from mesh.state import alerts
from mesh.state.model import Alert, CoordinatorState
from protocols.alerts import (
    AlertKind,
    AlertsTold,
    ClearAlerts,
    Finding,
    Quarantine,
    RaiseAlerts,
    Release,
)
from protocols.commands import Command
from protocols.errors import MeshError
from protocols.ids import AlertId
from protocols.presence import NodeState

log = logging.getLogger(__name__)

LOOK_SECONDS = 2.0

SETTLE_SECONDS = 30.0
"""For which something must be well again before its alert is over: what comes and goes is one alert."""

RENEW_SECONDS = 3_600.0
"""After which an alert that is still so is said to be, though nothing about it has changed."""

STALE_SECONDS = 14 * 86_400.0
"""After which an alert about a test or a project that was not seen again is over: it is run no more."""

WORKERS_LEFT_MIN = 0.5
"""Part of the workers here that no quarantine takes."""

_JUDGED = (AlertKind.SLOW_TEST, AlertKind.FLAKY_TEST, AlertKind.FAILURES, AlertKind.BAD_HOST)


class AlertKeeper:
    def __init__(
        self,
        *,
        config: AlertConfig,
        log: ReplicatedLog,
        nodes: Nodes,
        clock: Clock,
        history: RunHistory | None,
        telling: Telling | None = None,
    ) -> None:
        self._rules = config.rules
        self._log = log
        self._nodes = nodes
        self._clock = clock
        self._judging = Judging(config.rules, history) if history is not None else None
        self._telling = telling or Telling(config.sinks)
        self._watching = Watching()
        self._well_since: dict[AlertId, float] = {}
        """Since when what an active alert is about is no longer found, seconds since the epoch."""

    @property
    def _state(self) -> CoordinatorState:
        state: CoordinatorState = self._log.state
        return state

    async def lead(self) -> None:
        """For as long as this node leads."""
        self._watching = Watching()
        self._well_since.clear()
        if self._judging is not None:
            self._judging.restart(self._state, self._clock.now())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tell)
            while True:
                if self._state.format >= alerts.LOG_FORMAT_MIN:
                    try:
                        await self._look()
                    except MeshError as error:
                        log.info("alerts are looked after later: %s", error)
                await trio.sleep(LOOK_SECONDS)

    async def _look(self) -> None:
        now = self._clock.now()
        seen = self._watching.look(self._state, self._nodes.nodes(), now)
        findings = meshwide(self._rules, seen)
        judged = await self._judging.due(self._log.mesh, self._state, now) if self._judging is not None else []
        commands = self._changes(findings, judged, now)
        if commands:
            await self._log.propose_many(commands)
        limits = self._limits(judged, now)
        if limits:
            await self._log.propose_many(limits)

    def _changes(self, findings: Sequence[Finding], judged: Sequence[Judgement], now: float) -> list[Command]:
        """What the log should say differently; one alert a command, so that each is an event of the feed."""
        known = alerts.active(self._state)
        found = {(one.kind, one.subject): alerts.fitted(one) for one in findings}
        from_runs = {(one.kind, one.subject): alerts.fitted(one) for each in judged for one in each.findings}
        raised = [one for about, one in found.items() if _is_news(known.get(about), one, now)]
        raised += from_runs.values()
        over = [known[about].id for each in judged for about in each.over if about in known and about not in from_runs]
        over += self._settled(known, found, now)
        over += [
            alert.id for (kind, _), alert in known.items() if kind in _JUDGED and now - alert.last_seen > STALE_SECONDS
        ]
        commands: list[Command] = [RaiseAlerts((one,), now) for one in raised]
        return [*commands, *(ClearAlerts((alert,), now) for alert in dict.fromkeys(over))]

    def _settled(self, known: dict[About, Alert], found: dict[About, Finding], now: float) -> list[AlertId]:
        """Alerts about the mesh itself that have been found no longer for long enough."""
        gone = {alert.id for about, alert in known.items() if about[0] in KINDS and about not in found}
        self._well_since = {alert: self._well_since.get(alert, now) for alert in sorted(gone)}
        return [alert for alert, since in self._well_since.items() if now - since >= SETTLE_SECONDS]

    def _limits(self, judged: Sequence[Judgement], now: float) -> list[Command]:
        """Who goes into quarantine, if the rules say so, and who comes out of it."""
        state = self._state
        known = alerts.active(state)
        bad = [one.node for each in judged for one in each.findings if one.kind is AlertKind.BAD_HOST]
        commands: list[Command] = []
        free = self._workers_here() - len(state.quarantine)
        for worker in bad if self._rules.quarantine else ():
            alert = known.get((AlertKind.BAD_HOST, worker))
            if alert is None or alert.acknowledged_at is not None or worker not in state.workers:
                continue
            if worker not in state.quarantine and free - 1 < max(1, WORKERS_LEFT_MIN * self._workers_here()):
                log.warning("%s stays without quarantine: too few workers would be left", worker)
                continue
            free -= worker not in state.quarantine
            commands.append(Quarantine(worker, alert.id, now, now + self._rules.quarantine_seconds))
        named = {command.worker for command in commands if isinstance(command, Quarantine)}
        over = [held.worker for held in state.quarantine.values() if held.until <= now and held.worker not in named]
        return [*commands, *map(Release, over)]

    def _workers_here(self) -> int:
        views = self._nodes.nodes()
        return sum(peer in views and views[peer].state is NodeState.ALIVE for peer in self._state.workers)

    async def _tell(self) -> None:
        """Tell the sinks what the log says and they do not know."""
        while self._telling.listens:
            version = self._log.version
            raised, cleared, passed = _untold(self._state)
            if raised or cleared or passed:
                messages = [("raised", alerts.alert_document(alert)) for alert in raised]
                messages += [("cleared", alerts.alert_document(alert)) for alert in cleared]
                await self._telling.all(self._log.mesh, messages)
                ended = tuple(alert.id for alert in (*cleared, *passed))
                try:
                    await self._log.propose(AlertsTold(tuple(alert.id for alert in raised), ended))
                except MeshError as error:
                    log.info("that alerts were told is not noted: %s", error)
                    await trio.sleep(LOOK_SECONDS)
                continue
            await self._log.wait_changed(version)


def _is_news(known: Alert | None, finding: Finding, now: float) -> bool:
    """Whether the log should be told: of numbers that change all the time, only now and then."""
    if known is None:
        return True
    changed = (known.finding.severity, known.finding.summary) != (finding.severity, finding.summary)
    return changed or now - known.last_seen >= RENEW_SECONDS


def _untold(state: CoordinatorState) -> tuple[list[Alert], list[Alert], list[Alert]]:
    """(Alerts to be told, ends to be told, alerts that were over before anybody was told)."""
    every = list(state.alerts.values())
    return (
        [alert for alert in every if alert.cleared_at is None and not alert.told],
        [alert for alert in every if alert.cleared_at is not None and alert.told and not alert.told_end],
        [alert for alert in every if alert.cleared_at is not None and not alert.told],
    )

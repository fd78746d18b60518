"""Alerts and quarantine in the log: a small table, so that each alert survives a failover and is told once.

An alert is active until it is cleared; of the same kind and subject at most one is. What is over is kept as long as
there is room. A worker in quarantine gets no lease, whichever coordinator would grant one: `leasing` asks here.

Rejected: alerts in a coordinator's memory (each new one would raise them all again, and forget who acknowledged them).
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from mesh.state.model import ALERTS_ACTIVE_MAX, ALERTS_MAX, QUARANTINED_MAX, Alert, CoordinatorState
from mesh.state.results import Applied, Rejected, Result
from protocols.alerts import (
    ALERTS_PER_COMMAND_MAX,
    DETAIL_CHARACTERS_MAX,
    NAME_CHARACTERS_MAX,
    SUBJECT_CHARACTERS_MAX,
    SUMMARY_CHARACTERS_MAX,
    AcknowledgeAlert,
    AlertKind,
    AlertsTold,
    ClearAlerts,
    Finding,
    Quarantine,
    RaiseAlerts,
    Release,
    alert_id,
)
from protocols.ids import AlertId, PeerId

LOG_FORMAT_MIN = 5

_OLD = Rejected("nodes of an older version are in the mesh, which know of no alerts")


def active(state: CoordinatorState) -> dict[tuple[AlertKind, str], Alert]:
    """By what they are about."""
    return {alert.about: alert for alert in state.alerts.values() if alert.cleared_at is None}


def quarantined(state: CoordinatorState, worker: PeerId) -> str:
    """Why a worker is given nothing, as the end of a sentence that begins with its name; empty: it is not so."""
    held = state.quarantine.get(worker)
    return f"is in quarantine for alert {held.alert}" if held is not None else ""


_OF_TESTS = (AlertKind.SLOW_TEST, AlertKind.FLAKY_TEST)


def alert_document(alert: Alert) -> dict[str, Any]:
    """As people and scripts see it. `project`: of what is about one."""
    found = alert.finding
    project = None
    if found.kind is AlertKind.FAILURES:
        project = found.subject
    elif found.kind in _OF_TESTS and found.subject.endswith(f" {found.test}"):
        project = found.subject[: -len(found.test) - 1]
    return {
        "id": str(alert.id),
        "kind": found.kind.value,
        "subject": found.subject,
        "severity": found.severity.value,
        "summary": found.summary,
        "detail": found.detail,
        "help": found.help,
        "since": alert.since,
        "last_seen": alert.last_seen,
        "cleared_at": alert.cleared_at,
        "acknowledged_by": alert.acknowledged_by,
        "acknowledged_at": alert.acknowledged_at,
        "project": project,
        "run": str(found.run) if found.run else None,
        "test": found.test or None,
        "node": found.node or None,
    }


def alert_documents(alerts: Iterable[Alert]) -> list[dict[str, Any]]:
    """What is active first, the newest first."""
    ordered = sorted(alerts, key=lambda alert: (alert.cleared_at is not None, -(alert.cleared_at or alert.since)))
    return [alert_document(alert) for alert in ordered]


def alerts_document(state: CoordinatorState) -> dict[str, Any]:
    """The mesh's alerts, and who is in quarantine."""
    return {"alerts": alert_documents(state.alerts.values()), "quarantine": _quarantined(state)}


def _quarantined(state: CoordinatorState) -> list[dict[str, Any]]:
    return [
        {
            "worker": held.worker,
            "name": state.workers[held.worker].name if held.worker in state.workers else "",
            "alert": str(held.alert),
            "since": held.since,
            "until": held.until,
        }
        for _, held in sorted(state.quarantine.items())
    ]


def fitted(finding: Finding) -> Finding:
    """Cut to what the log takes."""
    return replace(
        finding,
        subject=finding.subject[:SUBJECT_CHARACTERS_MAX],
        summary=finding.summary[:SUMMARY_CHARACTERS_MAX],
        detail=finding.detail[:DETAIL_CHARACTERS_MAX],
        help=finding.help[:DETAIL_CHARACTERS_MAX],
        test=finding.test[:DETAIL_CHARACTERS_MAX],
    )


def raise_alerts(state: CoordinatorState, index: int, command: RaiseAlerts) -> Result:
    if state.format < LOG_FORMAT_MIN:
        return _OLD
    if not 0 < len(command.findings) <= ALERTS_PER_COMMAND_MAX or any(map(_too_long, command.findings)):
        return Rejected("too many findings in one command, or too long ones")
    known = active(state)
    changed = False
    for place, finding in enumerate(command.findings):
        about = (finding.kind, finding.subject)
        old = known.get(about)
        if old is not None:
            made = replace(old, finding=finding, last_seen=max(old.last_seen, command.at))
        elif len(known) < ALERTS_ACTIVE_MAX:
            made = Alert(alert_id(index, place), finding, since=command.at, last_seen=command.at)
        else:
            continue
        known[about] = state.alerts[made.id] = made
        changed = True
    _forget(state)
    return Applied() if changed else Rejected(f"{ALERTS_ACTIVE_MAX} alerts are active already")


def _too_long(finding: Finding) -> bool:
    return (
        len(finding.subject) > SUBJECT_CHARACTERS_MAX
        or len(finding.summary) > SUMMARY_CHARACTERS_MAX
        or max(len(finding.detail), len(finding.help), len(finding.test)) > DETAIL_CHARACTERS_MAX
    )


def _forget(state: CoordinatorState) -> None:
    """What is over longest goes first."""
    over = len(state.alerts) - ALERTS_MAX
    if over > 0:
        past = [alert for alert in state.alerts.values() if alert.cleared_at is not None]
        for alert in sorted(past, key=lambda one: (one.cleared_at or 0.0, one.id))[:over]:
            del state.alerts[alert.id]


def clear_alerts(state: CoordinatorState, index: int, command: ClearAlerts) -> Result:
    found = [state.alerts[one] for one in command.alerts if _is_active(state, one)]
    for alert in found:
        state.alerts[alert.id] = replace(alert, cleared_at=max(command.at, alert.since))
    return Applied() if found else Rejected("none of these alerts is active")


def _is_active(state: CoordinatorState, alert: AlertId) -> bool:
    known = state.alerts.get(alert)
    return known is not None and known.cleared_at is None


def acknowledge(state: CoordinatorState, index: int, command: AcknowledgeAlert) -> Result:
    alert = state.alerts.get(command.alert)
    if alert is None:
        return Rejected(f"there is no alert {command.alert}")
    if not 0 < len(command.by) <= NAME_CHARACTERS_MAX:
        return Rejected(f"who acknowledges has a name of at most {NAME_CHARACTERS_MAX} characters")
    if alert.acknowledged_at is None:
        state.alerts[alert.id] = replace(alert, acknowledged_by=command.by, acknowledged_at=command.at)
    for held in [held for held in state.quarantine.values() if held.alert == alert.id]:
        del state.quarantine[held.worker]
    return Applied()


def told(state: CoordinatorState, index: int, command: AlertsTold) -> Result:
    changed = False
    for one in command.raised:
        if one in state.alerts:
            state.alerts[one] = replace(state.alerts[one], told=True)
            changed = True
    for one in command.cleared:
        if one in state.alerts and state.alerts[one].cleared_at is not None:
            state.alerts[one] = replace(state.alerts[one], told=True, told_end=True)
            changed = True
    return Applied() if changed else Rejected("none of these alerts is here")


def quarantine(state: CoordinatorState, index: int, command: Quarantine) -> Result:
    if state.format < LOG_FORMAT_MIN:
        return _OLD
    if command.worker not in state.workers:
        return Rejected(f"worker {command.worker} is not registered")
    if not _is_active(state, command.alert):
        return Rejected(f"alert {command.alert} is not active")
    if command.worker not in state.quarantine and len(state.quarantine) >= QUARANTINED_MAX:
        return Rejected(f"{QUARANTINED_MAX} workers are in quarantine already")
    state.quarantine[command.worker] = command
    return Applied()


def release(state: CoordinatorState, index: int, command: Release) -> Result:
    if state.quarantine.pop(command.worker, None) is None:
        return Rejected(f"worker {command.worker} is not in quarantine")
    return Applied()

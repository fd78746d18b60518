"""Alerts and quarantine in the log: raised once, renewed, cleared, acknowledged, told; and who gets no lease."""

import pytest
from state_builder import ALICE, BOB, Builder

from mesh.state import alerts
from mesh.state.model import Alert, Task
from mesh.state.rebirth import reborn
from mesh.state.snapshot import decode_state, encode_state
from protocols.alerts import (
    ALERTS_PER_COMMAND_MAX,
    AcknowledgeAlert,
    AlertKind,
    AlertsTold,
    ClearAlerts,
    Finding,
    Quarantine,
    RaiseAlerts,
    Release,
    Severity,
)
from protocols.commands import Grant, Hedge, RaiseFormat, Register, Return
from protocols.ids import AlertId, PeerId, TestIndex


@pytest.fixture
def builder() -> Builder:
    made = Builder()
    made.accept(RaiseFormat(alerts.LOG_FORMAT_MIN))
    return made


def finding(subject: str = "suite a::x", kind: AlertKind = AlertKind.SLOW_TEST, summary: str = "slow") -> Finding:
    return Finding(kind, subject, Severity.WARNING, summary)


def raised(builder: Builder, *findings: Finding, at: float = 10.0) -> list[Alert]:
    builder.accept(RaiseAlerts(findings, at))
    known = alerts.active(builder.state)
    return [known[one.kind, one.subject] for one in findings]


def test_an_alert_is_raised_once_renewed_and_over(builder: Builder) -> None:
    (alert,) = raised(builder, finding())
    (same, host) = raised(builder, finding(summary="slower"), finding(BOB, AlertKind.BAD_HOST), at=20.0)
    assert (same.id, same.since, same.last_seen, same.finding.summary) == (alert.id, 10.0, 20.0, "slower")
    builder.accept(ClearAlerts((alert.id,), 30.0))
    assert builder.state.alerts[alert.id].cleared_at == 30.0
    assert "none" in builder.reject(ClearAlerts((alert.id, AlertId(5)), 31.0)), "it is over once"
    (again,) = raised(builder, finding(), at=40.0)
    assert again.id > host.id > alert.id
    assert len(builder.state.alerts) == 3
    assert decode_state(encode_state(builder.state)) == builder.state


def test_who_knows_and_whether_the_sinks_do(builder: Builder) -> None:
    (alert,) = raised(builder, finding())
    builder.accept(AcknowledgeAlert(alert.id, "ada", 11.0))
    builder.accept(AcknowledgeAlert(alert.id, "bob", 12.0))
    known = builder.state.alerts[alert.id]
    assert (known.acknowledged_by, known.acknowledged_at) == ("ada", 11.0), "the first one"
    assert "no alert 7" in builder.reject(AcknowledgeAlert(AlertId(7), "ada", 12.0))
    assert "characters" in builder.reject(AcknowledgeAlert(alert.id, "", 12.0))
    builder.accept(AlertsTold((alert.id,)))
    assert builder.state.alerts[alert.id].told
    assert builder.reject(AlertsTold((), (alert.id,))), "it is not over"
    builder.accept(ClearAlerts((alert.id,), 13.0))
    builder.accept(AlertsTold((), (alert.id,)))
    assert (builder.state.alerts[alert.id].told, builder.state.alerts[alert.id].told_end) == (True, True)


def test_the_table_is_bounded(builder: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("mesh.state.alerts", "mesh.state.invariants"):
        monkeypatch.setattr(f"{module}.ALERTS_ACTIVE_MAX", 2)
        monkeypatch.setattr(f"{module}.ALERTS_MAX", 3)
    first, second = raised(builder, finding("a"), finding("b"))
    assert "2 alerts are active" in builder.reject(RaiseAlerts((finding("c"),), 1.0))
    builder.accept(ClearAlerts((second.id,), 15.0))
    builder.accept(ClearAlerts((first.id,), 16.0))
    raised(builder, finding("c"), finding("d"))
    assert second.id not in builder.state.alerts, "what is over longest goes"
    assert first.id in builder.state.alerts
    many = tuple(finding(str(n)) for n in range(ALERTS_PER_COMMAND_MAX + 1))
    for wrong in ((), many, (finding("x" * 1_001),), (finding(summary="x" * 301),)):
        assert "too" in builder.reject(RaiseAlerts(wrong, 1.0))


def test_older_voters_know_of_none() -> None:
    builder = Builder()
    builder.worker(ALICE)
    assert "older version" in builder.reject(RaiseAlerts((finding(),), 1.0))
    assert "older version" in builder.reject(Quarantine(ALICE, AlertId(1), 1.0, 2.0))


def test_a_worker_in_quarantine_gets_no_lease_and_keeps_what_it_has(builder: Builder) -> None:
    run = builder.running(Task(0, 4), hedge=True)
    held = builder.grant(run.id, BOB, Task(0, 1))
    other = builder.grant(run.id, ALICE, Task(1, 1))
    (alert,) = raised(builder, finding(BOB, AlertKind.BAD_HOST))
    assert "not active" in builder.reject(Quarantine(BOB, AlertId(1), 10.0, 99.0))
    assert "not registered" in builder.reject(Quarantine(PeerId("carol"), alert.id, 10.0, 99.0))
    builder.accept(Quarantine(BOB, alert.id, 10.0, 99.0))
    refused = f"in quarantine for alert {alert.id}"
    assert refused in builder.reject(Grant(run.id, BOB, 1, (Task(2, 1),)))
    assert refused in builder.reject(Hedge(other, TestIndex(1), BOB, 1))
    assert held in builder.state.leases
    builder.accept(Register(BOB, "host-bob", 2, 2))
    assert refused in builder.reject(Grant(run.id, BOB, 2, (Task(2, 1),))), "a restart mends no host"
    builder.accept(Release(BOB))
    builder.grant(run.id, BOB, Task(2, 1))
    assert builder.reject(Release(BOB))


def test_whoever_acknowledges_lets_the_worker_out(builder: Builder) -> None:
    builder.worker(BOB)
    (alert,) = raised(builder, finding(BOB, AlertKind.BAD_HOST))
    builder.accept(Quarantine(BOB, alert.id, 10.0, 99.0))
    assert decode_state(encode_state(builder.state)) == builder.state
    builder.accept(AcknowledgeAlert(alert.id, "ada", 11.0))
    assert not builder.state.quarantine


def test_a_mesh_that_is_founded_anew_keeps_its_alerts(builder: Builder) -> None:
    run = builder.running(Task(0, 1))
    lease = builder.grant(run.id, ALICE, Task(0, 1))
    (alert,) = raised(builder, finding())
    builder.accept(Return(lease, ()))
    assert alert.id in reborn(builder.state, "anew", builder.index).alerts

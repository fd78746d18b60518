"""Alerts: what the mesh noticed that somebody should know, and who said that they do. Decisions, so they are commands.

In logs from format 5 on.
"""

import enum

from protocols.codec import message
from protocols.ids import NO_RUN, AlertId, PeerId, RunId

SUBJECT_CHARACTERS_MAX = 1_000
SUMMARY_CHARACTERS_MAX = 300
DETAIL_CHARACTERS_MAX = 2_000
NAME_CHARACTERS_MAX = 100
"""Of who acknowledges."""

ALERTS_PER_COMMAND_MAX = 64


class AlertKind(enum.StrEnum):
    SLOW_TEST = "slow-test"
    FAILURES = "failures"
    FLAKY_TEST = "flaky-test"
    BAD_HOST = "bad-host"
    FLAPPING_NODE = "flapping-node"
    NO_QUORUM = "no-quorum"
    UNDER_REPLICATED = "under-replicated"
    FULL_DISK = "full-disk"
    LONG_QUEUE = "long-queue"


class Severity(enum.StrEnum):
    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


@message("a.finding")
class Finding:
    """What is wrong, as somebody would tell it. `kind` and `subject` say together which alert it is."""

    kind: AlertKind
    subject: str
    """Such as a project and a test, a peer ID, or a run."""
    severity: Severity
    summary: str
    """One line: what was seen."""
    detail: str = ""
    """The numbers behind it."""
    help: str = ""
    """What to do."""
    run: RunId = NO_RUN
    test: str = ""
    node: PeerId = PeerId("")


@message("c.alerts")
class RaiseAlerts:
    """These are so now. An alert that is active already is renewed; else there is one more, whose ID is this entry's
    index and its place here (`alert_id`)."""

    findings: tuple[Finding, ...]
    at: float
    """Seconds since the epoch, by the coordinator's clock; so in the next ones."""


@message("c.alerts-end")
class ClearAlerts:
    """These are so no longer."""

    alerts: tuple[AlertId, ...]
    at: float


@message("c.alert-known")
class AcknowledgeAlert:
    """Somebody knows. The worker that it put into quarantine, if it did, is let out."""

    alert: AlertId
    by: str
    at: float


@message("c.alerts-told")
class AlertsTold:
    """The sinks were told of these: of what was raised, and of what was cleared."""

    raised: tuple[AlertId, ...]
    cleared: tuple[AlertId, ...] = ()


@message("c.quarantine")
class Quarantine:
    """A worker gets no new leases until it is let out; what it holds, it goes on with."""

    worker: PeerId
    alert: AlertId
    """Why."""
    since: float
    until: float
    """When the coordinator is to let it out."""


@message("c.release")
class Release:
    """It gets leases again."""

    worker: PeerId


def alert_id(index: int, place: int) -> AlertId:
    """Of the finding at `place` of the entry at `index`."""
    return AlertId(index * ALERTS_PER_COMMAND_MAX + place)

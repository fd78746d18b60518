"""Sees that each sink hears of each alert once: bounded attempts, one after another, and what was heard is remembered.

That an alert was told is noted in the log when every sink has taken it, or has refused it too often. Until then the
memory of who took it is this node's; so one that takes over the lead in between may tell it again, and none is lost.
"""

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import trio

from mesh.alerting.config import Email, Sink, Slack, Webhook
from mesh.alerting.sinks import tell
from protocols.alerts import AlertKind, Severity
from protocols.errors import MeshError

log = logging.getLogger(__name__)

ATTEMPTS_MAX = 4
PAUSES = (0.0, 2.0, 10.0, 30.0)
"""Seconds before each attempt."""

Tell = Callable[[Sink, str, str, Mapping[str, Any]], None]

Message = tuple[str, Mapping[str, Any]]
"""An event ("raised", "cleared"), and the alert's document."""


def name_of(sink: Sink) -> str:
    """For the log, without secrets."""
    match sink:
        case Webhook(url=url):
            return f"webhook {url.partition('?')[0]}"
        case Slack():
            return "slack"
        case Email(to=to):
            return f"e-mail to {', '.join(to)}"
    return f"command {getattr(sink, 'command', ('?',))[0]}"


class Telling:
    def __init__(self, sinks: Sequence[Sink], how: Tell = tell) -> None:
        self._sinks = sinks
        self._how = how

    @property
    def listens(self) -> bool:
        """Whether there is anybody to tell."""
        return bool(self._sinks)

    async def all(self, mesh: str, messages: Collection[Message]) -> None:
        """Tell them all, each sink in order, the sinks side by side; returns when each took them, or gave up."""
        async with trio.open_nursery() as nursery:
            for sink in self._sinks:
                nursery.start_soon(self._one, sink, mesh, list(messages))

    async def _one(self, sink: Sink, mesh: str, messages: Sequence[Message]) -> None:
        for event, alert in messages:
            wanted = sink.wants(AlertKind(alert["kind"]), Severity(alert["severity"]))
            if not wanted or (event == "cleared" and not sink.recovery):
                continue
            for attempt in range(ATTEMPTS_MAX):
                await trio.sleep(PAUSES[attempt])
                try:
                    await trio.to_thread.run_sync(self._how, sink, mesh, event, alert, abandon_on_cancel=True)
                    break
                except MeshError as error:
                    log.warning("%s does not take alert %s: %s", name_of(sink), alert["id"], error)
            else:
                log.error("%s was not told of alert %s: %s", name_of(sink), alert["id"], alert["summary"])

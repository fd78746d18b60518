"""What can't go through the log, since there is nobody to lead it: each node raises it for itself, and tells its own
sinks."""

from collections import deque
from collections.abc import Callable
from typing import Any

import trio

from mesh.alerting.config import AlertConfig
from mesh.alerting.telling import Telling
from mesh.anomalies.meshwide import no_quorum
from mesh.ports import Clock, Nodes, ReplicatedLog
from mesh.state.alerts import alert_document
from mesh.state.model import Alert
from protocols.ids import AlertId, PeerId

LOOK_SECONDS = 1.0

PAST_MAX = 16


class LonelyAlerts:
    """This node's own: at most one is active."""

    def __init__(
        self,
        *,
        config: AlertConfig,
        nodes: Nodes,
        clock: Clock,
        replica: Callable[[], ReplicatedLog | None],
        coordinator: Callable[[], PeerId | None],
        mesh_name: Callable[[], str],
        telling: Telling | None = None,
    ) -> None:
        self._rules = config.rules
        self._nodes = nodes
        self._clock = clock
        self._replica = replica
        self._coordinator = coordinator
        self._mesh_name = mesh_name
        self._telling = telling or Telling(config.sinks)
        self._known: deque[Alert] = deque(maxlen=PAST_MAX)
        self._count = 0

    def documents(self) -> list[dict[str, Any]]:
        """The newest first; their IDs are this node's own."""
        return [{**alert_document(alert), "id": f"own-{alert.id}"} for alert in reversed(self._known)]

    async def run(self) -> None:
        """Until cancelled."""
        led = trio.current_time()
        async with trio.open_nursery() as nursery:
            while True:
                replica = self._replica()
                leader = replica.leader if replica is not None else self._coordinator()
                if leader is not None or not self._mesh_name():
                    led = trio.current_time()
                self._look(nursery, trio.current_time() - led, replica)
                await trio.sleep(LOOK_SECONDS)

    def _look(self, nursery: trio.Nursery, silent: float, replica: ReplicatedLog | None) -> None:
        voters = replica.configuration.voters if replica is not None else frozenset()
        views = self._nodes.nodes()
        me = replica.status().peer if replica is not None else None
        here = sum(peer == me or (peer in views and views[peer].connected) for peer in voters)
        found = no_quorum(self._rules, silent, len(voters), here)
        current = self._known[-1] if self._known and self._known[-1].cleared_at is None else None
        now = self._clock.now()
        if found is not None and current is None:
            self._count += 1
            self._known.append(Alert(AlertId(self._count), found, since=now - silent, last_seen=now))
            self._start(nursery, "raised")
        elif found is not None and current is not None:
            self._known[-1] = Alert(current.id, found, current.since, now)
        elif current is not None:
            self._known[-1] = Alert(current.id, current.finding, current.since, current.last_seen, cleared_at=now)
            self._start(nursery, "cleared")

    def _start(self, nursery: trio.Nursery, event: str) -> None:
        if self._telling.listens:
            nursery.start_soon(self._telling.all, self._mesh_name(), [(event, self.documents()[0])])

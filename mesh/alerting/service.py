"""One node's alerts, composed: its rules and sinks, what it raises for itself, what it does while it leads."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import trio

from mesh.alerting.config import load
from mesh.alerting.keeper import AlertKeeper
from mesh.alerting.lonely import LonelyAlerts
from mesh.histories import RunHistory
from mesh.ports import Clock, Nodes, ReplicatedLog
from protocols.ids import PeerId


class Alerting:
    """`UsageError` for a file of alerts that can't be read."""

    def __init__(
        self,
        file: Path | None,
        home: Path,
        *,
        nodes: Nodes,
        clock: Clock,
        history: RunHistory | None,
        replica: Callable[[], ReplicatedLog | None],
        coordinator: Callable[[], PeerId | None],
        mesh_name: Callable[[], str],
    ) -> None:
        self._config = load(file, home)
        self._nodes = nodes
        self._clock = clock
        self._history = history
        self._lonely = LonelyAlerts(
            config=self._config,
            nodes=nodes,
            clock=clock,
            replica=replica,
            coordinator=coordinator,
            mesh_name=mesh_name,
        )

    async def run(self) -> None:
        """What each node does, until cancelled."""
        await self._lonely.run()

    def own(self) -> list[dict[str, Any]]:
        """The alerts that this node raised for itself."""
        return self._lonely.documents()

    async def lead(self, replica: ReplicatedLog, beside: Callable[[], Awaitable[None]]) -> None:
        """Look after the mesh's alerts, beside whatever else the leader does, until that ends."""
        keeper = AlertKeeper(
            config=self._config, log=replica, nodes=self._nodes, clock=self._clock, history=self._history
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keeper.lead)
            await beside()
            nursery.cancel_scope.cancel()

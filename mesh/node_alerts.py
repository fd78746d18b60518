"""A node's side of alerts: what the mesh's are, by the coordinator or else by this node's copy of the log; its own."""

from collections.abc import Awaitable, Callable
from typing import Any

from mesh.ports import ReplicatedLog
from mesh.state.alerts import alerts_document
from protocols.alerts import NAME_CHARACTERS_MAX
from protocols.client import KnowAlert
from protocols.errors import NoQuorum, UsageError
from protocols.ids import AlertId

LOOK_SECONDS = 2.0

ID_CHARACTERS_MAX = 19

Look = Callable[[str, str, float], Awaitable[dict[str, Any]]]
Ask = Callable[[object], Awaitable[dict[str, Any]]]
"""Asks the coordinator something that it answers with a document."""


class NodeAlerts:
    def __init__(
        self,
        *,
        look: Look,
        ask: Ask,
        replica: Callable[[], ReplicatedLog | None],
        own: Callable[[], list[dict[str, Any]]],
        dated: Callable[[bool], dict[str, Any]],
    ) -> None:
        """`own`: alerts that this node raised for itself; `dated`: as in `Feeds`."""
        self._look = look
        self._ask = ask
        self._replica = replica
        self._own = own
        self._dated = dated

    async def listing(self) -> dict[str, Any]:
        """The mesh's alerts and this node's own, what is active first; and who is in quarantine."""
        agreed = True
        try:
            told = await self._look("alerts", "", LOOK_SECONDS)
        except NoQuorum:
            agreed, replica = False, self._replica()
            told = alerts_document(replica.state) if replica is not None else {"alerts": [], "quarantine": []}
        every = sorted([*self._own(), *told["alerts"]], key=lambda alert: alert["cleared_at"] is not None)
        return {"alerts": every, "quarantine": told["quarantine"], **self._dated(agreed)}

    async def acknowledge(self, alert: str, by: str) -> dict[str, Any]:
        """`UsageError`: there is no such alert."""
        if not (alert.isascii() and alert.isdigit() and len(alert) < ID_CHARACTERS_MAX):
            raise UsageError(f"{alert[:40]!r} is not an alert of the mesh; `mesh alerts` lists them")
        if not 0 < len(by) <= NAME_CHARACTERS_MAX or not by.isprintable():
            raise UsageError(f"'by' must be a name of at most {NAME_CHARACTERS_MAX} characters")
        return await self._ask(KnowAlert(AlertId(int(alert)), by))

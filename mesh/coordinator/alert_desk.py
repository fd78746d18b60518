"""What users ask the coordinator about alerts: what there is, and that somebody knows."""

from typing import Any

from mesh.ports import Clock, ReplicatedLog
from mesh.state import alerts
from mesh.state.model import CoordinatorState
from mesh.state.results import Rejected
from protocols.alerts import AcknowledgeAlert
from protocols.client import KnowAlert
from protocols.errors import UsageError


class AlertDesk:
    def __init__(self, log: ReplicatedLog, clock: Clock) -> None:
        self._log = log
        self._clock = clock

    @property
    def _state(self) -> CoordinatorState:
        state: CoordinatorState = self._log.state
        return state

    def listing(self) -> dict[str, Any]:
        return alerts.alerts_document(self._state)

    async def know(self, request: KnowAlert) -> dict[str, Any]:
        applied = await self._log.propose(AcknowledgeAlert(request.alert, request.by, self._clock.now()))
        if isinstance(applied.result, Rejected):
            raise UsageError(applied.result.reason)
        return alerts.alert_document(self._state.alerts[request.alert])

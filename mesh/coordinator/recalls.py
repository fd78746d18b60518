"""The timers of leases that should come back: when a worker is asked again, and when the log takes what is left.

Soft state: a new coordinator grants every grace anew, so a failover never costs a test more than the plan says.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from mesh.scheduler.preemption import Recall
from protocols.commands import Preempt
from protocols.ids import LeaseId

ASK_SECONDS = 3.0
"""Between two requests for the same lease: the first may have been lost, or come before the worker had the lease."""


@dataclass(slots=True)
class _Pressed:
    since: float
    asked: float = -math.inf


class Recalls:
    """Times are trio's, passed in."""

    def __init__(self) -> None:
        self._pressed: dict[LeaseId, _Pressed] = {}

    def restart(self) -> None:
        """What another coordinator began is over."""
        self._pressed.clear()

    def due(self, recalls: Sequence[Recall], now: float) -> tuple[list[LeaseId], list[Preempt]]:
        """Of what the newest plan wants back: the leases to ask for now, and those to take."""
        self._pressed = {recall.lease: self._pressed.get(recall.lease, _Pressed(now)) for recall in recalls}
        ask: list[LeaseId] = []
        take: list[Preempt] = []
        for recall in recalls:
            pressed = self._pressed[recall.lease]
            if recall.grace is not None and now - pressed.since >= recall.grace:
                take.append(Preempt(recall.lease, recall.run))
            elif now - pressed.asked >= ASK_SECONDS:
                pressed.asked = now
                ask.append(recall.lease)
        return ask, take

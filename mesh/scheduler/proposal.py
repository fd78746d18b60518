"""What a plan comes to: all that should be proposed, sent and told now, as one value."""

from dataclasses import dataclass, field

from mesh.scheduler.preemption import Recall
from mesh.scheduler.queue import Claim
from mesh.scheduler.waiting import Skipped, Waiting
from protocols.commands import Cancel, Expire, Grant, Hedge
from protocols.ids import RunId, TestIndex


@dataclass(frozen=True, slots=True)
class Plan:
    """What to propose, in this order: expires, abandons, cancels, grants, hedges. `finished` runs need their report.
    `recalls` are leases that had better come back."""

    expires: tuple[Expire, ...]
    abandons: tuple[tuple[RunId, TestIndex], ...]
    grants: tuple[Grant, ...]
    waiting: tuple[Waiting, ...]
    finished: tuple[RunId, ...]
    cancels: tuple[Cancel, ...] = ()
    recalls: tuple[Recall, ...] = ()
    skips: tuple[Skipped, ...] = ()
    claims: tuple[Claim, ...] = field(default=(), compare=False)
    """Who wanted workers: `queue.standings` tells who is where."""
    hedges: tuple[Hedge, ...] = ()

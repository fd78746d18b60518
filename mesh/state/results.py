"""What a command did, as values: `Applied` when it changed the state (or found the change made), else `Rejected`."""

from dataclasses import dataclass

from protocols.ids import LeaseId, RunId, TestIndex


@dataclass(frozen=True, slots=True)
class Applied:
    """The command held. What it touched: the run, the lease that it opened or worked on, the tests that it took from
    that lease, and the leases that it closed."""

    run: RunId | None = None
    lease: LeaseId | None = None
    tests: tuple[TestIndex, ...] = ()
    """Of a `Complete`: tests that counted, retried ones included; of a `Return` or `Preempt`: tests taken back.
    Ascending."""
    retried: tuple[TestIndex, ...] = ()
    """Tests whose outcome was not recorded, since the run allows another attempt; they are pending again, or run by
    another worker already."""
    closed: tuple[LeaseId, ...] = ()


@dataclass(frozen=True, slots=True)
class Rejected:
    """The command no longer held; nothing changed. `reason` is one sentence for people."""

    reason: str
    run: RunId | None = None
    limit: bool = False
    """Whether a limit of admission was met: the same again may be accepted later."""


Result = Applied | Rejected

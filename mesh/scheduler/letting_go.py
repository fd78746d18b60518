"""How long what finished runs named stays pinned: by age, number and size, the newest first. Pure.

Reports, with the manifests that their tests' durations are learnt from, live longer than the bundles, which are only
needed to run the same again. What users pinned, and what open runs need, never goes by itself; the newest of a class
stays, whatever its size.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from mesh.state.model import Pin, PinReason
from protocols.commands import PinKind, PinReference
from protocols.ids import Cid

DAY_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class Limits:
    """Of the roots of one class."""

    seconds: float
    count: int
    bytes: int


REPORTS = Limits(90 * DAY_SECONDS, 4_000, 32 * 1024**3)
"""Reports and manifests, of some 2,000 runs."""
BUNDLES = Limits(14 * DAY_SECONDS, 400, 16 * 1024**3)
"""Bundles and selections."""

LIMITS = {
    PinKind.REPORT: REPORTS,
    PinKind.MANIFEST: REPORTS,
    PinKind.BUNDLE: BUNDLES,
    PinKind.SELECTION: BUNDLES,
}


def let_go(pins: Iterable[Pin], needed: Collection[Cid], now: float) -> tuple[PinReference, ...]:
    """The reasons that no longer hold at `now`, in seconds since the epoch. `needed`: by open runs."""
    classes: dict[int, list[tuple[Pin, PinReason]]] = {}
    for pin in pins:
        for reason in pin.reasons:
            if reason.kind in LIMITS:
                classes.setdefault(id(LIMITS[reason.kind]), []).append((pin, reason))
    gone: list[PinReference] = []
    for of_class in classes.values():
        size = count = 0
        of_class.sort(key=lambda one: (-one[1].since, one[0].root, one[1].kind))
        for number, (pin, reason) in enumerate(of_class):
            limits = LIMITS[reason.kind]
            fits = now - reason.since <= limits.seconds and count < limits.count and size + pin.size <= limits.bytes
            if fits or number == 0 or pin.root in needed:
                size += pin.size
                count += 1
            else:
                gone.append(PinReference(pin.root, reason.kind, reason.since))
    return tuple(gone)

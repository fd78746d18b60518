"""Where the copies of what is pinned go: by spread over hosts, then by free space. Pure.

A holder that is away counts until the grace period is over: a node that restarts costs no copying. Once it is replaced
it is a holder no more; until then it stays named, since it may come back with the only copy. What is too much is taken
from the holders list alone: the node lets go of it when it next asks. Rejected: counting who has it in a cache, which
may be collected at any time.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass

from mesh.state.model import Pin
from protocols.commands import Placement
from protocols.ids import Cid, PeerId

RESERVE_BYTES = 1024**3
"""A node that would have less free disk than this with a copy is the last to get it."""

FREE_STEP_BYTES = 1024**3
"""Differences of free space under this are none."""

SPARE_CANDIDATES = 3
"""Beyond the number of copies that are missing: some may refuse."""


COPIES_MAX = 64
"""Decided at once; the others are, when these are made."""


@dataclass(frozen=True, slots=True)
class Place:
    """A node, as a place for content."""

    peer: PeerId
    host: str
    free: int
    """Bytes of its disk; 0: not known."""
    here: bool
    """Connected now."""
    gone: float
    """Seconds since it was last heard of, if it is not here."""
    takes: bool
    """Whether it may be given more."""


@dataclass(frozen=True, slots=True)
class Copy:
    """`root` is to be held by so many of the candidates, which are asked in this order."""

    root: Cid
    count: int
    candidates: tuple[PeerId, ...]
    sources: tuple[PeerId, ...]
    """Nodes here that should have it."""


@dataclass(frozen=True, slots=True)
class Replication:
    copies: tuple[Copy, ...]
    drops: tuple[Placement, ...]
    """Holders that are too many, or replaced."""
    lost: tuple[Cid, ...]
    """Roots that no node here is known to have."""
    settled: bool = True
    """Whether all is where it should be, and nobody who holds something is away."""


def replicate(
    pins: Iterable[Pin],
    places: Mapping[PeerId, Place],
    grace: float,
    known: Mapping[Cid, Collection[PeerId]],
    refused: Set[tuple[Cid, PeerId]] = frozenset(),
) -> Replication:
    """What is to be done for these pins. `known`: who else was seen to have a root; `refused`: who could not take
    it."""
    held: Counter[PeerId] = Counter()
    promised: Counter[PeerId] = Counter()
    pins = tuple(pins)
    hosts = {place.host for place in places.values() if place.here and place.takes}
    for pin in pins:
        held.update(pin.holders)
    copies: list[Copy] = []
    drops: list[Placement] = []
    lost: list[Cid] = []
    settled = True
    for pin in pins:
        counting = [peer for peer in pin.holders if peer in places and _counts(places[peer], grace)]
        present = [peer for peer in counting if places[peer].here]
        missing = pin.wanted - len(counting)
        settled = settled and missing <= 0 and len(present) == len(pin.holders)
        if missing <= 0 and len(present) < pin.wanted:
            continue  # somebody is away for a moment
        crowded = missing <= 0 and _crowded(pin, counting, places, hosts)
        if missing > 0 or crowded:
            witnesses = [peer for peer in known.get(pin.root, ()) if peer in places and places[peer].here]
            sources = tuple(dict.fromkeys([*present, *witnesses]))
            if not sources:
                lost.append(pin.root)
                continue
            if len(copies) >= COPIES_MAX:
                continue
            free = {peer: place.free - promised[peer] for peer, place in places.items()}
            shut = {*counting, *(peer for root, peer in refused if root == pin.root)}
            ranked = _ranked(pin, shut, counting, places, free, held, witnesses, crowded)
            chosen = ranked[: max(1, missing)]
            for peer in chosen:
                promised[peer] += pin.size
                held[peer] += 1
            if ranked:
                some = tuple(ranked[: len(chosen) + SPARE_CANDIDATES])
                copies.append(Copy(pin.root, len(chosen), some, sources))
        else:
            kept = _best(present, pin.wanted, places, held)
            extra = tuple(peer for peer in pin.holders if peer not in kept)
            if extra:
                drops.append(Placement(pin.root, (), extra))
                held.subtract(extra)
    return Replication(tuple(copies), tuple(drops), tuple(lost), settled and not copies and not drops)


def is_under(pin: Pin, here: Collection[PeerId]) -> bool:
    """Whether fewer of its holders are here than are wanted."""
    return sum(peer in here for peer in pin.holders) < pin.wanted


def _counts(place: Place, grace: float) -> bool:
    return place.here or place.gone <= grace


def _crowded(pin: Pin, counting: Sequence[PeerId], places: Mapping[PeerId, Place], hosts: Set[str]) -> bool:
    """Whether its copies share hosts although there are others that could take one."""
    taken = {places[peer].host for peer in counting}
    return len(counting) == pin.wanted > len(taken) and not hosts <= taken


def _ranked(
    pin: Pin,
    shut: Collection[PeerId],
    counting: Sequence[PeerId],
    places: Mapping[PeerId, Place],
    free: Mapping[PeerId, int],
    held: Mapping[PeerId, int],
    witnesses: Sequence[PeerId],
    elsewhere: bool,
) -> list[PeerId]:
    """Who may take a copy, the best first; `elsewhere`: on another host than those that have one."""
    taken = {places[peer].host for peer in counting}
    open_to = [
        place
        for place in places.values()
        if place.here and place.takes and place.peer not in shut and not (elsewhere and place.host in taken)
    ]
    chosen: list[PeerId] = []
    while open_to:

        def rank(place: Place) -> tuple[bool, bool, bool, int, int, PeerId]:
            room = free[place.peer] - pin.size
            return (
                place.host in taken,
                room < RESERVE_BYTES,
                place.peer not in witnesses,
                -(room // FREE_STEP_BYTES),
                held.get(place.peer, 0),
                place.peer,
            )

        best = min(open_to, key=rank)
        open_to.remove(best)
        taken.add(best.host)
        chosen.append(best.peer)
        if len(chosen) >= pin.wanted + SPARE_CANDIDATES:
            break
    return chosen


def _best(
    present: Sequence[PeerId], wanted: int, places: Mapping[PeerId, Place], held: Mapping[PeerId, int]
) -> list[PeerId]:
    """Which of the holders stay: on as many hosts as possible, where there is most room."""
    chosen: list[PeerId] = []
    hosts: list[str] = []
    rest = list(present)
    while rest and len(chosen) < wanted:
        best = min(
            rest,
            key=lambda peer: (
                places[peer].host in hosts,
                not places[peer].takes,
                -(places[peer].free // FREE_STEP_BYTES),
                held.get(peer, 0),
                peer,
            ),
        )
        rest.remove(best)
        hosts.append(places[best].host)
        chosen.append(best)
    return chosen

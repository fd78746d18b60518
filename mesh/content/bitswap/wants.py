"""What is wanted here, and of whom it is asked; the time and the dice are given.

A peer that lacks a block of what is fetched is *partial*: it fetches the same thing, most likely. Partial peers are
asked first, a few at random, and those who have everything only then, so that nodes that fetch the same thing at the
same time give to one another: with `TRIES_MAX` tries, and every fetcher in an order of its own, the one who had it
first gives it away about twice, however many fetch. Rejected: to divide the blocks among the fetchers beforehand (one
slow node holds up all), and to tell every peer of each block that came (messages by the square of the nodes).
"""

import random
from collections.abc import Iterable
from dataclasses import dataclass

import trio

from mesh.content.bitswap.wire import binary
from protocols.ids import Cid, PeerId

TRIES_MAX = 5
"""Partial peers asked for one block before one that has everything is."""

PARTIAL_SECONDS = 10.0
"""How long a peer counts as partial after it lacked something."""

PARTIAL_LEAD_MAX = 4
"""A partial peer may owe us so many blocks more than the least burdened of the others."""


class Want:
    """A block that somebody here waits for."""

    def __init__(self, cid: Cid) -> None:
        self.cid, self.key = binary(cid)
        self.sources: list[set[PeerId]] = []
        """Of each waiter: the peers that its content comes from."""
        self.done = trio.Event()
        self.data = b""
        self.asked: PeerId | None = None
        self.asked_at = 0.0
        self.tries = 0
        """Partial peers that were asked for it."""
        self.haves: set[PeerId] = set()
        self.refused: dict[PeerId, float] = {}
        self.told: dict[PeerId, float] = {}
        """Peers that know of this want, since when: they hear when it ends."""

    def known(self) -> set[PeerId]:
        """Peers that may have it."""
        return self.haves.union(*self.sources)


@dataclass(frozen=True, slots=True)
class Standing:
    """A peer that may be asked."""

    peer: PeerId
    slow: bool
    """It let us wait for nothing lately."""
    partial: bool
    burden: int
    """Blocks that it owes us."""


def choose(want: Want, standings: Iterable[Standing], dice: random.Random) -> Standing | None:
    """Whom to ask: one who says that it has the block; a partial one, for a few tries; one who has everything. Those
    that are slow come last; of the others the least burdened is asked."""
    known = sorted(standings, key=lambda one: one.peer)
    dice.shuffle(known)
    ordered = sorted(known, key=lambda one: (one.slow, one.burden))
    if not ordered or ordered[0].slow:
        return ordered[0] if ordered else None
    swift = [one for one in ordered if not one.slow]
    having = [one for one in swift if one.peer in want.haves]
    if having:
        return having[0]
    whole = [one for one in swift if not one.partial]
    if not whole:
        return dice.choice(swift)
    if want.tries < TRIES_MAX:
        partial = [one for one in swift if one.partial and one.burden <= whole[0].burden + PARTIAL_LEAD_MAX]
        if partial:
            return dice.choice(partial)
    return whole[0]

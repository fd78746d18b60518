"""What is wanted here, and of whom it is asked; the time and the dice are given.

Nodes that fetch the same content at the same time are *fellows*: each block has a deputy among them, by a hash of peer
and block. The deputy gets it from those who have everything, the others get it from the deputy, who passes it on as
soon as it has come; each node asks for what it is the deputy of before anything else. So whoever had the content first
gives it away about once, however many fetch. Fellows find each other by their wantlists, and need not agree on who
they are: who waits, waits for a fellow of a higher rank, so none wait for each other, and the highest waits for nobody.
A fellow that gives nothing for a while is passed over.

Rejected: to try fellows at random before those who have everything (at the start none has anything, and within a few
milliseconds all wants are with the one who has: it gave away 7.6 times the content to ten nodes), and to tell every
fellow of each block that came (messages by the square of the nodes).
"""

import hashlib
import random
from collections.abc import Iterable
from dataclasses import dataclass

import trio

from mesh.content.bitswap.wire import binary
from protocols.ids import Cid, PeerId

FELLOW_SECONDS = 30.0
"""How long a peer counts as a fellow after the last sign that it fetches the same."""


class Sources:
    """Where one fetch's content may come from."""

    def __init__(self, peers: Iterable[PeerId] = ()) -> None:
        self.peers = set(peers)
        self.fellows: dict[PeerId, float] = {}
        """Those that fetch the same, since when that was seen last."""


class Want:
    """A block that somebody here waits for."""

    def __init__(self, cid: Cid) -> None:
        self.cid, self.key = binary(cid)
        self.sources: list[Sources] = []
        """Of each waiter."""
        self.done = trio.Event()
        self.data = b""
        self.asked: PeerId | None = None
        self.asked_at = 0.0
        self.haves: set[PeerId] = set()
        self.refused: dict[PeerId, float] = {}
        self.told: dict[PeerId, float] = {}
        """Peers that know of this want, since when: they hear when it ends."""

    def known(self) -> set[PeerId]:
        """Peers that may have it."""
        return self.haves.union(*(sources.peers for sources in self.sources))

    def fellows(self, now: float) -> set[PeerId]:
        """Peers that have it or will."""
        seen = (item for sources in self.sources for item in sources.fellows.items())
        return {peer for peer, since in seen if now - since < FELLOW_SECONDS}


@dataclass(frozen=True, slots=True)
class Standing:
    """A peer that may be asked."""

    peer: PeerId
    fellow: bool
    slow: bool
    """It let us wait for nothing lately."""
    burden: int
    """Blocks that it owes us."""


def choose(me: PeerId, want: Want, standings: Iterable[Standing], dice: random.Random) -> Standing | None:
    """Whom to ask: one who says that it has the block; its deputy; one who has everything, the least burdened first.
    Those that are slow come last."""
    known = sorted(standings, key=lambda one: one.peer)
    dice.shuffle(known)
    ordered = sorted(known, key=lambda one: (one.slow, one.burden))
    swift = [one for one in ordered if not one.slow]
    if not swift:
        return ordered[0] if ordered else None
    having = [one for one in swift if one.peer in want.haves]
    if having:
        return having[0]
    fellows = {one.peer: one for one in swift if one.fellow}
    whole = [one for one in swift if not one.fellow]
    deputy = fellows.get(deputy_of(want.key, [me, *fellows]) if whole else deputy_of(want.key, fellows))
    return deputy or whole[0]


def deputy_of(key: bytes, peers: Iterable[PeerId]) -> PeerId:
    """Which of them is the first to get a block (rendezvous hashing)."""
    return max(peers, key=lambda peer: hashlib.blake2b(key, key=peer.encode()[-64:], digest_size=8).digest())

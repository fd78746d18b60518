"""What a peer may do, and what becomes of one that did more. Pure: the time is given.

Some of what looks like an offence happens among honest peers: a block that crosses our cancelling of it, a wantlist
that is longer than our ledger, a block that its holder has just collected. So each has an allowance, which comes back
with time; who spends it is dropped: named in the log, its connection closed, and neither heard nor asked for a while.
Junk has no allowance.
"""

from collections import OrderedDict

from protocols.errors import RemoteProtocolError
from protocols.ids import PeerId

UNASKED_BLOCKS_MAX = 8
"""Blocks from a peer that it was never asked for: those that an earlier life of this node asked for, at the most."""

UNASKED_SECONDS = 10.0
"""After which one more is forgiven."""

OVERFLOW_WANTS_MAX = 32_768
"""Wants of a peer beyond what its ledger takes."""

OVERFLOW_SECONDS = 1 / 256
BROKEN_WORDS_MAX = 64
"""Blocks that a peer said it has, and then did not give."""

BROKEN_SECONDS = 1.0
ASKED_MAX = 8192
"""Blocks remembered, of each peer, to have been asked of it."""

SHUT_OUT_SECONDS = 60.0
SHUT_OUT_MAX = 1024
"""Peers remembered to be shut out."""


class Allowance:
    """So many at once; one more after each `seconds`."""

    def __init__(self, most: int, seconds: float, now: float) -> None:
        self._most = most
        self._seconds = seconds
        self._left = float(most)
        self._since = now

    def spend(self, count: int, now: float) -> bool:
        """False if there is not so much left."""
        self._left = min(self._most, self._left + (now - self._since) / self._seconds) - count
        self._since = now
        return self._left >= 0


class Conduct:
    """One peer's, judged while it is connected; what ends it is a `RemoteProtocolError`."""

    def __init__(self, now: float) -> None:
        self._asked: OrderedDict[bytes, None] = OrderedDict()
        self._unasked = Allowance(UNASKED_BLOCKS_MAX, UNASKED_SECONDS, now)
        self._overflow = Allowance(OVERFLOW_WANTS_MAX, OVERFLOW_SECONDS, now)
        self._broken = Allowance(BROKEN_WORDS_MAX, BROKEN_SECONDS, now)

    def asked(self, key: bytes) -> None:
        """It was asked for this block, or whether it has it (a Kubo gives a small block at once)."""
        self._asked[key] = None
        self._asked.move_to_end(key)
        if len(self._asked) > ASKED_MAX:
            self._asked.popitem(last=False)

    def gave(self, key: bytes, now: float) -> None:
        """It sent this block; each counts as asked for once."""
        if self._asked.pop(key, self) is self and not self._unasked.spend(1, now):
            raise RemoteProtocolError("it sends blocks that it was not asked for, or others than those")

    def overflowed(self, wants: int, now: float) -> None:
        if wants and not self._overflow.spend(wants, now):
            raise RemoteProtocolError(f"it wants over {OVERFLOW_WANTS_MAX} blocks more than may be waited for")

    def broke_its_word(self, now: float) -> None:
        if not self._broken.spend(1, now):
            raise RemoteProtocolError("it does not give what it says it has")


class ShutOut:
    """The peers that are neither heard nor asked."""

    def __init__(self) -> None:
        self._until: OrderedDict[PeerId, float] = OrderedDict()

    def add(self, peer: PeerId, now: float) -> None:
        self._until[peer] = now + SHUT_OUT_SECONDS
        self._until.move_to_end(peer)
        if len(self._until) > SHUT_OUT_MAX:
            self._until.popitem(last=False)

    def holds(self, peer: PeerId, now: float) -> bool:
        until = self._until.get(peer)
        if until is not None and until <= now:
            del self._until[peer]
            return False
        return until is not None

"""Identifiers. Identity is content or log position, never random (docs/architecture.md)."""

from typing import NewType

PeerId = NewType("PeerId", str)
"""A libp2p peer ID in base58: the identity of a node."""

Cid = NewType("Cid", str)
"""A CIDv1 in base32, lower case ("bafy…", "bafk…")."""

RunId = NewType("RunId", int)
"""The log index of the run's submission; written in decimal for people."""

NO_RUN = RunId(0)

LeaseId = NewType("LeaseId", int)
"""The log index of the lease's grant: larger means granted later, so it is a fencing token."""

AlertId = NewType("AlertId", int)
"""Follows from the log index of the entry that raised the alert."""

TestIndex = NewType("TestIndex", int)
"""A test's place in its run's manifest, from 0."""

_BASE32 = "abcdefghijklmnopqrstuvwxyz234567"
_PAIRS = [first + second for first in _BASE32 for second in _BASE32]
_TO_DIGITS = str.maketrans(_BASE32 + "0189_+- ", "0123456789abcdefghijklmnopqrstuv" + "!" * 8)
"""To the digits that `int` knows; what is no base32 but would please `int` becomes what does not."""


def cid_text(binary: bytes) -> Cid:
    """A binary CID in base32, lower case, no padding; what is in it is not looked at."""
    # Through numbers: base64.b32encode and its inverse take 50 µs a CID, these take 3.
    bits = len(binary) * 8
    pairs = -(-bits // 10)
    value = int.from_bytes(binary, "big") << pairs * 10 - bits
    text = "".join([_PAIRS[value >> shift & 1023] for shift in range(pairs * 10 - 10, -1, -10)])
    return Cid("b" + text[: -(-bits // 5)])


def cid_binary(text: str) -> bytes:
    """The inverse of `cid_text`; `ValueError` says what is wrong with the text."""
    if not text.startswith("b") or not text.isascii() or len(text) > 120:
        raise ValueError("expected CIDv1 in base32, like bafy… or bafk…")
    body = text[1:].lower()
    surplus = len(body) * 5 % 8
    try:
        value = int(body.translate(_TO_DIGITS), 32)
    except ValueError:
        raise ValueError("it has characters that base32 lacks") from None
    if surplus >= 5 or value & (1 << surplus) - 1:
        raise ValueError("it is cut off")
    return (value >> surplus).to_bytes(len(body) * 5 // 8, "big")

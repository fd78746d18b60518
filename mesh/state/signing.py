"""What is signed of a run's results, and how a signature is checked. Pure: keys are elsewhere.

A worker signs each chunk of records, the coordinator that closes a run the list of all that its report holds. One
signature stands for up to hundreds of records, and each of them can be checked by itself with its chunk alone: what is
signed holds the records, and with them test, attempt, outcome and origin. Rejected: a signature in each record (the one
of a test that passes has 300 bytes, and all that a node does for it takes a few tenths of a millisecond).

What is signed begins with what it is (a domain), so that a signature of one thing never passes for one of another.
"""

import dataclasses
import hashlib
from collections.abc import Callable

from protocols.codec import encode_block
from protocols.ids import PeerId
from protocols.manifests import Chunk, Seal

LOG_FORMAT_MIN = 4
"""Results are signed in logs from this format on: readers before it know no such fields."""

Sign = Callable[[bytes], bytes]
"""An Ed25519 signature by this node's key."""

Check = Callable[[PeerId, bytes, bytes], bool]
"""(signer, what was signed, signature): whether the signature is that of the key in the peer ID."""

_DOMAINS: dict[type[Chunk] | type[Seal], bytes] = {Chunk: b"mesh/chunk/1\n", Seal: b"mesh/report/1\n"}


def signed_chunk(chunk: Chunk, sign: Sign) -> Chunk:
    return dataclasses.replace(chunk, signature=sign(_to_sign(chunk)))


def signed_seal(seal: Seal, sign: Sign) -> Seal:
    return dataclasses.replace(seal, signature=sign(_to_sign(seal)))


def is_signed(made: Chunk | Seal, check: Check) -> bool:
    """Whether the signature in it is that of the worker, or coordinator, that it names."""
    signer = made.worker if isinstance(made, Chunk) else made.coordinator
    return bool(made.signature) and check(signer, _to_sign(made), made.signature)


def _to_sign(made: Chunk | Seal) -> bytes:
    unsigned = dataclasses.replace(made, signature=b"")
    return _DOMAINS[type(made)] + hashlib.sha256(encode_block(unsigned)).digest()

"""The file of `mesh snapshot save`: the replicated state of a mesh at one index, to found another mesh with.

A line that says what it is, a digest of the rest, and the rest as canonical CBOR: so that a wrong file, a shortened
one, and one of a later version are each told by name before anything is done with it.
"""

import hashlib

from protocols.codec import decode, encode, message
from protocols.errors import RemoteProtocolError, UsageError
from protocols.ids import PeerId

FILE_VERSION = 1

FILE_NAME = "mesh.snapshot"
"""Where it travels as content, as the one file of a directory."""

HEAD = b"mesh snapshot "

DIGEST_BYTES = 32

LINE_BYTES_MAX = 32


@message("f.snapshot")
class MeshSnapshot:
    """The state after the entry at `index`, and where it comes from. It names content, and holds none."""

    mesh: str
    index: int
    term: int
    log_format: int
    voters: tuple[PeerId, ...]
    taken_at: float
    """Seconds since the epoch, by the clock of `taken_on`."""
    taken_on: PeerId
    unconfirmed: int
    """Entries at its end that no majority is known to have had: of a snapshot from a stopped node alone."""
    state: bytes
    """As `mesh.state.snapshot` encodes it."""


def pack(snapshot: MeshSnapshot) -> bytes:
    body = encode(snapshot)
    return HEAD + b"%d\n" % FILE_VERSION + hashlib.sha256(body).digest() + body


def unpack(data: bytes, name: str) -> MeshSnapshot:
    """`UsageError` for what is no sound snapshot that this version reads; `name` is the file's, for its sentence."""
    line, newline, rest = data.partition(b"\n")
    number = line.removeprefix(HEAD)
    if not line.startswith(HEAD) or len(line) > LINE_BYTES_MAX or not newline or not number.isdigit():
        raise UsageError(f"{name} is no snapshot of a mesh: `mesh snapshot save` makes them")
    if int(number) != FILE_VERSION:
        raise UsageError(
            f"{name} is a snapshot of version {int(number)}, and this program reads version {FILE_VERSION}: update it"
        )
    digest, body = rest[:DIGEST_BYTES], rest[DIGEST_BYTES:]
    if hashlib.sha256(body).digest() != digest:
        raise UsageError(f"{name} is damaged or not whole: its checksum is wrong; take another copy of it")
    try:
        return decode(body, MeshSnapshot)
    except RemoteProtocolError as error:
        raise UsageError(f"{name} holds what this program does not know ({error}): update it") from None

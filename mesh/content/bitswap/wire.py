"""Bitswap messages to bytes and back. Pure.

A message is a protobuf behind its length as a varint. CIDs travel in binary; a block travels behind the prefix of its
CID, and its hash is computed here, so that nothing a peer says about a block is believed.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from mesh.content.unixfs.cid import SHA2_256, cid_bytes, cid_from_bytes, multihash_of, parse_cid
from mesh.content.unixfs.nodes import BLOCK_BYTES_MAX
from mesh.content.unixfs.protobuf import as_bytes, as_int, delimited, fields, number, opening, read_varint, varint
from protocols.errors import RemoteProtocolError
from protocols.ids import Cid

PROTOCOL = "/ipfs/bitswap/1.2.0"

MESSAGE_BYTES_MAX = 4 * 1024 * 1024
"""As in go-bitswap."""

ITEMS_PER_MESSAGE_MAX = 8192
"""Wants, blocks, and what is told of others."""

LENGTH_BYTES_MAX = 5
MULTIHASH_BYTES = 34


@dataclass(frozen=True, slots=True)
class Entry:
    """One change of a wantlist. `have`: only whether the block is there is asked. `once`: whoever lacks it may forget
    the want with that answer (a field of ours, which others pass over)."""

    cid: bytes
    cancel: bool = False
    have: bool = False
    tell_missing: bool = False
    priority: int = 1
    once: bool = False

    @property
    def multihash(self) -> bytes:
        return self.cid[-MULTIHASH_BYTES:]


@dataclass(frozen=True, slots=True)
class Message:
    """What one peer tells another; `blocks` by multihash, computed on receipt."""

    entries: tuple[Entry, ...] = ()
    full: bool = False
    blocks: tuple[tuple[bytes, bytes], ...] = ()
    haves: tuple[bytes, ...] = ()
    missing: tuple[bytes, ...] = ()


def encode(
    entries: Sequence[Entry], blocks: Sequence[tuple[Cid, bytes]], haves: Sequence[bytes], missing: Sequence[bytes]
) -> bytes:
    """A framed message: wantlist changes, blocks under their CIDs, and binary CIDs that are here and that are not."""
    parts: list[bytes] = []
    if entries:
        parts.append(delimited(1, b"".join(delimited(1, _encode_entry(entry)) for entry in entries)))
    for cid, data in blocks:
        prefix = delimited(1, cid_bytes(cid)[: -MULTIHASH_BYTES + len(SHA2_256)])
        head = prefix + opening(2, len(data))
        parts += [opening(3, len(head) + len(data)), head, data]  # copied once, when all is joined
    parts += [delimited(4, delimited(1, cid) + number(2, 0)) for cid in haves]
    parts += [delimited(4, delimited(1, cid) + number(2, 1)) for cid in missing]
    return b"".join([varint(sum(map(len, parts))), *parts])


def _encode_entry(entry: Entry) -> bytes:
    parts = [delimited(1, entry.cid), number(2, entry.priority)]
    if entry.cancel:
        parts.append(number(3, 1))
    if entry.have:
        parts.append(number(4, 1))
    if entry.tell_missing:
        parts.append(number(5, 1))
    if entry.once:
        parts.append(number(6, 1))
    return b"".join(parts)


class Decoder:
    """Collects received bytes and gives back whole messages, in order."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    @property
    def unfinished(self) -> int:
        """Bytes of a message whose end has not come."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[Message]:
        """The messages that `data` completes; `RemoteProtocolError` for junk."""
        self._buffer += data
        messages = []
        while self._buffer:
            head = bytes(self._buffer[:LENGTH_BYTES_MAX])
            if len(head) < LENGTH_BYTES_MAX and head[-1] >= 0x80:
                break
            length, start = read_varint(head, 0)
            if length > MESSAGE_BYTES_MAX:
                raise RemoteProtocolError(
                    f"a Bitswap message of {length} bytes is over the limit of {MESSAGE_BYTES_MAX}"
                )
            if len(self._buffer) < start + length:
                break
            with memoryview(self._buffer) as view:
                body = bytes(view[start : start + length])
            messages.append(decode(body))
            del self._buffer[: start + length]
        return messages


def decode(body: bytes) -> Message:
    """An unframed message; `RemoteProtocolError` for junk, and for more than anybody has to say."""
    entries: list[Entry] = []
    full = False
    blocks: list[tuple[bytes, bytes]] = []
    haves: list[bytes] = []
    missing: list[bytes] = []
    for items, (field, value) in enumerate(fields(memoryview(body)), 1):
        if items + len(entries) > ITEMS_PER_MESSAGE_MAX:
            raise RemoteProtocolError(f"a Bitswap message of over {ITEMS_PER_MESSAGE_MAX} wants and answers")
        if field == 1:
            more, full = _decode_wantlist(as_bytes(value))
            entries += more
        elif field == 3:
            block = _decode_block(as_bytes(value))
            if block is not None:
                blocks.append(block)
        elif field == 4:
            cid, kind = _decode_presence(as_bytes(value))
            (missing if kind else haves).append(cid[-MULTIHASH_BYTES:])
    return Message(tuple(entries), full, tuple(blocks), tuple(haves), tuple(missing))


def _decode_wantlist(data: bytes) -> tuple[list[Entry], bool]:
    entries, full = [], False
    for count, (field, value) in enumerate(fields(data)):
        if count > ITEMS_PER_MESSAGE_MAX:
            raise RemoteProtocolError(f"a wantlist of over {ITEMS_PER_MESSAGE_MAX} entries")
        if field == 1:
            entry = _decode_entry(as_bytes(value))
            if entry is not None:
                entries.append(entry)
        elif field == 2:
            full = bool(value)
    return entries, full


def _decode_entry(data: bytes) -> Entry | None:
    """None for a CID of a kind that we never hold."""
    cid, numbers = b"", {2: 1, 3: 0, 4: 0, 5: 0, 6: 0}
    for field, value in fields(data):
        if field == 1:
            cid = as_bytes(value)
        else:
            numbers[field] = as_int(value)
    if not is_ours(cid):
        return None
    return Entry(cid, bool(numbers[3]), numbers[4] == 1, bool(numbers[5]), numbers[2], bool(numbers[6]))


def _decode_block(data: bytes) -> tuple[bytes, bytes] | None:
    """None for what no store of ours takes."""
    prefix = inside = b""
    for field, value in fields(memoryview(data)):
        if field == 1:
            prefix = as_bytes(value)
        elif field == 2:
            inside = as_bytes(value)
    if not prefix.endswith(SHA2_256) or len(inside) > BLOCK_BYTES_MAX:
        return None
    return multihash_of(inside), inside


def _decode_presence(data: bytes) -> tuple[bytes, int]:
    cid, kind = b"", 0
    for field, value in fields(data):
        if field == 1:
            cid = as_bytes(value)
        elif field == 2:
            kind = as_int(value)
    return cid, kind


def is_ours(cid: bytes) -> bool:
    """Whether a binary CID is one that we can read and write: what is no such is not wanted of us, and never comes as
    far as the answers, where it would take those to others with it."""
    try:
        cid_from_bytes(cid)
    except RemoteProtocolError:
        return False
    return True


def binary(cid: Cid) -> tuple[bytes, bytes]:
    """(binary CID, multihash)."""
    return cid_bytes(cid), parse_cid(cid)[1]

"""CAR files, version 1: blocks on end, each after its length and its CID, under a header that names the roots.

Bytes in, blocks out, without a file: what a reader holds is at most one section, whatever its file claims. Each block's
hash is checked before it is handed on. Version 2 (an index around the same sections) is refused by name.
"""

from collections.abc import Sequence

import cbor2

from mesh.content.unixfs.cid import SHA2_256, cid_bytes, cid_from_bytes, multihash_of, parse_cid
from mesh.content.unixfs.nodes import BLOCK_BYTES_MAX, CBOR_LINK_TAG, Block
from mesh.content.unixfs.protobuf import VARINT_BYTES_MAX, read_varint, varint
from protocols.errors import RemoteProtocolError
from protocols.ids import Cid

HEADER_BYTES_MAX = 64 * 1024
ROOTS_MAX = 1024
CID_BYTES_MAX = 128
"""Of any CID that somebody may have written."""


def car_header(roots: Sequence[Cid]) -> bytes:
    links = [cbor2.CBORTag(CBOR_LINK_TAG, b"\0" + cid_bytes(root)) for root in roots]
    body = cbor2.dumps({"roots": links, "version": 1}, canonical=True)
    return varint(len(body)) + body


def car_section(block: Block) -> bytes:
    cid = cid_bytes(block.cid)
    return b"".join((varint(len(cid) + len(block.data)), cid, block.data))


class CarReader:
    """One CAR file, from its first byte to its last; `RemoteProtocolError` where it is none.

    Invariant: `_held` starts where a section (or the header) does.
    """

    def __init__(self) -> None:
        self.roots: tuple[Cid, ...] = ()
        """Known once the header was fed."""
        self._held = bytearray()
        self._read = 0

    def feed(self, data: bytes) -> list[Block]:
        """The blocks that `data` completes."""
        self._held += data
        blocks: list[Block] = []
        position = 0
        while (section := self._section(position)) is not None:
            start, end = section
            if self.roots:
                blocks.append(_block(memoryview(self._held)[start:end], self._read + position))
            else:
                self.roots = _roots(bytes(self._held[start:end]))
            position = end
        del self._held[:position]
        self._read += position
        return blocks

    def finish(self) -> None:
        """The file ends here."""
        if not self.roots:
            raise RemoteProtocolError("it ends before its header does")
        if self._held:
            raise RemoteProtocolError(f"it is cut off in the block at byte {self._read}")

    def _section(self, position: int) -> tuple[int, int] | None:
        """Where the section's content at `position` starts and ends; None if it is not all there yet."""
        most = BLOCK_BYTES_MAX + CID_BYTES_MAX if self.roots else HEADER_BYTES_MAX
        head = bytes(self._held[position : position + VARINT_BYTES_MAX])
        if len(head) < VARINT_BYTES_MAX and not any(byte < 0x80 for byte in head):
            return None
        size, used = read_varint(head, 0)
        if not 0 < size <= most:
            what = f"the block at byte {self._read + position}" if self.roots else "its header"
            raise RemoteProtocolError(f"{what} would have {size} bytes, and may have 1 to {most}")
        end = position + used + size
        return (position + used, end) if end <= len(self._held) else None


def _roots(header: bytes) -> tuple[Cid, ...]:
    try:
        document = cbor2.loads(header)
        version = document["version"]
    except Exception:  # cbor2 raises whatever a semantic tag's constructor raises
        raise RemoteProtocolError("it does not begin with a CAR file's header") from None
    if version != 1:
        raise RemoteProtocolError(f"it is a CAR file of version {version!r}, and only version 1 is read")
    links = document.get("roots")
    if not isinstance(links, list) or not 0 < len(links) <= ROOTS_MAX:
        raise RemoteProtocolError(f"its header does not name 1 to {ROOTS_MAX} roots")
    roots = []
    for link in links:
        raw = link.value if isinstance(link, cbor2.CBORTag) and link.tag == CBOR_LINK_TAG else None
        if not isinstance(raw, bytes) or raw[:1] != b"\0":
            raise RemoteProtocolError("its header names a root that is no CID")
        roots.append(cid_from_bytes(raw[1:]))
    return tuple(roots)


def _block(section: memoryview, at: int) -> Block:
    """The block of a section, its hash checked."""
    try:
        size = _cid_size(section)
        cid = cid_from_bytes(bytes(section[:size]))
    except RemoteProtocolError as error:
        raise RemoteProtocolError(f"the block at byte {at} has a CID that is not understood: {error}") from None
    data = bytes(section[size:])
    if len(data) > BLOCK_BYTES_MAX:
        raise RemoteProtocolError(f"the block {cid} has {len(data)} bytes, and {BLOCK_BYTES_MAX} are the limit")
    if multihash_of(data) != parse_cid(cid)[1]:
        raise RemoteProtocolError(f"the block at byte {at} is not what its CID {cid} says")
    return Block(cid, data)


def _cid_size(section: memoryview) -> int:
    """How many of the first bytes are the CID."""
    if section[:2] == SHA2_256:
        return len(SHA2_256) + SHA2_256[1]
    position = 0
    for _ in range(4):  # version, codec, hash function, length of the digest
        length, position = read_varint(section, position)
    if position + length > len(section):
        raise RemoteProtocolError("it is cut off")
    return position + length

"""The part of Protocol Buffers that dag-pb, UnixFS and Bitswap need: varints and length-delimited fields.

By hand, because dag-pb demands an order of fields (links before data) that the protobuf runtime does not keep, and
because five small messages do not repay generated code.
"""

from collections.abc import Iterator

from protocols.errors import RemoteProtocolError

VARINT_BYTES_MAX = 10
"""A 64-bit number."""


def varint(value: int) -> bytes:
    """Unsigned LEB128."""
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_varint(data: bytes | memoryview, position: int) -> tuple[int, int]:
    """The number at `position`, and where it ends."""
    value = shift = 0
    for end in range(position, min(position + VARINT_BYTES_MAX, len(data))):
        byte = data[end]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, end + 1
        shift += 7
    raise RemoteProtocolError("a varint is cut off or over 64 bits")


def number(field: int, value: int) -> bytes:
    """A varint field."""
    return varint(field << 3) + varint(value)


def delimited(field: int, value: bytes) -> bytes:
    """A bytes, string or message field."""
    return opening(field, len(value)) + value


def opening(field: int, size: int) -> bytes:
    """What stands before the `size` bytes of such a field."""
    return varint(field << 3 | 2) + varint(size)


def fields(data: bytes | memoryview) -> Iterator[tuple[int, int | bytes]]:
    """Each field as (number, value), in the order of the wire: an int for a varint, else the bytes."""
    position, size = 0, len(data)
    while position < size:
        key, position = read_varint(data, position)
        kind = key & 7
        if kind == 0:
            value, position = read_varint(data, position)
            yield key >> 3, value
            continue
        if kind == 2:
            length, position = read_varint(data, position)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise RemoteProtocolError(f"a protobuf field has the unknown wire type {kind}")
        if length > size - position:
            raise RemoteProtocolError("a protobuf field is cut off")
        yield key >> 3, bytes(data[position : position + length])
        position += length


def as_int(value: int | bytes) -> int:
    if isinstance(value, bytes):
        raise RemoteProtocolError("a protobuf field holds bytes where a number is expected")
    return value


def as_bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise RemoteProtocolError("a protobuf field holds a number where bytes are expected")
    return value

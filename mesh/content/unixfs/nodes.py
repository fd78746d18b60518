"""One block of a UnixFS DAG: how it is written, and how it is read.

dag-pb wants its links before its data; UnixFS is a protobuf inside that data. A block is read by the codec of its CID
and never by what its bytes look like: a file whose content happens to be a UnixFS node stays a file.
"""

import enum
from dataclasses import dataclass

import cbor2

from mesh.content.unixfs.cid import DAG_CBOR, DAG_PB, RAW, cid_bytes, cid_from_bytes, cid_of, parse_cid
from mesh.content.unixfs.protobuf import as_bytes, as_int, delimited, fields, number
from protocols.errors import RemoteProtocolError
from protocols.ids import Cid

BLOCK_BYTES_MAX = 2 * 1024 * 1024
"""What Bitswap carries; larger content is a UnixFS file of many blocks."""

CBOR_LINK_TAG = 42
EXECUTABLE_MODE = 0o755
HASH_MURMUR3 = 0x22
MODE_BITS = 0o7777


class Kind(enum.IntEnum):
    """UnixFS data types."""

    RAW = 0
    DIRECTORY = 1
    FILE = 2
    METADATA = 3
    SYMLINK = 4
    SHARD = 5


@dataclass(frozen=True, slots=True)
class Block:
    cid: Cid
    data: bytes


@dataclass(frozen=True, slots=True)
class Link:
    """A named reference. `tsize` is the bytes of all blocks under it, each occurrence counted."""

    name: str
    cid: Cid
    tsize: int


@dataclass(frozen=True, slots=True)
class Node:
    """A block, read. `data` is a file's own bytes, a symlink's target or a shard's bitfield; `size` a file's length."""

    kind: Kind
    data: bytes = b""
    links: tuple[Link, ...] = ()
    size: int = 0
    sizes: tuple[int, ...] = ()
    """File bytes under each link."""
    mode: int = 0
    fanout: int = 0
    hash_type: int = 0

    @property
    def executable(self) -> bool:
        return bool(self.mode & 0o111)


def encode_name(name: str) -> bytes:
    """Names are UTF-8; what a file system holds besides survives as it does in `os.fsdecode`."""
    return name.encode("utf-8", "surrogateescape")


def decode_name(raw: bytes) -> str:
    return raw.decode("utf-8", "surrogateescape")


def encode_dag_pb(links: tuple[Link, ...] | list[Link], data: bytes) -> bytes:
    parts = []
    for link in links:
        body = delimited(1, cid_bytes(link.cid)) + delimited(2, encode_name(link.name)) + number(3, link.tsize)
        parts.append(delimited(2, body))
    parts.append(delimited(1, data))
    return b"".join(parts)


def encode_node(node: Node) -> Block:
    """The dag-pb block of a node."""
    parts = [number(1, node.kind)]
    if node.data:
        parts.append(delimited(2, node.data))
    if node.kind is Kind.FILE:
        parts.append(number(3, node.size))
    parts += [number(4, size) for size in node.sizes]
    if node.hash_type:
        parts.append(number(5, node.hash_type))
    if node.fanout:
        parts.append(number(6, node.fanout))
    if node.mode:
        parts.append(number(7, node.mode))
    data = encode_dag_pb(node.links, b"".join(parts))
    return Block(cid_of(data, DAG_PB), data)


def decode_dag_pb(data: bytes) -> tuple[tuple[Link, ...], bytes]:
    """(links, data) of a dag-pb block."""
    links = []
    inside = b""
    for field, value in fields(data):
        if field == 2:
            links.append(_decode_link(as_bytes(value)))
        elif field == 1:
            inside = as_bytes(value)
    return tuple(links), inside


def _decode_link(data: bytes) -> Link:
    name, tsize, cid = "", 0, None
    for field, value in fields(data):
        if field == 1:
            cid = cid_from_bytes(as_bytes(value))
        elif field == 2:
            name = decode_name(as_bytes(value))
        elif field == 3:
            tsize = as_int(value)
    if cid is None:
        raise RemoteProtocolError("a dag-pb link has no CID")
    return Link(name, cid, tsize)


def decode_node(cid: Cid, data: bytes) -> Node:
    """The UnixFS node in a block; `RemoteProtocolError` if the block is no UnixFS."""
    codec, _ = parse_cid(cid)
    if codec == RAW:
        return Node(Kind.RAW, data, size=len(data))
    if codec != DAG_PB:
        raise RemoteProtocolError(f"{cid} is CBOR, not a file or directory")
    links, inside = decode_dag_pb(data)
    kind: int | None = None
    own, size, mode, fanout, hash_type = b"", None, 0, 0, 0
    sizes = []
    for field, value in fields(inside):
        if field == 1:
            kind = as_int(value)
        elif field == 2:
            own = as_bytes(value)
        elif field == 3:
            size = as_int(value)
        elif field == 4:
            sizes.append(as_int(value))
        elif field == 5:
            hash_type = as_int(value)
        elif field == 6:
            fanout = as_int(value)
        elif field == 7:
            mode = as_int(value) & MODE_BITS
    if kind is None or kind not in Kind.__members__.values():
        raise RemoteProtocolError(f"{cid} is a dag-pb block without a UnixFS type")
    if Kind(kind) in (Kind.FILE, Kind.RAW) and len(sizes) != len(links):
        raise RemoteProtocolError(f"{cid} names {len(links)} pieces and {len(sizes)} sizes")
    length = len(own) + sum(sizes) if size is None else size
    return Node(Kind(kind), own, links, length, tuple(sizes), mode, fanout, hash_type)


def child_links(cid: Cid, data: bytes) -> tuple[Link, ...]:
    """What a block refers to, whatever its codec; names and sizes only where the block has them."""
    codec, _ = parse_cid(cid)
    if codec == DAG_PB:
        return decode_dag_pb(data)[0]
    if codec == DAG_CBOR:
        return tuple(Link("", child, 0) for child in _cbor_links(data))
    return ()


def _cbor_links(data: bytes) -> list[Cid]:
    try:
        stack = [cbor2.loads(data)]
    except Exception as error:  # cbor2 raises whatever a semantic tag's constructor raises
        raise RemoteProtocolError(f"a dag-cbor block is not CBOR: {type(error).__name__}") from None
    found = []
    while stack:
        value = stack.pop()
        if isinstance(value, cbor2.CBORTag):
            if value.tag == CBOR_LINK_TAG and isinstance(value.value, bytes) and value.value[:1] == b"\x00":
                found.append(cid_from_bytes(value.value[1:]))
        elif isinstance(value, list | tuple):
            stack.extend(reversed(value))
        elif isinstance(value, dict):
            stack.extend(reversed(list(value.values())))
    return found

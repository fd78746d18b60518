"""Sharded directories: a hash array mapped trie of 256 slots a node over the murmur3 of each name, as in Kubo.

A slot holds either one entry, named by the slot in hexadecimal followed by its name, or a further shard, named by the
slot alone. The bitfield says which slots are taken. The trie of a set of names is unique, so building it from the
whole list gives what Kubo reaches by single insertions.
"""

from mesh.content.unixfs.nodes import HASH_MURMUR3, Block, Kind, Link, Node, encode_name, encode_node
from protocols.errors import RemoteProtocolError, UsageError
from protocols.ids import Cid

SHARD_BYTES = 256 * 1024
"""Names and CIDs of a directory from which on it is sharded (Kubo's HAMTShardingSize)."""
FANOUT = 256
HASH_BYTES = 8
FANOUT_MAX = 1024
"""What Kubo accepts."""

_M64 = (1 << 64) - 1
_C1, _C2 = 0x87C37B91114253D5, 0x4CF5AD432745937F


def build_shards(links: list[Link]) -> tuple[list[Block], int]:
    """The blocks of a sharded directory, its root the last, and the bytes of all that is under it."""
    hashed = [(murmur3(encode_name(link.name)), link) for link in links]
    blocks: list[Block] = []
    return blocks, _shard(hashed, 0, blocks).tsize


def _shard(hashed: list[tuple[bytes, Link]], depth: int, blocks: list[Block]) -> Link:
    if depth == HASH_BYTES:
        raise UsageError(f"a directory holds {len(hashed)} names of one hash, {hashed[0][1].name!r} among them")
    slots: dict[int, list[tuple[bytes, Link]]] = {}
    for entry in hashed:
        slots.setdefault(entry[0][depth], []).append(entry)
    links = []
    bits = 0
    for slot in sorted(slots):
        bits |= 1 << slot
        inside = slots[slot]
        child = inside[0][1] if len(inside) == 1 else _shard(inside, depth + 1, blocks)
        links.append(Link(f"{slot:02X}{child.name}", child.cid, child.tsize))
    field = bits.to_bytes(FANOUT // 8, "big").lstrip(b"\0")
    block = encode_node(Node(Kind.SHARD, field, tuple(links), fanout=FANOUT, hash_type=HASH_MURMUR3))
    blocks.append(block)
    return Link("", block.cid, len(block.data) + sum(link.tsize for link in links))


def shard_entries(node: Node) -> tuple[list[Link], list[Link]]:
    """(entries under their own names, further shards) of one shard."""
    width = _slot_width(node)
    entries, shards = [], []
    for link in node.links:
        if len(link.name) < width:
            raise RemoteProtocolError(f"the shard entry {link.name!r} lacks its slot")
        if len(link.name) == width:
            shards.append(link)
        else:
            entries.append(Link(link.name[width:], link.cid, link.tsize))
    return entries, shards


def shard_lookup(node: Node, name: str, depth: int) -> tuple[Cid | None, bool]:
    """Where `name` leads in a shard that is `depth` shards below its directory, and whether that is a further shard."""
    width = _slot_width(node)
    bits = node.fanout.bit_length() - 1
    rest = HASH_BYTES * 8 - bits * (depth + 1)
    if rest < 0:
        raise RemoteProtocolError(f"a sharded directory is deeper than its hash is long, on the way to {name!r}")
    hashed = int.from_bytes(murmur3(encode_name(name)), "big")
    slot = f"{hashed >> rest & node.fanout - 1:0{width}X}"
    for link in node.links:
        if link.name == slot or link.name == slot + name:
            return link.cid, link.name == slot
    return None, False


def _slot_width(node: Node) -> int:
    """Digits of a slot in a link's name."""
    if not 8 <= node.fanout <= FANOUT_MAX or node.fanout & (node.fanout - 1) or node.hash_type != HASH_MURMUR3:
        raise RemoteProtocolError(f"a shard of {node.fanout} slots under hash 0x{node.hash_type:x} is none of ours")
    return len(f"{node.fanout - 1:X}")


def murmur3(data: bytes) -> bytes:
    """The first half of MurmurHash3 x64 128 with seed 0, big-endian (Appleby's reference, `MurmurHash3_x64_128`)."""
    h1 = h2 = 0
    whole = len(data) // 16 * 16
    for at in range(0, whole, 16):
        h1 ^= _mix1(int.from_bytes(data[at : at + 8], "little"))
        h1 = ((_rotate(h1, 27) + h2) * 5 + 0x52DCE729) & _M64
        h2 ^= _mix2(int.from_bytes(data[at + 8 : at + 16], "little"))
        h2 = ((_rotate(h2, 31) + h1) * 5 + 0x38495AB5) & _M64
    tail = data[whole:]
    h2 ^= _mix2(int.from_bytes(tail[8:], "little"))
    h1 ^= _mix1(int.from_bytes(tail[:8], "little"))
    h1 ^= len(data)
    h2 ^= len(data)
    h1 = (h1 + h2) & _M64
    h2 = (h2 + h1) & _M64
    return ((_final(h1) + _final(h2)) & _M64).to_bytes(HASH_BYTES, "big")


def _rotate(value: int, bits: int) -> int:
    return (value << bits | value >> 64 - bits) & _M64


def _mix1(word: int) -> int:
    return _rotate(word * _C1 & _M64, 31) * _C2 & _M64


def _mix2(word: int) -> int:
    return _rotate(word * _C2 & _M64, 33) * _C1 & _M64


def _final(value: int) -> int:
    value = (value ^ value >> 33) * 0xFF51AFD7ED558CCD & _M64
    value = (value ^ value >> 33) * 0xC4CEB9FE1A85EC53 & _M64
    return value ^ value >> 33

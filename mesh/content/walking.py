"""Reading a UnixFS DAG: directories, paths, and the bytes of files in order.

`load` gives blocks by CID: from this host alone, or fetched as needed. Names come from the network, so each is
checked before anything is done under it.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

from mesh.content.unixfs.build import is_safe_name
from mesh.content.unixfs.cid import DAG_CBOR, RAW, parse_cid
from mesh.content.unixfs.hamt import shard_entries, shard_lookup
from mesh.content.unixfs.nodes import Block, Kind, Link, Node, child_links, decode_node
from protocols.errors import RemoteProtocolError, UsageError
from protocols.ids import Cid

Load = Callable[[Sequence[Cid]], Awaitable[list[bytes]]]
"""Each block, or `ContentNotFound`."""

LOOKAHEAD_BLOCKS = 16
"""Blocks of a file, or shards of a directory, that are loaded together."""

ENTRIES_MAX = 2_000_000
"""Of one directory, and of one tree that is checked out: a few blocks can spell out a tree without end."""

PIECES_MAX = 1_000_000
"""Of a file that wait to be read: those beside the way from its root to where it is read."""

DAG_BLOCKS_MAX = 1_000_000
"""Different blocks under the roots of one archive (256 GB of full chunks), and links that wait to be followed."""


async def directory_entries(load: Load, cid: Cid, node: Node, most: int = ENTRIES_MAX) -> list[Link]:
    """The entries of a directory, sharded or not, in the order of its blocks; when there are over `most`, some of them,
    more than `most`. `RemoteProtocolError` for an unsafe name, or for shards without end."""
    entries, shards = shard_entries(node) if node.kind is Kind.SHARD else (list(node.links), [])
    seen = set()
    while shards and len(entries) <= most:
        some, shards = shards[:LOOKAHEAD_BLOCKS], shards[LOOKAHEAD_BLOCKS:]
        for link, data in zip(some, await load([link.cid for link in some]), strict=True):
            inner = decode_node(link.cid, data)
            if inner.kind is not Kind.SHARD or link.cid in seen:
                raise RemoteProtocolError(f"{link.cid} is no shard of the directory {cid}, or there twice")
            seen.add(link.cid)
            below, further = shard_entries(inner)
            entries += below
            shards += further
        if len(entries) + len(seen) + len(shards) > ENTRIES_MAX:
            raise RemoteProtocolError(f"the directory {cid} has over {ENTRIES_MAX} entries")
    names = set()
    for entry in entries:
        if not is_safe_name(entry.name) or entry.name in names:
            raise RemoteProtocolError(f"the directory {cid} has the entry {entry.name!r}, unsafe or there twice")
        names.add(entry.name)
    return entries


async def resolve(load: Load, root: Cid, path: str) -> list[Cid]:
    """Every block on the way to what lies at `path` under `root`, which is the last; `UsageError` if nothing does.
    Links are not followed."""
    way = [root]
    for name in (part for part in path.split("/") if part):
        found = await _entry(load, way, name, path)
        if found is None:
            raise UsageError(f"there is no {name!r} of {path!r} under {root}")
        way.append(found)
    return way


async def _entry(load: Load, way: list[Cid], name: str, path: str) -> Cid | None:
    """What the directory at the end of `way` has under a name; shards that lead there are added to the way."""
    depth = 0
    while True:
        node = decode_node(way[-1], (await load([way[-1]]))[0])
        if node.kind is Kind.SHARD:
            found, further = shard_lookup(node, name, depth)
            if not further or found is None:
                return found if is_safe_name(name) else None
            way.append(found)
            depth += 1
        elif node.kind is Kind.DIRECTORY and depth == 0:
            found = next((link.cid for link in node.links if link.name == name), None)
            return found if is_safe_name(name) else None
        else:
            raise UsageError(f"{path!r} under {way[0]} goes through something that is no directory, before {name!r}")


@dataclass(frozen=True, slots=True)
class _Piece:
    """A part of a file that is still to be read: its bytes begin at `at`, and it should have `size` of them."""

    cid: Cid
    at: int
    size: int
    data: bytes | None = None


async def file_bytes(load: Load, cid: Cid, start: int = 0, stop: int | None = None) -> AsyncGenerator[bytes, None]:
    """The content of a file from byte `start` to before `stop`, in order, a block at a time; of a dag-cbor block the
    block itself. What lies outside is not loaded. `RemoteProtocolError` where a part is not as long as it is said to
    be: no answer is other than announced, and no tree of empty parts goes on for ever."""
    first = (await load([cid]))[0]
    if parse_cid(cid)[0] == DAG_CBOR:
        yield first[start:stop]
        return
    node = decode_node(cid, first)
    stop = node.size if stop is None else min(stop, node.size)
    todo = [_Piece(cid, 0, node.size, first)]
    while todo:
        piece = todo.pop()
        if piece.data is None:
            todo.append(piece)
            await _load_next(load, todo)
            piece = todo.pop()
        assert piece.data is not None
        node = decode_node(piece.cid, piece.data)
        if node.kind not in (Kind.FILE, Kind.RAW):
            raise UsageError(f"{cid} is a {node.kind.name.lower()}, not a file")
        if not len(node.data) + sum(node.sizes) == node.size == piece.size:
            raise RemoteProtocolError(
                f"the part {piece.cid} of the file {cid} has not the {piece.size} bytes it should"
            )
        own = node.data[max(0, start - piece.at) : max(0, stop - piece.at)]
        if own:
            yield own
        at = piece.at + len(node.data)
        inside = []
        for link, size in zip(node.links, node.sizes, strict=True):
            if size and at < stop and at + size > start:
                inside.append(_Piece(link.cid, at, size))
            at += size
        todo += reversed(inside)
        if len(todo) > PIECES_MAX:
            raise RemoteProtocolError(f"the file {cid} has over {PIECES_MAX} parts side by side")


async def _load_next(load: Load, todo: list[_Piece]) -> None:
    """Load the last of the pieces, and those of the ones before it that are not loaded yet."""
    nearest = reversed(range(len(todo))[-LOOKAHEAD_BLOCKS:])
    places = [place for place in nearest if todo[place].data is None]
    for place, data in zip(places, await load([todo[place].cid for place in places]), strict=True):
        todo[place] = replace(todo[place], data=data)


async def dag_blocks(load: Load, roots: Sequence[Cid]) -> AsyncIterator[Block]:
    """Every block under the roots once, each before those that it links to, in the order of the links."""
    seen: set[Cid] = set()
    todo = list(reversed(roots))
    while todo:
        some = [todo.pop()]
        while todo and len(some) < LOOKAHEAD_BLOCKS and _is_leaf(some[0]) and _is_leaf(todo[-1]):
            some.append(todo.pop())
        new = [cid for cid in dict.fromkeys(some) if cid not in seen]
        seen.update(new)
        for cid, data in zip(new, await load(new), strict=True):
            yield Block(cid, data)
            todo += [link.cid for link in reversed(child_links(cid, data))]
        if len(todo) + len(seen) > DAG_BLOCKS_MAX:
            raise RemoteProtocolError(f"there are over {DAG_BLOCKS_MAX} blocks under {roots[-1]}")


def _is_leaf(cid: Cid) -> bool:
    return parse_cid(cid)[0] == RAW

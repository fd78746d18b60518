"""Reading a UnixFS DAG: directories, paths, and the bytes of files in order.

`load` gives blocks by CID: from this host alone, or fetched as needed. Names come from the network, so each is
checked before anything is done under it.
"""

from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

from mesh.content.unixfs.build import is_safe_name
from mesh.content.unixfs.cid import DAG_CBOR, parse_cid
from mesh.content.unixfs.hamt import shard_entries
from mesh.content.unixfs.nodes import Kind, Link, Node, decode_node
from protocols.errors import RemoteProtocolError, UsageError
from protocols.ids import Cid

Load = Callable[[Sequence[Cid]], Awaitable[list[bytes]]]
"""Each block, or `ContentNotFound`."""

LOOKAHEAD_BLOCKS = 16
"""Blocks of a file, or shards of a directory, that are loaded together."""

ENTRIES_MAX = 2_000_000
"""Of one directory, shards counted, and of one tree that is checked out: a few blocks can spell out a tree without
end."""

LINKS_WAITING_MAX = 200_000
"""Pieces of a file that are known of and not yet reached."""

EMPTY_NODES_MAX = 100_000
"""Pieces of a file without a byte, one after another."""


async def directory_entries(load: Load, cid: Cid, node: Node) -> list[Link]:
    """The entries of a directory, sharded or not, in the order of its blocks; `RemoteProtocolError` for an unsafe
    name."""
    entries, more = shard_entries(node) if node.kind is Kind.SHARD else (list(node.links), [])
    shards = deque(more)
    seen = 0
    while shards:
        some = [shards.popleft() for _ in range(min(len(shards), LOOKAHEAD_BLOCKS))]
        seen += len(some)
        for link, data in zip(some, await load([link.cid for link in some]), strict=True):
            inner = decode_node(link.cid, data)
            if inner.kind is not Kind.SHARD:
                raise RemoteProtocolError(f"{link.cid} is no shard of the directory {cid}")
            below, further = shard_entries(inner)
            entries += below
            shards += further
        if len(entries) + len(shards) + seen > ENTRIES_MAX:
            raise RemoteProtocolError(f"the directory {cid} has over {ENTRIES_MAX} entries")
    names = set()
    for entry in entries:
        if not is_safe_name(entry.name) or entry.name in names:
            raise RemoteProtocolError(f"the directory {cid} has the entry {entry.name!r}, unsafe or there twice")
        names.add(entry.name)
    return entries


async def resolve(load: Load, root: Cid, path: str) -> Cid:
    """The CID of what lies at `path` under `root`; `UsageError` if nothing does. Links are not followed."""
    cid = root
    for name in (part for part in path.split("/") if part):
        node = decode_node(cid, (await load([cid]))[0])
        if node.kind not in (Kind.DIRECTORY, Kind.SHARD):
            raise UsageError(f"{path!r} under {root} goes through something that is no directory, before {name!r}")
        found = [entry.cid for entry in await directory_entries(load, cid, node) if entry.name == name]
        if not found:
            raise UsageError(f"there is no {name!r} of {path!r} under {root}")
        cid = found[0]
    return cid


async def file_bytes(load: Load, cid: Cid) -> AsyncGenerator[bytes, None]:
    """The content of a file, in order, a block at a time; of a dag-cbor block the block itself."""
    first = (await load([cid]))[0]
    if parse_cid(cid)[0] == DAG_CBOR:
        yield first
        return
    todo: list[tuple[Cid, bytes | None]] = [(cid, first)]
    empty = 0
    while todo:
        one, data = todo.pop()
        if data is None:
            some = [one, *(next_one for next_one, loaded in reversed(todo[1 - LOOKAHEAD_BLOCKS :]) if loaded is None)]
            blocks = dict(zip(some, await load(some), strict=True))
            todo = [(next_one, loaded or blocks.get(next_one)) for next_one, loaded in todo]
            data = blocks[one]
        node = decode_node(one, data)
        if node.kind not in (Kind.FILE, Kind.RAW):
            raise UsageError(f"{cid} is a {node.kind.name.lower()}, not a file")
        if node.data:
            yield node.data
        empty = 0 if node.data else empty + 1
        if empty > EMPTY_NODES_MAX or len(todo) + len(node.links) > LINKS_WAITING_MAX:
            raise RemoteProtocolError(f"the file {cid} has more pieces than any file needs")
        todo += [(link.cid, None) for link in reversed(node.links)]

"""Bringing a whole DAG here: only what is missing, with a window of wants and no barrier between them.

The window is bounded twice, by wants and by the bytes they are expected to bring, so that thousands of small files
travel as fast as a few large ones, and memory stays the same. A block's parent is stored before the block is asked
for, so that a root in use protects whatever of it is here from the collector. Among blocks whose parents are here the
order is random, but what another node gets first (bitswap/wants.py) comes last.

A DAG whose size only its maker knows is followed up to limits. Whoever gave the block that went over them is dropped:
a node that fetches has none of those.
"""

import random
from collections.abc import Iterable, Sequence
from typing import Protocol

import trio

from mesh.content.bitswap.wants import Sources
from mesh.content.repository import Repository
from mesh.content.unixfs.cid import RAW, parse_cid
from mesh.content.unixfs.nodes import Block, Link, child_links
from protocols.errors import ContentNotFound, MeshError, RemoteProtocolError
from protocols.ids import Cid, PeerId

WANTS_MAX = 256
"""Outstanding wants of one fetch."""

WANTED_BYTES_MAX = 8 * 1024 * 1024
"""What they are expected to bring together: 32 full chunks."""

BLOCK_BYTES_EXPECTED = 256 * 1024
"""Of a block whose size its parent does not tell."""

CHECK_BATCH = 512
"""Blocks looked up at once."""

DRAWN_FROM = 4096
"""Blocks among which the next is drawn: the ones found last, so that few wait."""

WHOLE_MAX = 65_536
"""Blocks remembered to be whole, some 7 MB."""

BLOCKS_MAX = 1_000_000
"""Of one root, seen and waiting: some 300 MB of memory, if somebody means harm."""

BYTES_MAX = 32 * 1024**3
"""Brought for one root: what a store takes by default."""

DEPTH_MAX = 1024
"""Blocks above one another: 256 directories, each of a few shards."""


class Exchange(Protocol):
    """Gets blocks from other nodes."""

    async def get(self, cid: Cid, sources: Sources) -> bytes:
        """The block, verified; waits until somebody has it (the caller bounds that). `sources` are asked first, and
        whoever gives the block is added to them."""

    def stored(self, cids: Sequence[Cid]) -> None:
        """These blocks are here now: whoever asked for them in vain gets them."""

    def is_ours(self, cid: Cid, sources: Sources) -> bool:
        """Whether it is for this node to get the block first, among those that fetch the same."""

    def blame(self, cid: Cid, reason: str) -> None:
        """Something is wrong with what this block says, and not by accident: whoever gave it is dropped."""


class Whole:
    """Inner blocks (directories, most of them) under which everything is here: a walk over the next version of a tree
    looks only at what changed. They are forgotten when anything is lost."""

    def __init__(self) -> None:
        self._keys: dict[bytes, None] = {}
        self._losses = 0

    def __contains__(self, key: bytes) -> bool:
        return key in self._keys

    def since(self, losses: int) -> "Whole":
        """What still holds when so many losses have been counted."""
        if losses != self._losses:
            self._keys.clear()
            self._losses = losses
        return self

    def add(self, keys: Iterable[bytes]) -> None:
        self._keys.update(dict.fromkeys(keys))
        while len(self._keys) > WHOLE_MAX:
            del self._keys[next(iter(self._keys))]


class Fetch:
    """One walk over one DAG. `timeout` bounds a stall in seconds, not the whole."""

    def __init__(
        self,
        repository: Repository,
        exchange: Exchange | None,
        holders: Sequence[PeerId],
        timeout: float,
        whole: Whole | None = None,
    ) -> None:
        self._repository = repository
        self._whole = whole or Whole()
        self.inner: list[bytes] = []
        """Blocks gone through that refer to others: everything under them is here once the fetch has returned."""
        self._exchange = exchange
        self._sources = Sources(holders)
        self._timeout = timeout
        self._dice = random.Random()
        self._frontier: list[tuple[Link, int]] = []
        """Blocks to look for, and how deep they lie."""
        self._later: list[tuple[Link, int]] = []
        """Those that another node gets first, to be asked for when all others have been."""
        self._seen: set[bytes] = set()
        self._bytes = 0
        self._wanted: dict[Cid, int] = {}
        self._changed = trio.Event()
        self._stall = trio.CancelScope()
        self._failure: MeshError | None = None

    async def run(self, root: Cid) -> None:
        """Return when all under `root` is here and synced; `ContentNotFound` when a stall lasts too long, or the first
        `MeshError` of the repository or the exchange."""
        self._frontier.append((Link("", root, 0), 1))
        self._progress()
        with self._stall:
            async with trio.open_nursery() as nursery:
                try:
                    while (self._frontier or self._later or self._wanted) and self._failure is None:
                        if self._frontier:
                            await self._look(nursery)
                        elif self._later:
                            await self._ask(*self._later.pop(), nursery)
                        else:
                            await self._change()
                except MeshError as error:  # the nursery would let it out in a group, which no caller expects
                    self._failure = error
                nursery.cancel_scope.cancel()
        if self._failure is not None:
            raise self._failure
        if self._stall.cancelled_caught:
            missing = next(iter(self._wanted), root)
            raise ContentNotFound(f"no node in reach gave the block {missing} of {root} within {self._timeout:.0f} s")

    async def _look(self, nursery: trio.Nursery) -> None:
        """Take some of the frontier: go through what is here, ask for what is not."""
        links: dict[bytes, tuple[Link, int]] = {}
        while self._frontier and len(links) < CHECK_BATCH:
            link, depth = self._draw()
            key = parse_cid(link.cid)[1]
            if key in self._seen or key in self._whole:
                continue
            self._seen.add(key)
            links[key] = link, depth
            if _is_inner(link):
                self.inner.append(key)
        some = list(links.values())
        present = await self._repository.has_many([link.cid for link, _ in some])
        inner = [(link, depth) for (link, depth), here in zip(some, present, strict=True) if here and _is_inner(link)]
        blocks = await self._repository.get_many([link.cid for link, _ in inner])
        damaged = set()
        for (link, depth), data in zip(inner, blocks, strict=True):
            if data is None:
                damaged.add(link.cid)
            else:
                self._frontier += [(child, depth + 1) for child in child_links(link.cid, data)]
        for (link, depth), here in zip(some, present, strict=True):
            if not here or link.cid in damaged:
                if self._exchange is None or _is_inner(link) or self._exchange.is_ours(link.cid, self._sources):
                    await self._ask(link, depth, nursery)
                else:
                    self._later.append((link, depth))

    def _draw(self) -> tuple[Link, int]:
        at = -1 - self._dice.randrange(min(len(self._frontier), DRAWN_FROM))
        self._frontier[at], self._frontier[-1] = self._frontier[-1], self._frontier[at]
        return self._frontier.pop()

    async def _ask(self, link: Link, depth: int, nursery: trio.Nursery) -> None:
        if self._exchange is None:
            self._failure = ContentNotFound(f"the block {link.cid} is not here, and there is nobody to ask")
            return
        expected = min(link.tsize or BLOCK_BYTES_EXPECTED, BLOCK_BYTES_EXPECTED)
        while self._wanted and (
            len(self._wanted) >= WANTS_MAX or sum(self._wanted.values()) + expected > WANTED_BYTES_MAX
        ):
            if self._failure is not None:
                return
            await self._change()
        self._wanted[link.cid] = expected
        nursery.start_soon(self._bring, link.cid, depth, self._exchange)

    async def _bring(self, cid: Cid, depth: int, exchange: Exchange) -> None:
        try:
            data = await exchange.get(cid, self._sources)
            self._progress()
            children = child_links(cid, data)
            self._check_limits(cid, depth, data, children, exchange)
            await self._repository.put_many([Block(cid, data)])
            exchange.stored([cid])
        except MeshError as error:
            self._failure = error
        else:
            self._frontier += [(child, depth + 1) for child in children]
            del self._wanted[cid]
            self._progress()
        self._changed.set()

    def _check_limits(self, cid: Cid, depth: int, data: bytes, children: Sequence[Link], exchange: Exchange) -> None:
        self._bytes += len(data)
        reason = ""
        if children and depth >= DEPTH_MAX:
            reason = f"over {DEPTH_MAX} blocks above one another"
        elif len(self._seen) + len(self._frontier) > BLOCKS_MAX:
            reason = f"over {BLOCKS_MAX} blocks"
        elif self._bytes > BYTES_MAX:
            reason = f"over {BYTES_MAX} bytes"
        if reason:
            exchange.blame(cid, f"what it gives has {reason}")
            raise RemoteProtocolError(f"what is fetched has {reason}, more than anybody needs")

    async def _change(self) -> None:
        await self._changed.wait()
        self._changed = trio.Event()

    def _progress(self) -> None:
        self._stall.deadline = trio.current_time() + self._timeout


def _is_inner(link: Link) -> bool:
    return parse_cid(link.cid)[0] != RAW

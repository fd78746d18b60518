"""Bringing a whole DAG here: breadth first, only what is missing, with a window of wants and no barrier between them.

The window is bounded twice, by wants and by the bytes they are expected to bring, so that thousands of small files
travel as fast as a few large ones, and memory stays the same. A block's parent is stored before the block is asked
for, so that a root in use protects whatever of it is here from the collector.
"""

from collections import deque
from collections.abc import Sequence
from typing import Protocol

import trio

from mesh.content.repository import Repository
from mesh.content.unixfs.cid import RAW, parse_cid
from mesh.content.unixfs.nodes import Block, Link, child_links
from protocols.errors import ContentNotFound, MeshError
from protocols.ids import Cid, PeerId

WANTS_MAX = 256
"""Outstanding wants of one fetch."""

WANTED_BYTES_MAX = 8 * 1024 * 1024
"""What they are expected to bring together: 32 full chunks."""

BLOCK_BYTES_EXPECTED = 256 * 1024
"""Of a block whose size its parent does not tell."""

CHECK_BATCH = 512
"""Blocks looked up at once."""


class Exchange(Protocol):
    """Gets blocks from other nodes."""

    async def get(self, cid: Cid, sources: set[PeerId]) -> bytes:
        """The block, verified; waits until somebody has it (the caller bounds that). `sources` are asked first, and
        whoever gives the block is added to them."""

    def stored(self, cids: Sequence[Cid]) -> None:
        """These blocks are here now: whoever asked for them in vain gets them."""


class Fetch:
    """One walk over one DAG. `timeout` bounds a stall in seconds, not the whole."""

    def __init__(
        self, repository: Repository, exchange: Exchange | None, holders: Sequence[PeerId], timeout: float
    ) -> None:
        self._repository = repository
        self._exchange = exchange
        self._sources = set(holders)
        self._timeout = timeout
        self._frontier: deque[Link] = deque()
        self._seen: set[bytes] = set()
        self._wanted: dict[Cid, int] = {}
        self._changed = trio.Event()
        self._stall = trio.CancelScope()
        self._failure: MeshError | None = None

    async def run(self, root: Cid) -> None:
        """Return when all under `root` is here and synced; `ContentNotFound` when a stall lasts too long, or the first
        `MeshError` of the repository or the exchange."""
        self._frontier.append(Link("", root, 0))
        self._progress()
        with self._stall:
            async with trio.open_nursery() as nursery:
                try:
                    while (self._frontier or self._wanted) and self._failure is None:
                        if self._frontier:
                            await self._look(nursery)
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
        links: dict[bytes, Link] = {}
        while self._frontier and len(links) < CHECK_BATCH:
            link = self._frontier.popleft()
            key = parse_cid(link.cid)[1]
            if key not in self._seen:
                self._seen.add(key)
                links[key] = link
        some = list(links.values())
        present = await self._repository.has_many([link.cid for link in some])
        inner = [link for link, here in zip(some, present, strict=True) if here and parse_cid(link.cid)[0] != RAW]
        blocks = await self._repository.get_many([link.cid for link in inner])
        damaged = set()
        for link, data in zip(inner, blocks, strict=True):
            if data is None:
                damaged.add(link.cid)
            else:
                self._frontier += child_links(link.cid, data)
        for link, here in zip(some, present, strict=True):
            if not here or link.cid in damaged:
                await self._ask(link, nursery)

    async def _ask(self, link: Link, nursery: trio.Nursery) -> None:
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
        nursery.start_soon(self._bring, link.cid, self._exchange)

    async def _bring(self, cid: Cid, exchange: Exchange) -> None:
        try:
            data = await exchange.get(cid, self._sources)
            self._progress()
            children = child_links(cid, data)
            await self._repository.put_many([Block(cid, data)])
            exchange.stored([cid])
        except MeshError as error:
            self._failure = error
        else:
            self._frontier += children
            del self._wanted[cid]
            self._progress()
        self._changed.set()

    async def _change(self) -> None:
        await self._changed.wait()
        self._changed = trio.Event()

    def _progress(self) -> None:
        self._stall.deadline = trio.current_time() + self._timeout

"""One peer's state and the task that talks to it.

All that we have to say to a peer goes through one outbound stream: our wants, and answers to its own. The peer's
wantlist (the ledger) is deduplicated and capped; of each want only the CID is kept, and a block is read when its turn
to be sent has come, so a greedy peer costs entries, never blocks. A want that can't be met stays, unless the peer is to
be told just once: if the block comes later, the peer gets it.
"""

import logging
from collections import deque
from collections.abc import Callable
from typing import Any

import trio

from mesh.content.bitswap.conduct import Conduct
from mesh.content.bitswap.wire import PROTOCOL, Entry, encode
from mesh.content.repository import Repository
from mesh.content.unixfs.cid import cid_from_bytes
from mesh.measures import Traffic
from protocols.errors import MeshError
from protocols.ids import Cid

log = logging.getLogger(__name__)

WANTS_PER_PEER_MAX = 2048
"""Of a peer, in our ledger; what is over it is dropped, and asked again by a peer that still wants it."""

ENTRIES_PER_MESSAGE_MAX = 1024
ANSWERS_PER_ROUND = 128
"""Wants answered in one message."""

MESSAGE_BYTES_TARGET = 1024 * 1024
"""A message gets no more blocks from here on. The last may be 2 MiB long, which stays under Bitswap's 4."""

OPEN_SECONDS_MAX = 5.0
WRITE_SECONDS_MAX = 10.0
RESET_SECONDS_MAX = 1.0
ATTEMPTS_MAX = 3
"""Streams opened in a row without one message getting through, before the peer is given up until it speaks again."""

RETRY_SECONDS = 0.2


class Peer:
    """What we want of a peer, what it wants of us, and the stream to it."""

    def __init__(
        self,
        peer: Any,
        open_stream: Callable[[Any, list[str]], Any],
        repository: Repository,
        serving: trio.CapacityLimiter,
        traffic: Traffic,
    ) -> None:
        self.id = peer
        self._open_stream = open_stream
        self._repository = repository
        self._serving = serving
        self._traffic = traffic
        self._theirs: dict[bytes, Entry] = {}
        self._answer: deque[bytes] = deque()
        self._queued: set[bytes] = set()
        self._ours: dict[bytes, Entry] = {}
        self._wake = trio.Event()
        self._stream: Any = None
        self.outstanding: set[bytes] = set()
        """Blocks that we asked of it and have not got, by multihash."""
        self.progress = trio.current_time()
        """When it last answered something that we asked."""
        self.slow_until = 0.0
        self.stalls = 0
        """Since it gave something."""
        self.conduct = Conduct(trio.current_time())
        self.scope = trio.CancelScope()

    # Our wants

    def want(self, entry: Entry) -> None:
        """Tell the peer a change of our wantlist; the last one of each CID counts."""
        self._ours[entry.multihash] = entry
        self._wake.set()

    # Its wants

    def take(self, entries: tuple[Entry, ...], full: bool) -> None:
        """A change of the peer's wantlist; `RemoteProtocolError` for far too much."""
        surplus = 0
        if full:
            self._theirs.clear()
        for entry in entries:
            key = entry.multihash
            known = self._theirs.get(key)
            if entry.cancel:
                self._theirs.pop(key, None)
                continue
            if known is None and len(self._theirs) >= WANTS_PER_PEER_MAX:
                surplus += 1
                continue
            if known is None or known.have or not entry.have:
                self._theirs[key] = entry
            self._enqueue(key)
        self._wake.set()
        self.conduct.overflowed(surplus, trio.current_time())

    def stored(self, keys: list[bytes]) -> None:
        """Blocks have come that the peer may have asked for in vain."""
        if not self._theirs:
            return
        for key in keys:
            if key in self._theirs:
                self._enqueue(key)
                self._wake.set()

    def _enqueue(self, key: bytes) -> None:
        if key not in self._queued:
            self._queued.add(key)
            self._answer.append(key)

    # Talking

    async def talk(self) -> None:
        """Send what there is to send, until cancelled or given up."""
        failures = 0
        try:
            with self.scope:
                while failures < ATTEMPTS_MAX:
                    if not self._ours and not self._answer:
                        self._wake = trio.Event()
                        await self._wake.wait()
                    failures = 0 if await self._round() else failures + 1
        finally:
            await self._reset()

    async def _round(self) -> bool:
        """Send one message; False if the stream failed, which gives back what it was to carry."""
        ours = [self._ours.pop(key) for key in list(self._ours)[:ENTRIES_PER_MESSAGE_MAX]]
        taken: list[Entry] = []
        try:
            async with self._serving:
                frame = await self._message(ours, taken)
                if frame:
                    await self._write(frame)
        except MeshError as error:
            log.warning("can't read blocks for %s: %s", self.id, error)
        except Exception as error:  # whatever the library raises for a stream or connection that is gone
            log.debug("stream to %s: %r", self.id, error)
        else:
            return True
        await self._reset()
        for entry in ours:
            self._ours.setdefault(entry.multihash, entry)
        self.take(tuple(taken), full=False)
        await trio.sleep(RETRY_SECONDS)
        return False

    async def _message(self, ours: list[Entry], taken: list[Entry]) -> bytes:
        """The next message; empty if there is nothing to say. What it answers goes into `taken`."""
        while self._answer and len(taken) < ANSWERS_PER_ROUND:
            key = self._answer.popleft()
            self._queued.discard(key)
            if key in self._theirs:
                taken.append(self._theirs[key])
        haves: list[bytes] = []
        missing: list[bytes] = []
        blocks: list[tuple[Cid, bytes]] = []
        asked_have = [entry for entry in taken if entry.have]
        there = await self._repository.has_many([cid_from_bytes(entry.cid) for entry in asked_have])
        for entry, here in zip(asked_have, there, strict=True):
            if here:
                haves.append(entry.cid)
            elif entry.tell_missing:
                missing.append(entry.cid)
        asked_block = [entry for entry in taken if not entry.have]
        cids = [cid_from_bytes(entry.cid) for entry in asked_block]
        found = await self._repository.get_some(cids, MESSAGE_BYTES_TARGET) if cids else []
        for entry, cid, data in zip(asked_block, cids, found, strict=False):
            if data is not None:
                blocks.append((cid, data))
                self._traffic.sent_blocks += 1
                self._traffic.sent_bytes += len(data)
                if self._theirs.get(entry.multihash) is entry:
                    del self._theirs[entry.multihash]
                continue
            if entry.tell_missing:
                missing.append(entry.cid)
            if entry.once and self._theirs.get(entry.multihash) is entry:
                del self._theirs[entry.multihash]
        for entry in reversed(asked_block[len(found) :]):
            taken.remove(entry)
            if entry.multihash not in self._queued:
                self._queued.add(entry.multihash)
                self._answer.appendleft(entry.multihash)
        return encode(ours, blocks, haves, missing) if ours or blocks or haves or missing else b""

    async def _write(self, frame: bytes) -> None:
        if self._stream is None:
            with trio.fail_after(OPEN_SECONDS_MAX):
                self._stream = await self._open_stream(self.id, [PROTOCOL])
        with trio.fail_after(WRITE_SECONDS_MAX):
            await self._stream.write(frame)

    async def _reset(self) -> None:
        stream, self._stream = self._stream, None
        if stream is None:
            return
        with trio.CancelScope(deadline=trio.current_time() + RESET_SECONDS_MAX, shield=True):
            try:
                await stream.reset()
            except Exception as error:  # the connection is gone
                log.debug("reset of a stream to %s: %r", self.id, error)

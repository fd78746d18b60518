"""The exchange: who is asked for which block, and what comes back.

A want is shared by all who wait for it, and is asked of one peer at a time: of the fetch's sources first, the least
loaded one first; if there is none, everybody is asked whether they have it, and the first who does gets the want. A
peer that says it lacks the block, or lets nothing come for three seconds, is passed over for a while. Nothing that is
not wanted is kept, whoever sends it. Every decision is one synchronous pass over plain state, run by an event or by a
tick.
"""

import logging
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio
from libp2p.peer.id import ID

from mesh.content.bitswap.peers import Peer
from mesh.content.bitswap.wire import PROTOCOL, Decoder, Entry, Message, binary
from mesh.content.repository import Repository
from mesh.content.unixfs.cid import parse_cid
from protocols.errors import RemoteProtocolError
from protocols.ids import Cid, PeerId

log = logging.getLogger(__name__)

TICK_SECONDS = 0.25
IDLE_TICK_SECONDS = 1.0
"""While nothing is wanted."""
STALL_SECONDS = 3.0
"""Without anything from a peer that owes us blocks, they are asked of another."""

SLOW_SECONDS = 10.0
"""How long a peer that stalled comes last."""

REFUSED_SECONDS = 5.0
"""How long a peer that lacks a block is not asked for it again."""

ANNOUNCE_SECONDS = 10.0
"""After which everybody is asked again who has a block."""

ANNOUNCE_PEERS_MAX = 64
INBOUND_STREAMS_MAX = 128
"""Of one peer: a Kubo opens one for each message."""

SERVING_PEERS_MAX = 32
"""Peers whose answers are in memory at once."""

READ_BYTES = 256 * 1024


class _Want:
    """A block that somebody here waits for."""

    def __init__(self, cid: Cid) -> None:
        self.cid, self.key = binary(cid)
        self.sources: list[set[PeerId]] = []
        """Of each waiter: the peers that its content comes from."""
        self.done = trio.Event()
        self.data = b""
        self.asked: PeerId | None = None
        self.asked_at = 0.0
        self.haves: set[PeerId] = set()
        self.refused: dict[PeerId, float] = {}
        self.told: dict[PeerId, float] = {}
        """Peers that know of this want, since when: they hear when it ends."""


class Bitswap:
    """Serves this host's blocks and gets those of others."""

    def __init__(self, host: Any, repository: Repository, nursery: trio.Nursery) -> None:
        self._host = host
        self._repository = repository
        self._nursery = nursery
        self._peers: dict[PeerId, Peer] = {}
        self._wants: dict[bytes, _Want] = {}
        self._inbound: Counter[PeerId] = Counter()
        """Streams that each peer has open to us."""
        self._serving = trio.CapacityLimiter(SERVING_PEERS_MAX)
        self.unwanted = 0
        """Blocks that came without being wanted, and were dropped."""

    # For fetchers

    async def get(self, cid: Cid, sources: set[PeerId]) -> bytes:
        """The block, verified; waits until somebody has it (the caller bounds that). `sources` are asked first, and
        whoever gives the block is added to them."""
        key = parse_cid(cid)[1]
        want = self._wants.get(key)
        if want is None:
            want = self._wants[key] = _Want(cid)
        want.sources.append(sources)
        try:
            self._ask(want)
            await want.done.wait()
            return want.data
        finally:
            want.sources = [one for one in want.sources if one is not sources]
            if not want.sources and self._wants.get(key) is want:
                del self._wants[key]
                self._end(want)

    def stored(self, cids: Sequence[Cid]) -> None:
        """These blocks are here now: whoever asked for them in vain gets them."""
        if self._peers:
            keys = [parse_cid(cid)[1] for cid in cids]
            for peer in self._peers.values():
                peer.stored(keys)

    # Decisions

    def _ask(self, want: _Want) -> None:
        """See to it that somebody is asked for the block: the best of those who may have it, or else all."""
        now = trio.current_time()
        connected = self._connected()
        if want.asked is not None and (want.asked not in connected or self._stalled(want, now)):
            self._withdraw(want, now)
        for peer, since in list(want.refused.items()):
            if now - since >= REFUSED_SECONDS:
                del want.refused[peer]
        known = want.haves.union(*want.sources)
        good = [peer for peer in known if peer in connected and peer not in want.refused]
        best = min(good, key=lambda peer: self._burden(peer, now), default=None)
        best_is_slow = best is None or self._is_slow(best, now)
        if want.asked is not None:
            if best_is_slow or not self._is_slow(want.asked, now):
                return
            self._withdraw(want, now)
        if best is not None:
            self._ask_peer(want, best, now)
        if best_is_slow:
            self._announce(want, connected, now)

    def _is_slow(self, peer: PeerId, now: float) -> bool:
        state = self._peers.get(peer)
        return state is not None and state.slow_until > now

    def _burden(self, peer: PeerId, now: float) -> tuple[bool, int, PeerId]:
        state = self._peers.get(peer)
        return (self._is_slow(peer, now), 0 if state is None else len(state.outstanding), peer)

    def _ask_peer(self, want: _Want, peer: PeerId, now: float) -> None:
        state = self._peer(peer)
        if not state.outstanding:
            state.progress = now
        state.outstanding.add(want.key)
        state.want(Entry(want.cid, tell_missing=True))
        want.asked, want.asked_at = peer, now
        want.told[peer] = now

    def _announce(self, want: _Want, connected: set[PeerId], now: float) -> None:
        fresh = (
            peer
            for peer in sorted(connected - want.refused.keys())
            if peer not in want.told or now - want.told[peer] >= ANNOUNCE_SECONDS
        )
        for _, peer in zip(range(ANNOUNCE_PEERS_MAX), fresh, strict=False):
            self._peer(peer).want(Entry(want.cid, have=True, tell_missing=True))
            want.told[peer] = now

    def _stalled(self, want: _Want, now: float) -> bool:
        assert want.asked is not None
        return now - max(want.asked_at, self._peer(want.asked).progress) >= STALL_SECONDS

    def _withdraw(self, want: _Want, now: float) -> None:
        """The peer asked is gone or stalls."""
        assert want.asked is not None
        state = self._peers.get(want.asked)
        if state is not None:
            state.outstanding.discard(want.key)
            state.slow_until = now + SLOW_SECONDS
        want.haves.discard(want.asked)
        want.asked = None

    def _end(self, want: _Want) -> None:
        """Nobody waits for it any more: tell those who know of it."""
        for peer in want.told:
            state = self._peers.get(peer)
            if state is not None:
                state.outstanding.discard(want.key)
                state.want(Entry(want.cid, cancel=True))

    # What peers say

    def _received(self, name: PeerId, message: Message) -> None:
        peer = self._peer(name)
        if message.entries or message.full:
            peer.take(message.entries, message.full)
        for key, data in message.blocks:
            self._block(peer, name, key, data)
        for key in message.haves:
            want = self._wants.get(key)
            if want is not None:
                want.haves.add(name)
                want.refused.pop(name, None)
                self._ask(want)
        for key in message.missing:
            want = self._wants.get(key)
            if want is not None:
                self._missing(want, peer, name)

    def _block(self, peer: Peer, name: PeerId, key: bytes, data: bytes) -> None:
        want = self._wants.pop(key, None)
        if want is None:
            self.unwanted += 1
            return
        peer.progress = trio.current_time()
        want.data = data
        for sources in want.sources:
            sources.add(name)
        peer.outstanding.discard(key)
        if want.asked == name or want.asked is None:
            want.told.pop(name, None)
        self._end(want)
        want.done.set()

    def _missing(self, want: _Want, peer: Peer, name: PeerId) -> None:
        now = peer.progress = trio.current_time()
        want.refused[name] = now
        want.haves.discard(name)
        if want.asked == name:
            peer.outstanding.discard(want.key)
            want.asked = None
        self._ask(want)

    # Peers

    def _connected(self) -> set[PeerId]:
        return {_name(peer) for peer in self._host.get_connected_peers()}

    def _peer(self, name: PeerId) -> Peer:
        state = self._peers.get(name)
        if state is None:
            open_stream = self._host.new_stream
            state = self._peers[name] = Peer(ID.from_base58(name), open_stream, self._repository, self._serving)
            self._nursery.start_soon(self._talk, name, state)
        return state

    async def _talk(self, name: PeerId, peer: Peer) -> None:
        try:
            await peer.talk()
        finally:
            if self._peers.get(name) is peer:
                del self._peers[name]
            for want in self._wants.values():
                want.told.pop(name, None)
                if want.asked == name:
                    want.asked = None
                    want.refused[name] = trio.current_time()

    async def _on_stream(self, stream: Any) -> None:
        """A peer opened a stream: read it to its end. Raises nothing, since that would end the whole host."""
        name = _name(stream.muxed_conn.peer_id)
        if self._inbound[name] >= INBOUND_STREAMS_MAX:
            await stream.reset()
            return
        self._inbound[name] += 1
        decoder = Decoder()
        try:
            while data := await stream.read(READ_BYTES):
                for message in decoder.feed(data):
                    self._received(name, message)
        except RemoteProtocolError as error:
            log.warning("Bitswap from %s: %s", name, error)
            await stream.reset()
        except Exception as error:  # the end of a stream, which the library raises in many forms
            log.debug("Bitswap stream from %s: %r", name, error)
        finally:
            self._inbound[name] -= 1
            if not self._inbound[name]:
                del self._inbound[name]

    async def tick(self) -> None:
        """Look after wants that wait and peers that left, for ever."""
        while True:
            await trio.sleep(TICK_SECONDS if self._wants else IDLE_TICK_SECONDS)
            connected = self._connected()
            for name, peer in list(self._peers.items()):
                if name not in connected:
                    peer.scope.cancel()
            for want in list(self._wants.values()):
                self._ask(want)

    def serve(self) -> None:
        self._host.set_stream_handler(PROTOCOL, self._on_stream)

    def stop(self) -> None:
        self._host.remove_stream_handler(PROTOCOL)


def _name(peer: Any) -> PeerId:
    return PeerId(peer.to_base58())


@asynccontextmanager
async def open_bitswap(host: Any, repository: Repository) -> AsyncIterator[Bitswap]:
    """Serve and fetch blocks over `host` until the end. What the body raises comes out as it is, in no group."""
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        bitswap = Bitswap(host, repository, nursery)
        bitswap.serve()
        nursery.start_soon(bitswap.tick)
        try:
            yield bitswap
        except Exception as error:
            failure = error
        finally:
            bitswap.stop()
            nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure

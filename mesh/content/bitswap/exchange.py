"""The exchange: who is asked for which block, and what comes back.

A want is shared by all who wait for it, and is asked of one peer at a time: of the fetch's sources first (wants.py says
of which); if there is none, everybody is asked whether they have it, and the first who does gets the want. Who wants
the same blocks as we do becomes a source. A peer that says it lacks the block, or lets nothing come for three seconds,
is passed over for a while; one that misbehaves (conduct.py) is dropped. Nothing that is not wanted is kept, whoever
sends it. Every decision is one synchronous pass over plain state, run by an event or by a tick.
"""

import functools
import logging
import random
from collections import Counter, OrderedDict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import trio
from libp2p.peer.id import ID

from mesh.content.bitswap.conduct import SHUT_OUT_SECONDS, ShutOut
from mesh.content.bitswap.peers import Peer
from mesh.content.bitswap.wants import FELLOW_SECONDS, Sources, Standing, Want, choose, deputy_of
from mesh.content.bitswap.wire import PROTOCOL, Decoder, Entry, Message
from mesh.content.repository import Repository
from mesh.content.unixfs.cid import parse_cid
from mesh.measures import Traffic
from protocols.errors import RemoteProtocolError
from protocols.ids import Cid, PeerId

log = logging.getLogger(__name__)

TICK_SECONDS = 0.25
IDLE_TICK_SECONDS = 1.0
"""While nothing is wanted."""
STALL_SECONDS = 3.0
"""Without anything from a peer that owes us blocks, they are asked of another."""

SLOW_SECONDS = 10.0
"""How long a peer that stalled comes last; longer each time that it stalls again before it gave anything."""

STALLS_MAX = 6
"""Times as long, at the most."""

REFUSED_SECONDS = 5.0
"""How long a peer that lacks a block is not asked for it again."""

ANNOUNCE_SECONDS = 10.0
"""After which everybody is asked again who has a block."""

ANNOUNCE_PEERS_MAX = 64
INBOUND_STREAMS_MAX = 128
"""Of one peer: a Kubo opens one for each message."""

UNFINISHED_BYTES_MAX = 8 * 1024 * 1024
"""Of one peer: parts of messages whose end has not come, on all of its streams."""

SERVING_PEERS_MAX = 16
"""Peers whose answers are in memory at once, up to 3 MiB each."""

ENDED_MAX = 4096
"""Blocks remembered that came lately."""

READ_BYTES = 256 * 1024
HANG_UP_SECONDS_MAX = 1.0


class Bitswap:
    """Serves this host's blocks and gets those of others."""

    def __init__(
        self, host: Any, repository: Repository, nursery: trio.Nursery, traffic: Traffic | None = None
    ) -> None:
        self._host = host
        self._repository = repository
        self._nursery = nursery
        self._traffic = traffic or Traffic()
        self._peers: dict[PeerId, Peer] = {}
        self._wants: dict[bytes, Want] = {}
        self._inbound: Counter[PeerId] = Counter()
        """Streams that each peer has open to us."""
        self._unfinished: Counter[PeerId] = Counter()
        """Bytes of messages that have begun."""
        self._shut_out = ShutOut()
        self._ended: OrderedDict[bytes, tuple[PeerId, list[Sources]]] = OrderedDict()
        """Blocks that came lately: who gave them, and for whom."""
        self._me = _name(host.get_id())
        self._dice = random.Random(self._me)
        """Each node has its own, so that no two ask alike."""
        self._serving = trio.CapacityLimiter(SERVING_PEERS_MAX)
        self.unwanted = 0
        """Blocks that came without being wanted, and were dropped."""

    # For fetchers

    async def get(self, cid: Cid, sources: Sources) -> bytes:
        """The block, verified; waits until somebody has it (the caller bounds that). `sources` are asked first, and
        whoever gives the block is added to them."""
        key = parse_cid(cid)[1]
        want = self._wants.get(key)
        if want is None:
            want = self._wants[key] = Want(cid)
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

    def is_ours(self, cid: Cid, sources: Sources) -> bool:
        """Whether it is for this node to get the block first, among those that fetch the same."""
        now = trio.current_time()
        fellows = [peer for peer, since in sources.fellows.items() if now - since < FELLOW_SECONDS]
        return not fellows or deputy_of(parse_cid(cid)[1], [self._me, *fellows]) == self._me

    def blame(self, cid: Cid, reason: str) -> None:
        """Something is wrong with what this block says, and not by accident: whoever gave it is dropped."""
        ended = self._ended.get(parse_cid(cid)[1])
        if ended is not None:
            self._drop(ended[0], reason)

    # Decisions

    def _ask(self, want: Want) -> None:
        """See to it that somebody is asked for the block: the best of those who may have it, or else all."""
        now = trio.current_time()
        connected = self._connected()
        if want.asked is not None and (want.asked not in connected or self._stalled(want, now)):
            self._withdraw(want, now)
        for peer, since in list(want.refused.items()):
            if now - since >= REFUSED_SECONDS:
                del want.refused[peer]
        fellows = want.fellows(now)
        good = [peer for peer in want.known() if peer in connected and peer not in want.refused]
        best = choose(self._me, want, (self._standing(peer, fellows, now) for peer in good), self._dice)
        if want.asked is not None:
            if best is None or best.slow or not self._standing(want.asked, fellows, now).slow:
                return
            self._withdraw(want, now)
        if best is not None:
            self._ask_peer(want, best, now)
        if best is None or best.slow:
            self._announce(want, connected, now)

    def _standing(self, peer: PeerId, fellows: set[PeerId], now: float) -> Standing:
        state = self._peers.get(peer)
        slow, burden = (False, 0) if state is None else (state.slow_until > now, len(state.outstanding))
        return Standing(peer, peer in fellows, slow, burden)

    def _ask_peer(self, want: Want, best: Standing, now: float) -> None:
        state = self._peer(best.peer)
        if not state.outstanding:
            state.progress = now
        state.outstanding.add(want.key)
        waits = best.fellow and best.peer not in want.haves  # it gives the block as soon as it has it
        state.want(Entry(want.cid, tell_missing=not waits, once=not waits))
        state.conduct.asked(want.key)
        want.asked, want.asked_at = best.peer, now
        want.told[best.peer] = now

    def _announce(self, want: Want, connected: set[PeerId], now: float) -> None:
        fresh = (
            peer for peer in sorted(connected) if peer not in want.told or now - want.told[peer] >= ANNOUNCE_SECONDS
        )
        for _, peer in zip(range(ANNOUNCE_PEERS_MAX), fresh, strict=False):
            state = self._peer(peer)
            state.want(Entry(want.cid, have=True, tell_missing=True))
            state.conduct.asked(want.key)
            want.told[peer] = now

    def _stalled(self, want: Want, now: float) -> bool:
        assert want.asked is not None
        return now - max(want.asked_at, self._peer(want.asked).progress) >= STALL_SECONDS

    def _withdraw(self, want: Want, now: float) -> None:
        """The peer asked is gone or stalls."""
        assert want.asked is not None
        state = self._peers.get(want.asked)
        if state is not None:
            state.outstanding.discard(want.key)
            state.stalls = min(state.stalls + 1, STALLS_MAX)
            state.slow_until = now + SLOW_SECONDS * state.stalls
        want.haves.discard(want.asked)
        want.asked = None

    def _end(self, want: Want) -> None:
        """Nobody waits for it any more: tell those who know of it."""
        for peer in want.told:
            state = self._peers.get(peer)
            if state is not None:
                state.outstanding.discard(want.key)
                state.want(Entry(want.cid, cancel=True))

    # What peers say

    def _received(self, name: PeerId, message: Message) -> None:
        """`RemoteProtocolError` for what costs the peer its connection."""
        peer = self._peer(name)
        if message.entries or message.full:
            peer.take(message.entries, message.full)
            self._learn(name, message.entries)
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

    def _learn(self, name: PeerId, entries: Sequence[Entry]) -> None:
        """Who wants what we want, or wanted, fetches what we fetch."""
        now = trio.current_time()
        for entry in entries:
            want = self._wants.get(entry.multihash)
            if want is not None:
                fetches = want.sources
            else:
                fetches = self._ended[entry.multihash][1] if entry.multihash in self._ended else []
            for sources in fetches:
                if not entry.cancel:
                    sources.peers.add(name)
                    sources.fellows[name] = now

    def _block(self, peer: Peer, name: PeerId, key: bytes, data: bytes) -> None:
        now = trio.current_time()
        want = self._wants.get(key)
        if want is None:
            self.unwanted += 1
        peer.conduct.gave(key, now)
        if want is None:
            return
        del self._wants[key]
        self._traffic.received_blocks += 1
        self._traffic.received_bytes += len(data)
        peer.progress = now
        peer.stalls = 0
        self._ended[key] = name, want.sources
        if len(self._ended) > ENDED_MAX:
            self._ended.popitem(last=False)
        want.data = data
        for sources in want.sources:
            sources.peers.add(name)
        peer.outstanding.discard(key)
        if want.asked == name or want.asked is None:
            want.told.pop(name, None)
        self._end(want)
        want.done.set()

    def _missing(self, want: Want, peer: Peer, name: PeerId) -> None:
        now = peer.progress = trio.current_time()
        want.refused[name] = now
        if name in want.haves:
            want.haves.discard(name)
            peer.conduct.broke_its_word(now)
        if want.asked == name:
            peer.outstanding.discard(want.key)
            want.asked = None
            peer.want(Entry(want.cid, cancel=True))  # for one that does not forget it, and would send it later as well
            want.told.pop(name, None)
        self._ask(want)

    # Peers

    def _connected(self) -> set[PeerId]:
        """Those that may be asked and answered."""
        now = trio.current_time()
        names = (_name(peer) for peer in self._host.get_connected_peers())
        return {name for name in names if not self._shut_out.holds(name, now)}

    def _drop(self, name: PeerId, reason: str) -> None:
        """Have nothing to do with a peer for a while."""
        now = trio.current_time()
        if self._shut_out.holds(name, now):
            return
        log.warning("%s is dropped, and shut out of Bitswap for %.0f s: %s", name, SHUT_OUT_SECONDS, reason)
        self._shut_out.add(name, now)
        state = self._peers.get(name)
        if state is not None:
            state.scope.cancel()
        self._nursery.start_soon(self._hang_up, ID.from_base58(name))

    async def _hang_up(self, peer: Any) -> None:
        with trio.CancelScope(deadline=trio.current_time() + HANG_UP_SECONDS_MAX, shield=True):
            for connection in list(self._host.get_network().get_connections(peer)):
                try:
                    await connection.muxed_conn.secured_conn.close()  # waits for nobody, unlike what comes next
                    await connection.close()
                except Exception as error:  # it is gone
                    log.debug("closing a connection to %s: %r", peer, error)

    def _peer(self, name: PeerId) -> Peer:
        state = self._peers.get(name)
        if state is None:
            open_stream = self._host.new_stream
            state = self._peers[name] = Peer(
                ID.from_base58(name), open_stream, self._repository, self._serving, self._traffic
            )
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
        if self._inbound[name] >= INBOUND_STREAMS_MAX or self._shut_out.holds(name, trio.current_time()):
            await stream.reset()
            return
        self._inbound[name] += 1
        decoder = Decoder()
        try:
            while data := await stream.read(READ_BYTES):
                if self._shut_out.holds(name, trio.current_time()):
                    break
                before = decoder.unfinished
                for message in decoder.feed(data):
                    self._received(name, message)
                self._unfinished[name] += decoder.unfinished - before
                if self._unfinished[name] > UNFINISHED_BYTES_MAX:
                    raise RemoteProtocolError(f"over {UNFINISHED_BYTES_MAX} bytes of its messages lack their end")
        except RemoteProtocolError as error:
            self._drop(name, str(error))
        except Exception as error:  # the end of a stream, which the library raises in many forms
            log.debug("Bitswap stream from %s: %r", name, error)
        finally:
            self._inbound[name] -= 1
            self._unfinished[name] -= decoder.unfinished
            for counter in (self._inbound, self._unfinished):
                if not counter[name]:
                    del counter[name]

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


@functools.lru_cache(maxsize=1024)
def _name(peer: Any) -> PeerId:
    return PeerId(peer.to_base58())


@asynccontextmanager
async def open_bitswap(host: Any, repository: Repository, traffic: Traffic | None = None) -> AsyncIterator[Bitswap]:
    """Serve and fetch blocks over `host` until the end. What the body raises comes out as it is, in no group."""
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        bitswap = Bitswap(host, repository, nursery, traffic)
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

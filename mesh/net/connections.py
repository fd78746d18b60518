"""Which peers are connected, how far away they are, and whether they still live.

The kernel notices a dead host or a cut link in 8 s and a killed process at once, but never a process that is stopped
or hung: so the side that dialled a connection sends a ping on a stream of its own every second, and whichever side
hears nothing for `SILENCE_SECONDS_MAX` drops the connection without ceremony. A ping carries the dialler's smoothed
round-trip time, so that both ends know it for the price of one. Two connections to one peer (both dialled) are
watched separately; the peer is gone when the last of them is.
"""

import logging
import struct
from collections.abc import Callable
from typing import Any

import trio
from libp2p.custom_types import TProtocol
from libp2p.network.stream.exceptions import StreamError
from libp2p.protocol_muxer.exceptions import MultiselectClientError
from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator
from libp2p.rcmgr import Direction

from mesh.net.contain import contained
from protocols.ids import PeerId
from protocols.presence import Link

HEARTBEAT_PROTOCOL = TProtocol("/mesh/heartbeat/1")
PING_SECONDS = 1.0
SILENCE_SECONDS_MAX = 4.0
"""Without a ping or its echo; with the ping's interval, a hung peer is dropped within 5 s."""
RTT_WEIGHT = 0.125
"""Of a new round-trip time in the smoothed one (RFC 6298's alpha)."""
ABORT_SECONDS_MAX = 1.0

_PING = struct.Struct(">Qd")

log = logging.getLogger(__name__)


class Connection:
    """One live connection as we see it."""

    def __init__(self, raw: Any) -> None:
        self.raw = raw
        self.peer = PeerId(raw.muxed_conn.peer_id.to_base58())
        self.rtt = 0.0
        """Smoothed, seconds; 0 until the first ping came back."""

    async def abort(self) -> None:
        """Drop it now: closing the socket waits for nobody, not even for a writer that is stuck in it."""
        with trio.CancelScope(shield=True), contained("aborting a connection"):
            await self.raw.muxed_conn.secured_conn.close()
            with trio.move_on_after(ABORT_SECONDS_MAX):
                await self.raw.close()


class Connections:
    """The live connections; registered with libp2p as its notifee."""

    def __init__(self, host: Any, nursery: trio.Nursery, changed: Callable[[PeerId, bool], None]) -> None:
        self._host = host
        self._nursery = nursery
        self._changed = changed
        self._live: dict[PeerId, list[Connection]] = {}
        host.set_stream_handler(HEARTBEAT_PROTOCOL, self._echo)
        host.get_network().register_notifee(self)

    def __contains__(self, peer: PeerId) -> bool:
        return peer in self._live

    def links(self) -> dict[PeerId, Link]:
        return {
            peer: Link(peer, min((c.rtt for c in connections if c.rtt), default=0.0))
            for peer, connections in self._live.items()
        }

    def of(self, peer: PeerId) -> tuple[Connection, ...]:
        return tuple(self._live.get(peer, ()))

    def all(self) -> tuple[Connection, ...]:
        return tuple(connection for connections in self._live.values() for connection in connections)

    async def connected(self, network: Any, conn: Any) -> None:
        if conn.muxed_conn.event_shutting_down.is_set():
            return  # it was closed while it was being announced
        connection = Connection(conn)
        others = self._live.setdefault(connection.peer, [])
        others.append(connection)
        self._nursery.start_soon(self._watch, connection)
        if len(others) == 1:
            self._changed(connection.peer, True)

    async def disconnected(self, network: Any, conn: Any) -> None:
        """Comes 200 ms late; `_watch` knows earlier."""

    async def opened_stream(self, network: Any, stream: Any) -> None: ...

    async def closed_stream(self, network: Any, stream: Any) -> None: ...

    async def listen(self, network: Any, multiaddr: Any) -> None: ...

    async def listen_close(self, network: Any, multiaddr: Any) -> None: ...

    async def _watch(self, connection: Connection) -> None:
        try:
            async with trio.open_nursery() as nursery:
                if connection.raw.direction is Direction.OUTBOUND:
                    nursery.start_soon(self._ping, connection)
                await connection.raw.muxed_conn.event_shutting_down.wait()
                nursery.cancel_scope.cancel()
        finally:
            others = self._live[connection.peer]
            others.remove(connection)
            if not others:
                del self._live[connection.peer]
                self._changed(connection.peer, False)

    async def _ping(self, connection: Connection) -> None:
        with contained(f"the heartbeat of {connection.peer}"):
            try:
                with trio.fail_after(SILENCE_SECONDS_MAX):
                    stream = await connection.raw.new_stream()
                    communicator = MultiselectCommunicator(stream)
                    await self._host.multiselect_client.select_one_of([HEARTBEAT_PROTOCOL], communicator)
                await self._ping_on(connection, stream)
            except MultiselectClientError as error:
                if "not supported" in str(error):
                    log.info("%s has no heartbeat: another version of this program, or another one", connection.peer)
                    return
            except (StreamError, trio.TooSlowError) as error:
                log.info("%s does not answer (%s): connection dropped", connection.peer, type(error).__name__)
        await connection.abort()

    async def _ping_on(self, connection: Connection, stream: Any) -> None:
        number = 0
        while True:
            number += 1
            sent = trio.current_time()
            with trio.fail_after(SILENCE_SECONDS_MAX):
                await stream.write(_PING.pack(number, connection.rtt))
                echo = await _read_ping(stream)
            if echo[0] != number:
                raise StreamError("the echo of another ping")
            measured = trio.current_time() - sent
            connection.rtt += (measured - connection.rtt) * (RTT_WEIGHT if connection.rtt else 1.0)
            await trio.sleep(PING_SECONDS)

    async def _echo(self, stream: Any) -> None:
        connection = next((c for c in self.all() if c.raw is stream.swarm_conn), None)
        try:
            while True:
                with trio.fail_after(PING_SECONDS + SILENCE_SECONDS_MAX):
                    number, rtt = await _read_ping(stream)
                    await stream.write(_PING.pack(number, rtt))
                if connection is not None and 0.0 <= rtt < SILENCE_SECONDS_MAX:
                    connection.rtt = rtt
        except trio.TooSlowError:
            log.info("%s is silent: connection dropped", stream.muxed_conn.peer_id)
            if connection is not None:
                await connection.abort()
        finally:
            with trio.CancelScope(shield=True):
                await stream.reset()


async def _read_ping(stream: Any) -> tuple[int, float]:
    data = b""
    while len(data) < _PING.size:
        more = await stream.read(_PING.size - len(data))
        if not more:
            raise StreamError("the heartbeat ended")
        data += more
    number, rtt = _PING.unpack(data)
    return number, rtt

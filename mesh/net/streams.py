"""One long-lived stream per peer, protocol and direction, opened at its first use and again after it failed.

Rejected: a stream for each call (2.6 ms against 0.7 ms, and 256 of them at most), a second stream for answers (two
lives to keep in step). A protocol that a peer refuses is asked for again once a second at most: it may be starting.
"""

import logging
from collections import deque
from collections.abc import Callable
from typing import Any

import trio
from libp2p.custom_types import TProtocol

from mesh.net.channels import CALL_SECONDS_MAX, QUEUE_FRAMES_MAX, Channel, Session, answer_call, refusal_code
from mesh.net.contain import contained
from mesh.ports import MESSAGE_BYTES_MAX, CallHandler, MessageHandler
from protocols.errors import LocalProtocolError, MeshError, NodeUnavailable, RemoteCallError
from protocols.ids import PeerId

SESSIONS_MAX = 4
"""Inbound streams of one peer and protocol; the oldest makes way (it belongs to a connection that died unnoticed)."""
REFUSED_SECONDS = 1.0
"""How long a protocol that a peer refused is not asked for again."""
REFUSED_MAX = 1024

log = logging.getLogger(__name__)


class Streams:
    """All channels and sessions of a node, and the handlers of its protocols."""

    def __init__(
        self,
        host: Any,
        peer_id: PeerId,
        nursery: trio.Nursery,
        connected: Callable[[PeerId], bool],
        problem: Callable[[PeerId], str],
    ) -> None:
        self._host = host
        self._problem = problem
        self._peer_id = peer_id
        self._nursery = nursery
        self._connected = connected
        self._messages: dict[str, MessageHandler] = {}
        self._calls: dict[str, CallHandler] = {}
        self._channels: dict[tuple[PeerId, str], Channel] = {}
        self._sessions: dict[tuple[PeerId, str], list[Session]] = {}
        self._refused: dict[tuple[PeerId, str], tuple[float, MeshError]] = {}
        self._to_self: deque[tuple[str, bytes]] = deque()

    def on_message(self, protocol: str, handler: MessageHandler) -> None:
        self._messages[protocol] = handler
        self._register(protocol)

    def on_call(self, protocol: str, handler: CallHandler) -> None:
        self._calls[protocol] = handler
        self._register(protocol)

    def send(self, peer: PeerId, protocol: str, payload: bytes) -> bool:
        _check_size(payload)
        if peer == self._peer_id:
            return self._send_to_self(protocol, payload)
        channel = self._channel(peer, protocol)
        return isinstance(channel, Channel) and channel.send(payload)

    async def call(self, peer: PeerId, protocol: str, payload: bytes, timeout: float) -> bytes:
        _check_size(payload)
        timeout = min(timeout, CALL_SECONDS_MAX)
        try:
            with trio.fail_after(timeout):
                if peer == self._peer_id:
                    return await self._call_self(protocol, payload)
                channel = self._channel(peer, protocol)
                if isinstance(channel, MeshError):
                    raise channel
                return await channel.call(payload, timeout)
        except trio.TooSlowError:
            raise NodeUnavailable(f"{peer} did not answer on {protocol} within {timeout:.3g} s") from None

    def _channel(self, peer: PeerId, protocol: str) -> Channel | MeshError:
        """The open channel, a new one, or why there can't be one now."""
        key = (peer, protocol)
        channel = self._channels.get(key)
        if channel is not None:
            return channel
        if not self._connected(peer):
            problem = self._problem(peer)
            return NodeUnavailable(f"there is no connection to {peer}" + (f" ({problem})" if problem else ""))
        refusal = self._refused.get(key)
        if refusal is not None and trio.current_time() < refusal[0]:
            return refusal[1]
        channel = self._channels[key] = Channel(self._host, peer, protocol)
        self._nursery.start_soon(self._run_channel, key, channel)
        return channel

    async def _run_channel(self, key: tuple[PeerId, str], channel: Channel) -> None:
        try:
            await channel.run()
        finally:
            del self._channels[key]
        if isinstance(channel.failure, RemoteCallError):
            if key not in self._refused:
                log.info("%s", channel.failure)
            if len(self._refused) >= REFUSED_MAX:
                self._refused.clear()  # costs a question more for each
            self._refused[key] = (trio.current_time() + REFUSED_SECONDS, channel.failure)
        else:
            self._refused.pop(key, None)

    def _register(self, protocol: str) -> None:
        async def serve(stream: Any) -> None:
            await self._serve(protocol, stream)

        self._host.set_stream_handler(TProtocol(protocol), serve)

    async def _serve(self, protocol: str, stream: Any) -> None:
        peer = PeerId(stream.muxed_conn.peer_id.to_base58())
        session = Session(peer, self._messages.get(protocol), self._calls.get(protocol))
        sessions = self._sessions.setdefault((peer, protocol), [])
        if len(sessions) >= SESSIONS_MAX:
            sessions.pop(0).scope.cancel()
        sessions.append(session)
        try:
            await session.run(stream)
        finally:
            if session in sessions:
                sessions.remove(session)
            if not sessions:
                self._sessions.pop((peer, protocol), None)

    def _send_to_self(self, protocol: str, payload: bytes) -> bool:
        """A later turn of the loop delivers it: a handler must not run inside its own sender."""
        if len(self._to_self) >= QUEUE_FRAMES_MAX or protocol not in self._messages:
            return False
        self._to_self.append((protocol, payload))
        if len(self._to_self) == 1:
            self._nursery.start_soon(self._deliver_to_self)
        return True

    async def _deliver_to_self(self) -> None:
        await trio.lowlevel.checkpoint()
        while self._to_self:
            protocol, payload = self._to_self[0]
            with contained("a message handler", logging.ERROR):
                self._messages[protocol](self._peer_id, payload)
            self._to_self.popleft()

    async def _call_self(self, protocol: str, payload: bytes) -> bytes:
        handler = self._calls.get(protocol)
        if handler is None:
            raise RemoteCallError(f"this node answers no calls on {protocol}")
        await trio.lowlevel.checkpoint()
        try:
            return await answer_call(handler, self._peer_id, payload)
        except MeshError as error:
            raise RemoteCallError(str(error), refusal_code(error)) from error


def _check_size(payload: bytes) -> None:
    if len(payload) > MESSAGE_BYTES_MAX:
        raise LocalProtocolError(f"a message of {len(payload)} bytes is over the limit of {MESSAGE_BYTES_MAX}")

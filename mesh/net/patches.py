"""What libp2p 0.8.1 needs before it can be trusted with a connection; everything that we change in its classes is
here, in `yamux` and in `transport` (which subclasses those that we make ourselves).

Each function names the fault that it mends; each has a regression test in tests/net/test_net_patches_*.py. Another
release is refused, because a patch that no longer fits would fail in silence.
"""

import functools
import importlib.metadata
import logging
import os
import socket
from contextlib import suppress
from typing import Any

import libp2p.io.trio
import libp2p.network.connection.swarm_connection
import libp2p.network.swarm
import libp2p.tools.anyio_service.trio_manager
import libp2p.transport.tcp.tcp
import trio
from libp2p.network.connection.exceptions import RawConnError
from libp2p.network.connection.raw_connection import RawConnection

from mesh.net import yamux
from mesh.net.contain import contained
from mesh.net.psk import NONCE_BYTES, XSalsa20
from protocols.errors import MeshError

LIBP2P_VERSION = "0.8.1"

KEEPALIVE_IDLE_SECONDS = 3
KEEPALIVE_INTERVAL_SECONDS = 2
KEEPALIVE_PROBES = 3
UNACKNOWLEDGED_MILLISECONDS_MAX = 8000

STREAMS_PER_CONNECTION_MAX = 1024
"""Streams of one connection in either direction; those beyond are reset."""

GREETING = b"\x13/multistream/1.0.0\n"
"""What either side of a connection says first. Anything else was sent under another key: no need to wait for more."""

RECEIVE_BYTES = 256 * 1024
"""Read from a socket at once."""

_applied = False


def apply() -> None:
    """Patch the library, once for the process; `MeshError` if it is another release than the one that was studied."""
    global _applied
    if _applied:
        return
    version = importlib.metadata.version("libp2p")
    if version != LIBP2P_VERSION:
        raise MeshError(
            f"libp2p {version} is installed, but this program needs {LIBP2P_VERSION}, whose faults it mends"
        )
    logging.getLogger("libp2p").setLevel(logging.CRITICAL)  # it shouts tracebacks for ordinary failures
    yamux.apply()
    _detect_dead_links()
    _own_listening_ports()
    _speak_the_psk_of_the_specification()
    _contain_tasks()
    _contain_connections()
    _close_half_open_streams()
    libp2p.network.swarm._HAPPY_EYEBALLS_DELAY = 0  # a successful dial waited 250 ms for a failure
    _applied = True


def _detect_dead_links() -> None:
    """A cut link was not noticed in 60 s, and a write into it could not be cancelled for over 100 s."""
    original = libp2p.io.trio.TrioTCPStream.__init__

    def init(self: Any, stream: trio.SocketStream) -> None:
        original(self, stream)
        _set_liveness_options(stream)

    libp2p.io.trio.TrioTCPStream.__init__ = init


def _set_liveness_options(stream: trio.SocketStream) -> None:
    """Dead in 8 to 9 s, idle or writing. Constants that a platform lacks are left at its defaults."""
    options = [
        (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
        (socket.IPPROTO_TCP, "TCP_KEEPIDLE", KEEPALIVE_IDLE_SECONDS),
        (socket.IPPROTO_TCP, "TCP_KEEPINTVL", KEEPALIVE_INTERVAL_SECONDS),
        (socket.IPPROTO_TCP, "TCP_KEEPCNT", KEEPALIVE_PROBES),
        (socket.IPPROTO_TCP, "TCP_USER_TIMEOUT", UNACKNOWLEDGED_MILLISECONDS_MAX),
    ]
    for level, name, value in options:
        option = getattr(socket, name, None)
        if option is not None:
            with suppress(OSError):  # the peer may have gone already: the next read says so
                stream.setsockopt(level, option, value)


def _own_listening_ports() -> None:
    """SO_REUSEPORT let two processes bind one port without an error and share its connections; and an IPv6 wildcard
    takes IPv4 with it, so that the second of the two binds at one port failed."""

    def set_flags(sock: Any) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)

    libp2p.transport.tcp.tcp._set_reuse_flags = set_flags


class ProtectedConnection(RawConnection):  # type: ignore[misc]
    """A raw connection under the swarm key. Reads ahead, so that the small reads above cost no system call each.

    Its bytes must be cancelled together with the whole connection only: a lost one desynchronises the cipher.
    """

    def __init__(self, conn: Any, psk: str) -> None:
        self._conn = conn
        self._key = bytes.fromhex(psk)
        self._sending: XSalsa20 | None = None
        self._receiving: XSalsa20 | None = None
        self._ahead = memoryview(b"")
        self._first = True
        self.is_initiator = conn.is_initiator

    async def write(self, data: bytes) -> None:
        if self._sending is None:
            nonce = os.urandom(NONCE_BYTES)
            self._sending = XSalsa20(self._key, nonce)
            await self._conn.write(nonce + self._sending.xor(data))
        else:
            await self._conn.write(self._sending.xor(data))

    async def read(self, n: int | None = None) -> bytes:
        if not self._ahead:
            data = await self._receive()
            if n is None or len(data) <= n:
                return data
            self._ahead = memoryview(data)
        end = len(self._ahead) if n is None else n
        taken = bytes(self._ahead[:end])
        self._ahead = self._ahead[end:]
        return taken

    async def _receive(self) -> bytes:
        if self._receiving is None:
            nonce = b""
            while len(nonce) < NONCE_BYTES:
                more = await self._conn.read(NONCE_BYTES - len(nonce))
                if not more:
                    return b""
                nonce += more
            self._receiving = XSalsa20(self._key, nonce)
        data = await self._conn.read(RECEIVE_BYTES)
        plain = self._receiving.xor(data) if data else b""
        if self._first and plain:
            self._first = False
            if plain[: len(GREETING)] != GREETING[: len(plain)]:
                raise RawConnError("the peer has another swarm key")
        return plain

    async def close(self) -> None:
        await self._conn.close()

    def get_remote_address(self) -> Any:
        return self._conn.get_remote_address()

    def get_transport_addresses(self) -> Any:
        return self._conn.get_transport_addresses()

    def get_connection_type(self) -> Any:
        return self._conn.get_connection_type()


def _speak_the_psk_of_the_specification() -> None:
    """The release has Salsa20 with an 8-byte nonce for the specification's XSalsa20 with 24: no Kubo could join."""
    libp2p.network.swarm.new_protected_conn = ProtectedConnection


def _contain_tasks() -> None:
    """An exception in any task of a service (a gossip announcement, a connection's end) cancelled the whole service."""
    cls = libp2p.tools.anyio_service.trio_manager.TrioManager
    original = cls.run_task

    def run_task(self: Any, async_fn: Any, *args: Any, daemon: bool = False, **options: Any) -> None:
        @functools.wraps(async_fn)
        async def contained_task(*args: Any) -> None:
            with contained(f"task {async_fn.__name__}", logging.INFO):
                await async_fn(*args)

        whole_service = daemon or options.get("_internal", False)
        original(self, async_fn if whole_service else contained_task, *args, daemon=daemon, **options)

    cls.run_task = run_task


def _contain_connections() -> None:
    """An exception in a connection's own tasks killed the host; and nothing bounded the streams that a peer opens."""
    cls = libp2p.network.connection.swarm_connection.SwarmConn
    start, handle = cls.start, cls._handle_muxed_stream

    async def contained_start(self: Any) -> None:
        with contained("a connection"):
            await start(self)

    async def contained_handle(self: Any, muxed_stream: Any) -> None:
        with contained("an inbound stream"):
            if len(self.streams) >= STREAMS_PER_CONNECTION_MAX:
                await muxed_stream.reset()
            else:
                await handle(self, muxed_stream)

    cls.start, cls._handle_muxed_stream = contained_start, contained_handle


def _close_half_open_streams() -> None:
    """A `new_stream` cancelled after its SYN kept one of the connection's 256 slots for ever."""
    cls = libp2p.network.connection.swarm_connection.SwarmConn

    async def new_stream(self: Any) -> Any:
        muxed_stream = await self.muxed_conn.open_stream()
        try:
            return await self._add_stream(muxed_stream)
        except BaseException:
            with trio.CancelScope(shield=True), contained("resetting a stream"):
                await muxed_stream.reset()
            raise

    cls.new_stream = new_stream

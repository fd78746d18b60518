"""The patches of libp2p's yamux: cancellation, deadlock, flow control. Applied by `patches.apply`.

The frame is the unit: once its bytes have gone to noise, they must reach the socket, or the cipher's counter is off
and the connection is dead. So a frame's writing is shielded, and bounded by TCP_USER_TIMEOUT instead (`patches`).
"""

import struct
from collections import deque
from typing import Any

import libp2p.stream_muxer.yamux.yamux as library
import trio
from libp2p.network.connection.exceptions import RawConnError
from libp2p.stream_muxer.exceptions import MuxedStreamError

from mesh.net.contain import contained

WINDOW_BYTES = 4 * 1024 * 1024
"""Credit that a stream is given once it has shown that it carries bulk."""

BUFFER_BYTES_MAX = WINDOW_BYTES + 64 * 1024
"""Received and unread of one stream; a peer that sends past its credit loses the stream."""

BUFFERED_BYTES_MAX = 64 * 1024 * 1024
"""Received and unread of one connection, counted over streams that hold more than the initial window."""

REPLIES_MAX = 4096
"""Frames that the read loop owes the peer; one that floods and does not read loses the connection."""

FRAME_BYTES_MAX = 65519
"""Header included: then a frame is one noise message (the default, 65,536, was split in two)."""

_HEADER = struct.Struct(library.YAMUX_HEADER_FORMAT)


def apply() -> None:
    library.MAX_MESSAGE_SIZE = FRAME_BYTES_MAX
    library.MAX_WINDOW_SIZE = BUFFER_BYTES_MAX  # the largest frame that is read at all
    _bound_buffers()
    _shield_frames()
    _reply_from_a_task()
    _open_streams_whole()
    _credit_in_batches()
    _read_and_write_without_locks()
    _contain_start()


class _Buffer(bytearray):
    """A stream's received bytes, with the limit that the library only warns about."""

    owner: "_Buffers"

    def extend(self, data: Any) -> None:
        if len(self) + len(data) > BUFFER_BYTES_MAX:
            raise RawConnError("the peer sent more than its credit")
        if len(self) > library.DEFAULT_WINDOW_SIZE and self.owner.large() + len(data) > BUFFERED_BYTES_MAX:
            raise RawConnError("the peer's streams hold too much that was not read")
        super().extend(data)


class _Buffers(dict[int, bytearray]):
    """The connection's buffers by stream; makes each a `_Buffer`."""

    def __setitem__(self, stream_id: int, buffer: bytearray) -> None:
        bounded = _Buffer(buffer)
        bounded.owner = self
        super().__setitem__(stream_id, bounded)

    def large(self) -> int:
        return sum(len(buffer) for buffer in self.values() if len(buffer) > library.DEFAULT_WINDOW_SIZE)


def _bound_buffers() -> None:
    """The receive window was not enforced: 150 MB went into a stream that nobody read."""
    original = library.Yamux.__init__

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        self.stream_buffers = _Buffers()
        self._reader_task = None
        self._replies = deque()
        self._reply_wanted = trio.Event()

    library.Yamux.__init__ = init


def _shield_frames() -> None:
    """A cancelled write killed the whole connection (noise had encrypted, the bytes were not sent).

    And the read loop itself wrote SYN-ACK and PONG: with both sides' send buffers full, neither read any more. What the
    read loop writes is queued for a task instead.
    """

    async def write_frame(self: Any, data: bytes) -> None:
        if trio.lowlevel.current_task() is self._reader_task:
            if len(self._replies) >= REPLIES_MAX:
                raise RawConnError("the peer floods and does not read")
            self._replies.append(data)
            self._reply_wanted.set()
            return
        with trio.CancelScope(shield=True):
            try:
                self._write_lock.acquire_nowait()
            except trio.WouldBlock:
                await self._write_lock.acquire()
            try:
                await self.secured_conn.write(data)
            finally:
                self._write_lock.release()

    library.Yamux._write_frame = write_frame


def _reply_from_a_task() -> None:
    original = library.Yamux._handle_incoming_with_ready_signal

    async def handle_incoming(self: Any, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        self._reader_task = trio.lowlevel.current_task()
        self._nursery.start_soon(_send_replies, self)
        await original(self, task_status=task_status)

    library.Yamux._handle_incoming_with_ready_signal = handle_incoming


async def _send_replies(conn: Any) -> None:
    with contained("answering a muxer"):
        while True:
            await conn._reply_wanted.wait()
            conn._reply_wanted = trio.Event()
            while conn._replies:
                batch = b"".join(conn._replies)
                conn._replies.clear()
                await conn._write_frame(batch)
    with contained("closing a connection"):
        await conn.secured_conn.close()


def _open_streams_whole() -> None:
    """An opening that was cancelled half-way kept one of the connection's 256 slots for ever."""

    async def open_stream(self: Any) -> Any:
        await self.stream_backlog_semaphore.acquire()
        with trio.CancelScope(shield=True):
            async with self.streams_lock:
                stream_id = self.next_stream_id
                self.next_stream_id += 2
                stream = library.YamuxStream(stream_id, self, True)
                stream._owns_backlog_slot = True
                self.streams[stream_id] = stream
                self.stream_buffers[stream_id] = bytearray()
                self.stream_events[stream_id] = trio.Event()
            try:
                if self.event_shutting_down.is_set():
                    raise RawConnError("the connection is closing")
                await self._write_frame(_HEADER.pack(0, library.TYPE_WINDOW_UPDATE, library.FLAG_SYN, stream_id, 0))
            except Exception as error:
                stream.closed = True
                self.stream_buffers.pop(stream_id, None)
                await self._finalize_stream(stream, fully_closed=True)
                raise MuxedStreamError(f"could not open a stream: {error}") from error
        return stream

    library.Yamux.open_stream = open_stream


def _credit_in_batches() -> None:
    """Each read, even of one byte, sent a window update; and a cancelled one lost the data that was already taken.

    Credit is given back once half of the window is used up. The first grant, at half of the initial 256 KiB, raises the
    window to its full size, so that streams which carry little cost no update at all.
    """

    async def credit(self: Any, *, bytes_read: int = 0) -> None:
        buffered = len(self.conn.stream_buffers.get(self.stream_id, b""))
        available = self.recv_window + buffered
        if available > self.target_recv_window // 2 or self.recv_closed:
            return
        self.target_recv_window = WINDOW_BYTES
        increment = WINDOW_BYTES - available
        self.recv_window += increment
        with trio.CancelScope(shield=True):
            await self.send_window_update(increment)

    library.YamuxStream._auto_tune_and_send_window_update = credit


def _read_and_write_without_locks() -> None:
    """Each read and write took up to four locks, uncontended, at the price of a turn of the scheduler each.

    Nothing here awaits between looking at a stream's state and changing it, so no lock is needed. What is not the plain
    case (an end, a reset, a window at zero) is left to the library.
    """
    slow_read, slow_write = library.YamuxStream.read, library.YamuxStream.write

    async def read(self: Any, n: int | None = -1) -> bytes:
        conn, stream_id = self.conn, self.stream_id
        await trio.lowlevel.checkpoint()
        while n is not None and n > 0:
            buffer = conn.stream_buffers.get(stream_id)
            if buffer:
                with memoryview(buffer) as view:
                    data = bytes(view[:n])
                del buffer[:n]
                if not self.closed:
                    await self._auto_tune_and_send_window_update(bytes_read=len(data))
                elif not buffer:
                    with trio.CancelScope(shield=True):
                        await conn._finalize_stream(self, fully_closed=True)
                return data
            event = conn.stream_events.get(stream_id)
            if event is None or self.recv_closed or self.closed or conn.event_shutting_down.is_set():
                break
            await event.wait()
            if conn.stream_events.get(stream_id) is event:
                conn.stream_events[stream_id] = trio.Event()
        return bytes(await slow_read(self, n))

    async def write(self: Any, data: bytes) -> None:
        sent = 0
        while sent < len(data) and self.send_window > 0 and not self.send_closed and not self.closed:
            await trio.lowlevel.checkpoint_if_cancelled()
            size = min(self.send_window, FRAME_BYTES_MAX - library.HEADER_SIZE, len(data) - sent)
            self.send_window -= size
            header = _HEADER.pack(0, library.TYPE_DATA, 0, self.stream_id, size)
            chunk = data if size == len(data) else data[sent : sent + size]
            await self.conn._write_frame(header + chunk)
            sent += size
        if sent < len(data):
            await slow_write(self, data[sent:])

    library.YamuxStream.read, library.YamuxStream.write = read, write


def _contain_start() -> None:
    """An exception of the muxer's tasks killed the host; the connection is closed in its place."""
    original = library.Yamux.start

    async def start(self: Any) -> None:
        with contained("a muxer"):
            await original(self)
        if not self.event_closed.is_set():
            with contained("closing a muxer"):
                await self._cleanup_on_error()

    library.Yamux.start = start

"""One framed stream and what travels on it: messages, requests and their answers.

Whoever opens a stream (`Channel`) sends messages and requests on it; the other side (`Session`) sends only answers. A
frame (protocols/framing.py) begins with its kind; requests carry an ID and the caller's patience, so that nobody
works on for a caller who has given up; a refusal carries the exit code of its error. A stream that fails takes its
queue and its calls with it.

Bounds: a queue holds `QUEUE_BYTES_MAX`, a stream carries `CALLS_MAX` calls at once. Readers never wait for anything
but the peer, so credit always comes back.
"""

import logging
import math
import struct
from collections import deque
from collections.abc import Callable
from typing import Any

import trio
from libp2p.custom_types import TProtocol
from libp2p.host.exceptions import StreamFailure
from libp2p.network.stream.exceptions import StreamEOF, StreamError
from libp2p.peer.id import ID

from mesh.net.contain import contained
from mesh.ports import MESSAGE_BYTES_MAX, CallHandler, MessageHandler
from protocols.errors import LocalProtocolError, MeshError, NodeUnavailable, RemoteCallError, RemoteProtocolError
from protocols.framing import FrameDecoder, frame
from protocols.ids import PeerId

QUEUE_BYTES_MAX = 8 * 1024 * 1024
QUEUE_FRAMES_MAX = 8192
CALLS_MAX = 64
"""Calls in flight on one stream; more wait for their turn (or are refused, by the side that answers)."""
OPEN_SECONDS_MAX = 5.0
REFUSAL_CHARACTERS_MAX = 2000
READ_BYTES = 256 * 1024
BATCH_BYTES = 60_000
"""Small frames are joined up to this into one write: what yamux and noise cost, they cost per frame."""
CALL_SECONDS_MAX = 3600.0

_MESSAGE, _REQUEST, _ANSWER, _REFUSAL = range(4)
_REQUEST_HEAD = struct.Struct(">BQI")
_ANSWER_HEAD = struct.Struct(">BQ")

log = logging.getLogger(__name__)


class Outbox:
    """The frames that wait for one stream's writer."""

    def __init__(self) -> None:
        self._frames: deque[bytes] = deque()
        self._bytes = 0
        self._wanted = trio.Event()
        self._taken = trio.Event()

    def put(self, payload: bytes) -> bool:
        """Queue one frame; False if there is no room."""
        if self._bytes + len(payload) > QUEUE_BYTES_MAX or len(self._frames) >= QUEUE_FRAMES_MAX:
            return False
        made = frame(payload)
        self._frames.append(made)
        self._bytes += len(made)
        self._wanted.set()
        return True

    async def put_patiently(self, payload: bytes) -> None:
        while not self.put(payload):
            await self._taken.wait()

    async def write_to(self, stream: Any) -> None:
        """Write frames as they come, until the stream fails. A cancelled write spoils the stream: reset it after."""
        while True:
            while not self._frames:
                self._wanted = trio.Event()
                await self._wanted.wait()
            await stream.write(self._batch())
            self._taken.set()
            self._taken = trio.Event()

    def _batch(self) -> bytes:
        first = self._frames.popleft()
        batch, size = [first], len(first)
        while self._frames and size + len(self._frames[0]) <= BATCH_BYTES:
            more = self._frames.popleft()
            batch.append(more)
            size += len(more)
        self._bytes -= size
        return first if len(batch) == 1 else b"".join(batch)


async def read_frames(stream: Any, take: Callable[[bytes], None]) -> None:
    """Give every frame to `take` until the stream ends; an end inside a frame is a `RemoteProtocolError`."""
    decoder = FrameDecoder()
    while True:
        try:
            data = await stream.read(READ_BYTES)
        except StreamEOF:
            data = b""
        if not data:
            decoder.finish()
            return
        for payload in decoder.feed(data):
            take(payload)


class Channel:
    """A stream that we opened, or are about to open."""

    def __init__(self, host: Any, peer: PeerId, protocol: str) -> None:
        self._host = host
        self._peer = peer
        self._protocol = protocol
        self._outbox = Outbox()
        self._calls: dict[int, _Call] = {}
        self._next_id = 0
        self._slots = trio.Semaphore(CALLS_MAX)
        self._reason: MeshError = NodeUnavailable(f"the connection to {peer} was lost")
        self.failure: MeshError | None = None
        """Why no more can be sent; set once the stream is gone."""

    def send(self, payload: bytes) -> bool:
        return self.failure is None and self._outbox.put(bytes([_MESSAGE]) + payload)

    async def call(self, payload: bytes, timeout: float) -> bytes:
        """The answer; `RemoteCallError` if the peer refused, `NodeUnavailable` if the stream broke first."""
        patience = min(0xFFFFFFFF, math.ceil(timeout * 1000))
        async with self._slots:
            self._next_id += 1
            number = self._next_id
            call = self._calls[number] = _Call()
            try:
                if self.failure is None:
                    await self._outbox.put_patiently(_REQUEST_HEAD.pack(_REQUEST, number, patience) + payload)
                if self.failure is None:
                    await call.done.wait()
            finally:
                del self._calls[number]
        if call.answer is not None:
            return call.answer
        raise call.error or self.failure or NodeUnavailable(f"{self._peer} went away")

    async def run(self) -> None:
        """Open the stream and serve it until it ends, whatever the reason."""
        try:
            with contained(f"a stream to {self._peer}"):
                stream = await self._open()
                if stream is not None:
                    await _serve_both_ways(stream, self._outbox, self._take)
        finally:
            self.failure = self._reason
            for call in self._calls.values():
                call.done.set()

    async def _open(self) -> Any:
        try:
            with trio.fail_after(OPEN_SECONDS_MAX):
                return await self._host.new_stream(ID.from_base58(self._peer), [TProtocol(self._protocol)])
        except StreamFailure as error:
            if "protocols not supported" not in str(error.__cause__):
                raise
            self._reason = RemoteCallError(
                f"{self._peer} does not speak {self._protocol}: it runs another version of this program, or is starting"
            )
        except trio.TooSlowError:
            self._reason = NodeUnavailable(f"{self._peer} did not open a stream in {OPEN_SECONDS_MAX:.0f} s")
        return None

    def _take(self, payload: bytes) -> None:
        if len(payload) < _ANSWER_HEAD.size or payload[0] not in (_ANSWER, _REFUSAL):
            raise RemoteProtocolError(f"{self._peer} sent something that is no answer on {self._protocol}")
        kind, number = _ANSWER_HEAD.unpack_from(payload)
        call = self._calls.get(number)
        if call is None:
            return  # its caller gave up
        body = payload[_ANSWER_HEAD.size :]
        if kind == _ANSWER:
            call.answer = body
        else:
            why = body[1:].decode("utf-8", "replace")[:REFUSAL_CHARACTERS_MAX]
            call.error = RemoteCallError(why, body[0] if body else RemoteCallError.exit_code)
        call.done.set()


class _Call:
    __slots__ = ("answer", "done", "error")

    def __init__(self) -> None:
        self.done = trio.Event()
        self.answer: bytes | None = None
        self.error: RemoteCallError | None = None


class Session:
    """A stream that a peer opened."""

    def __init__(self, peer: PeerId, message: MessageHandler | None, call: CallHandler | None) -> None:
        self._peer = peer
        self._message = message
        self._call = call
        self._outbox = Outbox()
        self._running = 0
        self.scope = trio.CancelScope()

    async def run(self, stream: Any) -> None:
        with self.scope:
            async with trio.open_nursery() as self._answering:
                await _serve_both_ways(stream, self._outbox, self._take)
                self._answering.cancel_scope.cancel()

    def _take(self, payload: bytes) -> None:
        kind = payload[0] if payload else None
        if kind == _MESSAGE and self._message is not None:
            with contained("a message handler", logging.ERROR):
                self._message(self._peer, payload[1:])
        elif kind == _REQUEST and len(payload) >= _REQUEST_HEAD.size:
            _, number, patience = _REQUEST_HEAD.unpack_from(payload)
            self._request(number, patience / 1000, payload[_REQUEST_HEAD.size :])
        else:
            raise RemoteProtocolError(f"{self._peer} sent a frame of unknown kind {kind}")

    def _request(self, number: int, patience: float, payload: bytes) -> None:
        if self._call is None:
            self._refuse(number, "this node answers no calls here")
        elif self._running >= CALLS_MAX:
            self._refuse(number, f"this node answers {CALLS_MAX} calls at once, and no more")
        else:
            self._running += 1
            self._answering.start_soon(self._answer, self._call, number, patience, payload)

    async def _answer(self, handler: CallHandler, number: int, patience: float, payload: bytes) -> None:
        try:
            with trio.move_on_after(min(patience, CALL_SECONDS_MAX)):
                try:
                    answer = await answer_call(handler, self._peer, payload)
                except MeshError as error:
                    await self._outbox.put_patiently(_refusal(number, str(error), refusal_code(error)))
                else:
                    await self._outbox.put_patiently(_ANSWER_HEAD.pack(_ANSWER, number) + answer)
        finally:
            self._running -= 1

    def _refuse(self, number: int, why: str) -> None:
        self._outbox.put(_refusal(number, why, RemoteCallError.exit_code))


def _refusal(number: int, why: str, exit_code: int) -> bytes:
    return _ANSWER_HEAD.pack(_REFUSAL, number) + bytes([exit_code]) + why[:REFUSAL_CHARACTERS_MAX].encode()


def refusal_code(error: MeshError) -> int:
    """What the error means to the caller: what is the caller's mistake stays that, an internal one is the mesh's."""
    return RemoteCallError.exit_code if error.exit_code == MeshError.exit_code else error.exit_code


async def answer_call(handler: CallHandler, peer: PeerId, payload: bytes) -> bytes:
    """What `handler` answers; any failure as a `MeshError` whose text may cross to the caller."""
    try:
        answer = await handler(peer, payload)
    except MeshError:
        raise
    except Exception as error:
        log.exception("a call handler failed")
        raise MeshError(f"internal error of the node that was asked ({type(error).__name__})") from error
    if len(answer) > MESSAGE_BYTES_MAX:
        raise LocalProtocolError(f"the answer has {len(answer)} bytes, over the limit of {MESSAGE_BYTES_MAX}")
    return answer


async def _serve_both_ways(stream: Any, outbox: Outbox, take: Callable[[bytes], None]) -> None:
    """Read and write until the peer ends the stream or it fails; then it is gone on both sides."""
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_write, stream, outbox, nursery.cancel_scope)
            try:
                await read_frames(stream, take)
            except StreamError as error:
                log.debug("a stream broke: %r", error)
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True), contained("resetting a stream"):
            await stream.reset()


async def _write(stream: Any, outbox: Outbox, scope: trio.CancelScope) -> None:
    try:
        await outbox.write_to(stream)
    except StreamError as error:
        log.debug("a stream broke: %r", error)
    scope.cancel()

"""Answers that last: a run's events as lines of JSON, a file's bytes.

Both stop as soon as the client is gone. Events are flushed as they come, several a write where several are there; an
empty line says every `KEEP_ALIVE_SECONDS` that the node still lives. A failure in the middle of a run's events is one
last line `{"event": "error", "error", "exit_code"}`; one in the middle of a file cuts the connection, so that nobody
takes a part for the whole.
"""

import json
import logging
from collections.abc import AsyncIterator
from typing import Any

import trio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from protocols.errors import MeshError

KEEP_ALIVE_SECONDS = 10.0

EVENTS_BUFFERED_MAX = 1024

WRITE_BYTES_MAX = 64 * 1024
"""About how much is put in one write."""

log = logging.getLogger("mesh.api")


class EventStream(Response):
    """Events, one JSON object a line, until the last."""

    media_type = "application/x-ndjson"

    def __init__(self, events: AsyncIterator[dict[str, Any]]) -> None:
        super().__init__(headers={"cache-control": "no-store", "x-content-type-options": "nosniff"})
        del self.headers["content-length"]
        self._events = events

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        source, lines = trio.open_memory_channel[bytes](EVENTS_BUFFERED_MAX)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_stop_when_gone, receive, nursery.cancel_scope)
            nursery.start_soon(self._produce, source)
            while True:
                batch = b""
                with trio.move_on_after(KEEP_ALIVE_SECONDS) as waited:
                    try:
                        batch = await lines.receive()
                    except trio.EndOfChannel:
                        break
                batch = b"\n" if waited.cancelled_caught else batch + _more(lines)
                await send({"type": "http.response.body", "body": batch, "more_body": True})
            nursery.cancel_scope.cancel()
        await send({"type": "http.response.body", "body": b""})

    async def _produce(self, lines: trio.MemorySendChannel[bytes]) -> None:
        async with lines:
            try:
                async for event in self._events:
                    await lines.send(_line(event))
            except MeshError as error:
                await lines.send(_line({"event": "error", "error": str(error), "exit_code": error.exit_code}))
            except Exception:
                log.exception("following a run failed")
                await lines.send(_line({"event": "error", "error": INTERNAL, "exit_code": 3}))


INTERNAL = "the node met an internal error; its log has the details"


class FileStream(Response):
    """A file's bytes; `first` is what was read to know that there is a file."""

    media_type = "application/octet-stream"

    def __init__(self, first: bytes, rest: AsyncIterator[bytes]) -> None:
        super().__init__(headers={"x-content-type-options": "nosniff"})
        del self.headers["content-length"]
        self._first = first
        self._rest = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_stop_when_gone, receive, nursery.cancel_scope)
            await send({"type": "http.response.body", "body": self._first, "more_body": True})
            async for piece in self._rest:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            nursery.cancel_scope.cancel()
        await send({"type": "http.response.body", "body": b""})


def _line(event: dict[str, Any]) -> bytes:
    return json.dumps(event, separators=(",", ":")).encode() + b"\n"


def _more(lines: trio.MemoryReceiveChannel[bytes]) -> bytes:
    """What else is there without waiting."""
    held: list[bytes] = []
    size = 0
    while size < WRITE_BYTES_MAX:
        try:
            held.append(lines.receive_nowait())
        except (trio.WouldBlock, trio.EndOfChannel):
            break
        size += len(held[-1])
    return b"".join(held)


async def _stop_when_gone(receive: Receive, scope: trio.CancelScope) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()

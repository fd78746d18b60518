"""Answers that last: a run's events as lines of JSON, a file's bytes.

Both stop as soon as the client is gone. Events are flushed as they come, several a write where several are there; an
empty line says every `KEEP_ALIVE_SECONDS` that the node still lives. A failure in the middle of a run's events is one
last line `{"event": "error", "error", "exit_code"}`; one in the middle of a file cuts the connection, so that nobody
takes a part for the whole.
"""

import json
import logging
from collections.abc import AsyncIterator, Mapping
from typing import Any

import trio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from protocols.errors import MeshError

KEEP_ALIVE_SECONDS = 10.0

BUFFER_BYTES_MAX = 128 * 1024
"""Of events that a slow client has not taken."""

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
        lines = _Lines()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stop_when_gone, receive, nursery.cancel_scope)
            nursery.start_soon(self._produce, lines)
            while not lines.over:
                batch = b"\n"
                with trio.move_on_after(KEEP_ALIVE_SECONDS):
                    batch = await lines.take()
                await send({"type": "http.response.body", "body": batch, "more_body": True})
            nursery.cancel_scope.cancel()
        await send({"type": "http.response.body", "body": b""})

    async def _produce(self, lines: "_Lines") -> None:
        try:
            async for event in self._events:
                await lines.put(event)
        except MeshError as error:
            await lines.put({"event": "error", "error": str(error), "exit_code": error.exit_code})
        except Exception:
            log.exception("following a run failed")
            await lines.put({"event": "error", "error": INTERNAL, "exit_code": 3})
        lines.end()


class _Lines:
    """Between the events and the socket. A burst of events costs one write: putting does not yield while there is room.

    A memory channel hands over one line at a time, a write and two switches each: 7 times slower on 20,000 verdicts.
    """

    def __init__(self) -> None:
        self._held: list[bytes] = []
        self._size = 0
        self._ended = False
        self._news = trio.Event()
        self._room = trio.Event()

    @property
    def over(self) -> bool:
        """Whether all was taken and nothing more comes."""
        return self._ended and not self._held

    async def put(self, event: dict[str, Any]) -> None:
        while self._size >= BUFFER_BYTES_MAX:
            self._room = trio.Event()
            await self._room.wait()
        line = json.dumps(event, separators=(",", ":")).encode() + b"\n"
        self._held.append(line)
        self._size += len(line)
        self._news.set()

    def end(self) -> None:
        self._ended = True
        self._news.set()

    async def take(self) -> bytes:
        """Everything there is, as soon as there is something (nothing: the end)."""
        await self._news.wait()
        self._news = trio.Event()
        taken, self._held, self._size = b"".join(self._held), [], 0
        self._room.set()
        return taken


INTERNAL = "the node met an internal error; its log has the details"


NO_SNIFF = {"x-content-type-options": "nosniff"}


class FileStream(Response):
    """A file's bytes; `first` is what was read to know that there is a file."""

    media_type = "application/octet-stream"

    def __init__(
        self,
        first: bytes,
        rest: AsyncIterator[bytes],
        headers: Mapping[str, str] = NO_SNIFF,
        media_type: str | None = None,
        status: int = 200,
    ) -> None:
        super().__init__(None, status, headers, media_type)
        if "content-length" not in headers:
            del self.headers["content-length"]
        self._first = first
        self._rest = rest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stop_when_gone, receive, nursery.cancel_scope)
            await send({"type": "http.response.body", "body": self._first, "more_body": True})
            async for piece in self._rest:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
            nursery.cancel_scope.cancel()
        await send({"type": "http.response.body", "body": b""})


async def stop_when_gone(receive: Receive, scope: trio.CancelScope) -> None:
    """Cancel the scope once the client has closed the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()

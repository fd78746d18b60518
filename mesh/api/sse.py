"""Server-sent events (the HTML standard, section 9.2): the feed of the mesh as a browser, or curl, follows it.

Whoever lost the connection comes back with the last ID that it saw, in `Last-Event-ID` (which a browser sends by
itself) or in `?after=`, and is told what it missed.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing

import trio
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from mesh.api.checks import digits
from mesh.api.streams import stop_when_gone
from protocols.errors import UsageError

ID_MAX = 2**63 - 1

HEADERS = {
    "cache-control": "no-store",
    "x-accel-buffering": "no",  # a proxy in between is not to wait for more
    "x-content-type-options": "nosniff",
}


def last_seen(request: Request) -> int | None:
    """The ID after which to go on; None: from now on. The header is the newer of the two: it comes with a return."""
    header = request.headers.get("last-event-id", "")
    name, given = ("Last-Event-ID", header) if header else ("after", request.query_params.get("after", ""))
    if not given:
        return None
    seen = digits(given, 19)
    if seen is None or seen > ID_MAX:
        raise UsageError(f"{name!r} must be the ID of an event, a whole number, not {given[:40]!r}")
    return seen


class ServerSentEvents(Response):
    """Pieces of a text/event-stream until they end; the client is gone, or comes back for more."""

    media_type = "text/event-stream"

    def __init__(self, pieces: AsyncGenerator[bytes, None], first: bytes) -> None:
        """`first` is what was read to know that there are any."""
        super().__init__(headers=HEADERS)
        del self.headers["content-length"]
        self._pieces = pieces
        self._first = first

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        async with aclosing(self._pieces), trio.open_nursery() as nursery:
            nursery.start_soon(stop_when_gone, receive, nursery.cancel_scope)
            await send({"type": "http.response.body", "body": self._first, "more_body": True})
            async for piece in self._pieces:
                if piece:
                    await send({"type": "http.response.body", "body": piece, "more_body": True})
            nursery.cancel_scope.cancel()
        await send({"type": "http.response.body", "body": b""})

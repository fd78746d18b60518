"""Who may use the API: an ASGI layer in front of all routes.

Whoever has the token may do everything; whoever has not may ask for `/healthz`, for `/readyz`, and for the page of the
dashboard and its files (which hold no data: the page sends the token itself). `/metrics` has a token of its own, for a
Prometheus, which opens nothing else. A link under `/view/` carries a key made from the token for one CID: it opens what
is under that CID on the gateway, for reading, and the token can't be had from it. On a loopback address the Host header
must name loopback too, so that a web site cannot reach the API through a name that it points here (DNS rebinding). No
cookies: nothing to forge with.
"""

import hmac
import json
from collections.abc import Iterable

from starlette.types import ASGIApp, Receive, Scope, Send

from mesh.api.checks import STATIC, VIEW, view_path

OPEN_PATHS = frozenset({"/", "/healthz", "/readyz"})

METRICS = "/metrics"

LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})


class Guard:
    """Lets a request through to `app`, or answers 401 or 421 itself."""

    def __init__(self, app: ASGIApp, token: str, loopback: bool, scrape_token: str = "") -> None:
        self._app = app
        self._token = token.encode()
        self._scrape_token = scrape_token.encode()
        self._loopback = loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            return
        headers = scope["headers"]
        if self._loopback and _host_name(_header(headers, b"host")) not in LOOPBACK_NAMES:
            await _refuse(send, 421, "the API listens on loopback and is asked for by another host's name")
        elif scope["path"].startswith(VIEW):
            await self._view(scope, receive, send)
        elif not _is_open(scope["path"]) and not self._lets_in(scope["path"], headers):
            await _refuse(send, 401, "the API's token is missing or wrong; it is in api.json of the node's home")
        else:
            await self._app(scope, receive, send)

    async def _view(self, scope: Scope, receive: Receive, send: Send) -> None:
        parts = scope["path"].split("/", 5)  # "", "view", KEY, "ipfs", CID, PATH
        link = view_path(self._token.decode(), parts[4]).encode() if len(parts) > 4 else b""
        raw: bytes = scope.get("raw_path") or b""
        given = raw[: len(link)]
        whole = raw[len(link) : len(link) + 1] in (b"", b"/")
        if not link or not whole or not hmac.compare_digest(given, link) or scope["method"] not in ("GET", "HEAD"):
            await _refuse(send, 401, "this link opens nothing here: a link is of one node, and ends with its token")
            return
        before = len(link) - len("/ipfs/") - len(parts[4])
        inside = {**scope, "path": scope["path"][before:], "raw_path": raw[before:]}
        await self._app(inside, receive, send)

    def _lets_in(self, path: str, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        scheme, _, given = _header(headers, b"authorization").partition(b" ")
        if scheme.lower() != b"bearer":
            return False
        scrapes = path == METRICS and self._scrape_token and hmac.compare_digest(given.strip(), self._scrape_token)
        return bool(scrapes) or hmac.compare_digest(given.strip(), self._token)


def _is_open(path: str) -> bool:
    return path in OPEN_PATHS or path.startswith(STATIC)


def _header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> bytes:
    return next((value for key, value in headers if key.lower() == name), b"")


def _host_name(host: bytes) -> str:
    """Without the port: "[::1]:80" -> "[::1]"."""
    name = host.decode("latin-1").lower()
    head, colon, tail = name.rpartition(":")
    return head if colon and tail.isdigit() else name


async def _refuse(send: Send, status: int, error: str) -> None:
    body = json.dumps({"error": error, "exit_code": 13}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

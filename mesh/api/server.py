"""The listening half of the API: the socket, hypercorn on it, and `HOME/api.json` for as long as it listens.

The socket is bound here, so that port 0 gives a port before anything is announced (that of the node's last life, if it
is free), and an address in use is a sentence. api.json holds the token, so it is never readable by others, is complete
whenever it is there, and goes with the server.
Invariant: a client that stops reading can't hold the node: TCP_USER_TIMEOUT ends writes to it (hypercorn shields them).
"""

import ipaddress
import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol

import trio
from hypercorn.config import Config
from hypercorn.trio import serve
from starlette.types import ASGIApp

from mesh.api.app import Api
from mesh.api.checks import parse_bind
from mesh.api.counting import Counting
from mesh.api.guard import Guard
from mesh.api.lasting import remember_port, remembered_port, write_private
from mesh.api.port import Backend, Metrics
from mesh.api.scrape_token import scrape_token
from mesh.ports import Content
from protocols.errors import UsageError
from protocols.ids import PeerId

STALLED_CLIENT_MS_MAX = 10_000

KEEP_ALIVE_SECONDS = 60.0
"""How long an idle connection of a client is kept."""


class Listening(Protocol):
    """Where the URL goes once the API listens: what `nursery.start` passes."""

    def started(self, value: str) -> None: ...


async def serve_api(
    bind: str,
    token: str,
    backend: Backend,
    content: Content,
    peer: PeerId,
    home: Path,
    metrics: Metrics | None = None,
    *,
    task_status: Listening = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until cancelled; `task_status.started(url)` once it listens and `home/api.json` says so."""
    scrapes = scrape_token(home) if metrics is not None else ""
    listener = _listen(bind, remembered_port(home))
    host, port = listener.getsockname()[:2]
    remember_port(home, port)
    address = ipaddress.ip_address(host.partition("%")[0])
    config = Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.errorlog = logging.getLogger("mesh.api.http")
    config.errorlog.setLevel(logging.WARNING)
    config.keep_alive_timeout = KEEP_ALIVE_SECONDS
    config.include_server_header = False
    guarded: ASGIApp = Guard(Api(backend, content, peer, token, metrics).app(), token, address.is_loopback, scrapes)
    if metrics is not None:
        guarded = Counting(guarded, metrics.measures.api)
    url = f"http://{_reachable(address)}:{port}"
    async with trio.open_nursery() as nursery:
        await nursery.start(serve, guarded, config)
        with _announced(home, {"url": url, "token": token, "peer": peer, "pid": os.getpid()}):
            task_status.started(url)
            await trio.sleep_forever()


def _listen(bind: str, last: int) -> socket.socket:
    """Where port 0 is asked for, at the `last` port if it is free."""
    host, port = parse_bind(bind)
    try:
        if port == 0 and last:
            with suppress(OSError):
                return _bound(host, last)
        return _bound(host, port)
    except OSError as error:
        raise UsageError(f"--api {bind!r}: {error.strerror or error}") from None


def _bound(host: str, port: int) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; accepted sockets inherit all three
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, STALLED_CLIENT_MS_MAX)
        listener.bind(address)
        listener.listen(100)
    except OSError:
        listener.close()
        raise
    return listener


def _reachable(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    """What a client on this host puts into a URL."""
    if address.is_unspecified:
        return "127.0.0.1" if address.version == 4 else "[::1]"
    return f"[{address}]" if address.version == 6 else str(address)


@contextmanager
def _announced(home: Path, document: dict[str, object]) -> Iterator[None]:
    path = home / "api.json"
    write_private(path, json.dumps(document))
    try:
        yield
    finally:
        path.unlink(missing_ok=True)

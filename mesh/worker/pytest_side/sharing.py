"""`mesh_once` and `mesh_lock`: fixtures through which tests of the whole mesh share a value, or do something alone.

A process asks its node, over one connection that it opens when it first needs it; the node answers once it may go on,
or tells it to ask again. When the process dies its connection does, and what it held is free (see worker/sharing.py).
A child that a test forked opens a connection of its own, so that it never ends what its parent holds.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

new_socket = socket.socket
VALUE_BYTES_MAX = 1024 * 1024
NAME_BYTES_MAX = 400
"""Both as on the node's side, or less."""


class SharedError(Exception):
    """The mesh could not do it."""


class Shared:
    """This process's end."""

    def __init__(self, path: str, run: str) -> None:
        self._path = path
        self._run = run
        self._pid = 0
        self._connection: Any = None
        self._rest = b""
        self._held: set[str] = set()

    def once(self, name: str, compute: Callable[[], Any]) -> Any:
        """What `compute` returned in the one process of the run that called it: bytes, or what JSON can hold."""
        key = self._key(self._run, name)
        while True:
            answer = self._request(claim=key)
            if "value" in answer:
                return _loaded(base64.b64decode(answer["value"]))
            if "mine" in answer:
                break
        self._held.add(key)
        try:
            data = _dumped(name, compute())
        except BaseException:
            self._request(settle=key, value=None)
            raise
        finally:
            self._held.discard(key)
        self._request(settle=key, value=base64.b64encode(data).decode())
        return _loaded(data)

    @contextlib.contextmanager
    def lock(self, name: str) -> Iterator[None]:
        """Nobody else in the mesh is inside the same name's block, in whatever run."""
        key = self._key("lock", name)
        while "mine" not in self._request(claim=key):
            pass
        self._held.add(key)
        try:
            yield
        finally:
            self._held.discard(key)
            self._request(settle=key, value=None)

    def _key(self, kind: str, name: str) -> str:
        key = f"{kind}/{name}"
        if len(key.encode()) > NAME_BYTES_MAX:
            raise SharedError(f"a name that tests share has at most {NAME_BYTES_MAX} bytes, not {len(key.encode())}")
        if key in self._held:
            raise SharedError(f"this process holds {name!r} already: waiting for it would never end")
        return key

    def _request(self, **message: Any) -> dict[str, Any]:
        if not self._path:
            raise SharedError("mesh_once and mesh_lock need a node of a mesh")
        try:
            if self._pid != os.getpid():
                self._connection = new_socket(socket.AF_UNIX)
                self._connection.connect(self._path)
                self._pid, self._rest = os.getpid(), b""
            self._connection.sendall(json.dumps(message).encode() + b"\n")
            while b"\n" not in self._rest:
                data = self._connection.recv(65536)
                if not data:
                    raise SharedError("the node closed the connection")
                self._rest += data
        except OSError as error:
            raise SharedError(f"the node does not answer: {error}") from None
        line, _, self._rest = self._rest.partition(b"\n")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise SharedError(answer["error"])
        return answer


def _dumped(name: str, value: Any) -> bytes:
    if isinstance(value, bytes):
        data = b"b" + value
    else:
        try:
            data = b"j" + json.dumps(value).encode()
        except (TypeError, ValueError) as error:
            raise SharedError(f"mesh_once({name!r}) takes bytes, or what JSON can hold: {error}") from None
    if len(data) > VALUE_BYTES_MAX:
        raise SharedError(f"mesh_once({name!r}): a value of {len(data)} bytes, and {VALUE_BYTES_MAX} is the limit")
    return data


def _loaded(data: bytes) -> Any:
    return data[1:] if data[:1] == b"b" else json.loads(data[1:])


@pytest.fixture(scope="session")
def mesh_once(request: pytest.FixtureRequest) -> Callable[[str, Callable[[], Any]], Any]:
    """`mesh_once("database", make)`: what make() returned in the one process of the whole run that called it."""
    shared: Shared = request.config.mesh_shared  # type: ignore[attr-defined]
    return shared.once


@pytest.fixture(scope="session")
def mesh_lock(request: pytest.FixtureRequest) -> Any:
    """`with mesh_lock("licence"): …`, within a test: nobody else in the mesh is inside such a block of that name."""
    shared: Shared = request.config.mesh_shared  # type: ignore[attr-defined]
    return shared.lock

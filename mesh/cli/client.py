"""The commands' side of the HTTP API: synchronous, on the standard library, one connection a request.

Invariants: every wait is bounded, by `--timeout` where given and by `ANSWER_SECONDS_MAX` in any case; a run's events
arrive once each and in order, across lost connections and a node that restarts (the cursor says where to go on).
Rejected: httpx, 200 ms to import, for a handful of requests.
"""

import http.client
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.parse import quote, urlsplit

from protocols.errors import (
    MeshError,
    MeshFailed,
    NoCapableWorker,
    NodeUnavailable,
    NoQuorum,
    NotAuthorised,
    UsageError,
)
from protocols.traceparent import parse_traceparent

ANSWER_SECONDS_MAX = 600.0
"""For any answer to begin: fetching a large tree from other nodes takes its time."""

SILENCE_SECONDS_MAX = 35.0
"""Between two lines of a run's events; the node sends one every 10 s at least."""

RECONNECT_SECONDS_MAX = 30.0
"""How long a node that went away is waited for."""

RETRY_SECONDS = 0.5

READ_BYTES = 64 * 1024

LINE_BYTES_MAX = 16 * 1024 * 1024

_ERRORS: dict[int, type[MeshError]] = {
    4: UsageError,
    10: NoCapableWorker,
    11: NoQuorum,
    12: MeshFailed,
    13: NotAuthorised,
}


class ConnectionLost(NodeUnavailable):
    """No answer, or a part of one: the node is gone, or just restarts."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What api.json says."""

    url: str
    token: str
    peer: str
    pid: int

    @property
    def alive(self) -> bool:
        """Whether the process is there."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True


def read_endpoint(home: Path) -> Endpoint | None:
    """Of the node that runs in `home`; None if none does."""
    path = home / "api.json"
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        found = Endpoint(str(document["url"]), str(document["token"]), str(document["peer"]), int(document["pid"]))
    except FileNotFoundError:
        return None
    except NotADirectoryError:
        raise UsageError(f"--home {home} is not a directory") from None
    except PermissionError:
        raise NotAuthorised(f"{path} belongs to another user: only its owner may talk to that node") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NodeUnavailable(f"{path} is damaged ({type(error).__name__}): restart that node") from None
    return found if found.pid > 0 and found.alive else None


class Client:
    """Requests to one node. `timeout`, in seconds from now, bounds all of them together."""

    def __init__(self, home: Path, endpoint: Endpoint, timeout: float | None) -> None:
        self.home = home
        self.endpoint = endpoint
        self._timeout = timeout
        self._deadline = None if timeout is None else time.monotonic() + timeout

    def get(self, path: str) -> Any:
        return self._json("GET", path, None)

    def post(self, path: str, document: dict[str, Any]) -> Any:
        return self._json("POST", path, document)

    def delete(self, path: str) -> Any:
        return self._json("DELETE", path, None)

    def add(self, path: Path, names: Sequence[str] | None = None) -> str:
        """The CID of a file or tree of this host, of a tree only `names`."""
        return str(self.post("/api/content", {"path": str(path), "names": names})["cid"])

    def submit(self, nonce: bytes, spec: dict[str, Any]) -> str:
        """The run's ID, under this process's trace context. Sent again while the node restarts: the nonce makes that
        harmless."""
        trace = os.environ.get("TRACEPARENT", "").strip()
        trace = trace if parse_traceparent(trace) else ""
        give_up = time.monotonic() + RECONNECT_SECONDS_MAX
        while True:
            try:
                return str(self.post("/api/runs", {"nonce": nonce.hex(), "spec": spec | {"trace": trace}})["run"])
            except ConnectionLost:
                self._pause(give_up)

    def events(self, run: str, cursor: int = 0, whole: bool = False) -> Iterator[dict[str, Any]]:
        """The events of a run after its `cursor`-th verdict, to `finished`; each verdict once. See `Backend.follow`."""
        give_up = time.monotonic() + RECONNECT_SECONDS_MAX
        while True:
            try:
                for event in self._lines(f"/api/runs/{run}/events?cursor={cursor}&whole={whole:d}"):
                    cursor = event["cursor"]
                    yield event
                    give_up = time.monotonic() + RECONNECT_SECONDS_MAX
                    if event["event"] == "finished":
                        return
            except ConnectionLost as lost:
                try:
                    self._pause(give_up)
                except ConnectionLost:
                    raise NodeUnavailable(f"{lost}; run {run} goes on without it if other nodes live") from None

    def output(self, run: str, test: str) -> Iterator[dict[str, Any]]:
        """What the run's tests print from now on, and their verdicts."""
        for event in self._lines(f"/api/runs/{run}/output?test={quote(test, safe='')}"):
            if event["event"] == "ended":
                return
            yield event

    def read(self, cid: str, path: str = "") -> Iterator[bytes]:
        """The bytes of a file; a stream cut short is `ConnectionLost`."""
        return self._bytes(f"/api/content/{cid}?path={quote(path, safe='')}")

    def resolve(self, cid: str, path: str) -> str:
        """The CID of what lies at `path` below `cid`; `UsageError` if nothing does."""
        connection, answer = self._open("GET", f"/ipfs/{cid}/{quote(path)}?format=raw", None)
        connection.close()
        way = answer.headers.get("x-ipfs-roots", "")
        return way.rpartition(",")[2]

    def snapshot(self) -> bytes:
        """What the mesh agreed on up to now, as the file of `mesh snapshot`."""
        return b"".join(self._bytes("/api/snapshot"))

    def _bytes(self, path: str) -> Iterator[bytes]:
        connection, answer = self._open("GET", path, None)
        try:
            while True:
                with self._failures():
                    piece = answer.read(READ_BYTES)
                if not piece:
                    return
                yield piece
        finally:
            connection.close()

    def _lines(self, path: str) -> Iterator[dict[str, Any]]:
        """One object a line, for as long as the caller wants more; an error in it is raised."""
        for line in self.lines(path, {}, SILENCE_SECONDS_MAX):
            if line:
                event = json.loads(line)
                if event["event"] == "error":
                    raise _ERRORS.get(event["exit_code"], MeshError)(event["error"])
                yield event

    def lines(self, path: str, headers: Mapping[str, str], silence: float) -> Iterator[str]:
        """Lines of text as they come, at most `silence` seconds apart; a stream that ends is `ConnectionLost`."""
        connection, answer = self._open("GET", path, None, headers)
        part = b""
        try:
            while True:
                if connection.sock is not None:
                    connection.sock.settimeout(self._remaining(silence))
                with self._failures():
                    piece = answer.read1(READ_BYTES)
                if not piece or len(part) > LINE_BYTES_MAX:
                    raise ConnectionLost(f"the node at {self.endpoint.url} closed the connection")
                *lines, part = (part + piece).split(b"\n")
                for line in lines:
                    yield line.decode()
        finally:
            connection.close()

    def _json(self, method: str, path: str, document: dict[str, Any] | None) -> Any:
        connection, answer = self._open(method, path, document)
        try:
            with self._failures():
                return json.loads(answer.read())
        finally:
            connection.close()

    def _open(
        self, method: str, path: str, document: dict[str, Any] | None, more: Mapping[str, str] = MappingProxyType({})
    ) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        """A good answer whose body is still to be read; a bad one is raised as the error that it tells."""
        body = None if document is None else json.dumps(document).encode()
        headers = {"authorization": f"Bearer {self.endpoint.token}", "content-type": "application/json", **more}
        split = urlsplit(self.endpoint.url)
        wait = self._remaining(ANSWER_SECONDS_MAX)
        connection = http.client.HTTPConnection(split.hostname or "", split.port, timeout=wait)
        try:
            with self._failures():
                connection.request(method, path, body, headers)
                answer = connection.getresponse()
                if answer.status < 300:
                    return connection, answer
                raw = answer.read(LINE_BYTES_MAX)
        except BaseException:
            connection.close()
            raise
        connection.close()
        try:
            told = json.loads(raw)
            error, code = str(told["error"]), int(told["exit_code"])
        except (ValueError, KeyError, TypeError):
            error, code = f"{self.endpoint.url} answers with HTTP {answer.status}: is it a node's API?", 12
        raise _ERRORS.get(code, MeshError)(error)

    def _failures(self) -> "_Failures":
        return _Failures(self)

    def _remaining(self, most: float) -> float:
        if self._deadline is None:
            return most
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise self.late()
        return min(left, most)

    def late(self) -> NodeUnavailable:
        if self._timeout is None:
            return ConnectionLost(f"the node at {self.endpoint.url} is silent")
        return NodeUnavailable(f"no end within {self._timeout:g} s (--timeout)")

    def _pause(self, give_up: float) -> None:
        """Wait a little for the node to come back, perhaps at another port."""
        if time.monotonic() > give_up:
            raise ConnectionLost(f"the node of {self.home} went away and did not come back")
        time.sleep(self._remaining(RETRY_SECONDS))
        self.find_again()

    def find_again(self) -> None:
        """The node may be back at another port."""
        self.endpoint = read_endpoint(self.home) or self.endpoint


class _Failures:
    """Turns what can go wrong on a connection into our errors."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, TimeoutError):
            raise self._client.late() from None
        if isinstance(error, OSError | http.client.HTTPException | ValueError):
            raise ConnectionLost(f"the node at {self._client.endpoint.url} does not answer ({_words(error)})") from None


def _words(error: BaseException) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or type(error).__name__

"""A Kubo daemon that is gone, restarts or refuses: always one plain error of ours (the real daemon is in interop)."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import httpx
import pytest
import trio

from mesh.content.bitswap.wants import Sources
from mesh.content.fetching import Fetch
from mesh.content.kubo import KuboExchange, KuboRepository
from mesh.content.pins import PinBook
from mesh.content.unixfs.cid import cid_of
from mesh.ports import PinOwner
from protocols.errors import ContentNotFound, NodeUnavailable, RemoteProtocolError, StorageError
from protocols.ids import NO_RUN, Cid

pytestmark = pytest.mark.filterwarnings("ignore:The .strict. parameter:FutureWarning")

ROOT = cid_of(b"root")
REFUSAL = json.dumps({"Message": "out of order", "Code": 0, "Type": "error"}).encode()


def answer(status: str, body: bytes, length: int | None = None) -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length or len(body)}\r\n"
    return head.encode() + b"Connection: close\r\n\r\n" + body


async def give(text: bytes, stream: trio.SocketStream) -> None:
    async with stream:
        await stream.receive_some(65536)
        await stream.send_all(text)


@asynccontextmanager
async def daemon(text: bytes) -> AsyncIterator[KuboRepository]:
    """The repository of a daemon that answers `text` whatever it is asked; with "", it closes each connection."""
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, partial(give, text), 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}/api/v0/", trust_env=False) as http:
            repository = KuboRepository(f"/ip4/127.0.0.1/tcp/{port}", http, PinBook(None))
            yield repository
            repository.close()
        nursery.cancel_scope.cancel()


async def error_of(call: Callable[[], object]) -> BaseException:
    """What leaves a call, as it is, also when that is a group."""
    with trio.fail_after(20):
        try:
            await call()  # type: ignore[misc]
        except Exception as error:
            return error
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize("text", [b"", answer("200 OK", b'{"Key": '), answer("200 OK", b"{", 100)])
async def test_a_daemon_that_restarts_during_a_fetch_is_one_plain_error(text: bytes) -> None:
    async with daemon(text) as repository:
        exchange = KuboExchange(None, repository)
        for call in (
            lambda: Fetch(repository, exchange, (), 5.0).run(ROOT),
            lambda: repository.has_many([ROOT, cid_of(b"another")]),
            lambda: repository.has_whole(ROOT),
            repository.version,
            repository.stat,
        ):
            error = await error_of(call)
            assert type(error) is NodeUnavailable
            assert "does not answer" in str(error)


async def test_a_daemon_that_refuses_is_one_plain_error() -> None:
    async with daemon(answer("500 Internal Server Error", REFUSAL)) as repository:
        assert await repository.has_many([ROOT]) == [False]
        await repository.unpin([(ROOT, PinOwner.USER, NO_RUN)])
        for call in (repository.stat, repository.kept, repository.version):
            error = await error_of(call)
            assert type(error) is StorageError
            assert "refuses: out of order" in str(error)
        error = await error_of(lambda: repository.pin([ROOT], PinOwner.USER, "a report"))
        assert type(error) is ContentNotFound
        assert str(error).endswith(f"can't pin {ROOT}: out of order")


class Failing:
    """An exchange that meets an error instead of a block."""

    async def get(self, cid: Cid, sources: Sources) -> bytes:
        await trio.lowlevel.checkpoint()
        raise RemoteProtocolError(f"no sense in {cid}")

    def stored(self, cids: object) -> None:
        raise AssertionError("nothing was stored")


async def test_an_error_of_the_mesh_comes_out_as_it_is() -> None:
    async with daemon(b"") as repository:
        exchange = KuboExchange(Failing(), repository)  # type: ignore[arg-type]
        error = await error_of(lambda: exchange.get(ROOT, Sources()))
        assert type(error) is RemoteProtocolError

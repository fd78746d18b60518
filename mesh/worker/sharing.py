"""The node's end of `mesh_once` and `mesh_lock`: a Unix socket that the slots of one run connect to.

Lines of JSON: {"claim": name} is answered by {"mine": true}, {"value": base64} or {}, which means ask again;
{"settle": name, "value": base64 or null} by {}. A process has one connection for all that it claims: when that ends,
because it died or is done, what it still holds is given up.
"""

import base64
import itertools
import json
import shutil
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import trio

from mesh.ports import Content
from mesh.worker.leftovers import temporary_folder
from protocols.errors import MeshError
from protocols.ids import Cid, RunId
from protocols.work import NameClaimed

VALUE_BYTES_MAX = 1024 * 1024
"""Of a value that tests share; larger ones are artifacts, or files in a place of the suite's own."""
CONNECTIONS_WAITING_MAX = 64
LINE_BYTES_MAX = 2 * VALUE_BYTES_MAX
GIVE_UP_SECONDS = 10.0
"""For telling the coordinator that a dead process holds nothing any more; its lease's end says so too."""

_holders = itertools.count(1)


class Names(Protocol):
    """The coordinator's answers, whoever that is now; each request is repeated until there is one."""

    async def claim(self, run: RunId, name: str, holder: int) -> NameClaimed: ...

    async def settle(self, run: RunId, name: str, holder: int, value: Cid | None) -> None: ...


class Shares:
    """Serves one run's slots on this host."""

    def __init__(self, names: Names, content: Content, run: RunId) -> None:
        self._names = names
        self._content = content
        self._run = run

    @asynccontextmanager
    async def serving(self) -> AsyncGenerator[Path, None]:
        """Where it listens, in a folder that is gone afterwards."""
        folder = temporary_folder("share")
        try:
            listening = trio.socket.socket(trio.socket.AF_UNIX, trio.socket.SOCK_STREAM)
            await listening.bind(str(folder / "socket"))
            listening.listen(CONNECTIONS_WAITING_MAX)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(partial(trio.serve_listeners, self._serve, [trio.SocketListener(listening)]))
                try:
                    yield folder / "socket"
                finally:
                    nursery.cancel_scope.cancel()
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    async def _serve(self, stream: trio.SocketStream) -> None:
        holder, held = next(_holders), set[str]()
        try:
            async with aclosing(self._lines(stream)) as lines:
                async for request in lines:
                    try:
                        answer = await self._answer(request, holder, held)
                    except MeshError as error:
                        answer = {"error": str(error)}
                    await stream.send_all(json.dumps(answer).encode() + b"\n")
        except (trio.BrokenResourceError, trio.ClosedResourceError, ValueError, KeyError, TypeError):
            pass  # it died, or speaks nonsense
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(GIVE_UP_SECONDS):
                await trio.aclose_forcefully(stream)
                for name in sorted(held):
                    await self._names.settle(self._run, name, holder, None)

    async def _lines(self, stream: trio.SocketStream) -> AsyncGenerator[dict[str, Any], None]:
        buffer = bytearray()
        while True:
            data = await stream.receive_some(64 * 1024)
            buffer += data
            if not data or len(buffer) > LINE_BYTES_MAX:
                return
            while b"\n" in buffer:
                line, _, rest = bytes(buffer).partition(b"\n")
                buffer[:] = rest
                yield json.loads(line)

    async def _answer(self, request: dict[str, Any], holder: int, held: set[str]) -> dict[str, Any]:
        if "claim" in request:
            name = str(request["claim"])
            claimed = await self._names.claim(self._run, name, holder)
            if claimed.mine:
                held.add(name)
                return {"mine": True}
            if claimed.value is None:
                return {}
            data = await self._content.get(claimed.value, claimed.holders)
            return {"value": base64.b64encode(data).decode()}
        name, encoded = str(request["settle"]), request.get("value")
        cid = None if encoded is None else await self._content.put(base64.b64decode(encoded))
        if cid is not None:
            await self._content.hold([cid], f"run {self._run}", self._run)
        await self._names.settle(self._run, name, holder, cid)
        held.discard(name)
        return {}

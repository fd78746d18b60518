"""The routes: each asks the `Backend` or the `Content` port and answers with JSON, or with a stream.

Every `MeshError` becomes `{"error": sentence, "exit_code": n}` under a fitting status; what is not a `MeshError` is a
bug of ours: logged, and answered with 500 and exit code 3. Nothing is kept here between two requests.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from mesh.api import parse
from mesh.api.alerts import AlertRoutes
from mesh.api.checks import digits, parse_cid, parse_run
from mesh.api.dashboard import Dashboard
from mesh.api.details import DetailRoutes
from mesh.api.gateway import Gateway, GatewayError
from mesh.api.nodes import NodeRoutes
from mesh.api.openapi import openapi
from mesh.api.past import PastRoutes
from mesh.api.port import Backend, Metrics
from mesh.api.sse import ServerSentEvents, last_seen
from mesh.api.streams import INTERNAL, EventStream, FileStream
from mesh.ports import Content
from mesh.views.documents import record_document
from protocols.commands import REPLICAS_DEFAULT, REPLICAS_MAX
from protocols.errors import ContentNotFound, MeshError, NodeUnavailable, StorageError, UsageError
from protocols.ids import Cid, PeerId
from protocols.work import CommandVerb

CURSOR_MAX = 2**53

STATUS_OF_EXIT = {3: 500, 4: 400, 10: 409, 11: 503, 12: 502, 13: 401}

HEAL_SECONDS = 5.0
"""How long other nodes are asked for a block that is damaged here."""

HEALS_MAX = 32
"""How often that is done for one tree: damaged blocks are found as they are read, a few at a time."""

log = logging.getLogger("mesh.api")

Handler = Callable[[Request], Awaitable[Response]]


class Api:
    """One node's HTTP API."""

    def __init__(
        self, backend: Backend, content: Content, peer: PeerId, token: str, metrics: Metrics | None = None
    ) -> None:
        self._backend = backend
        self._content = content
        self._peer = peer
        self._metrics = metrics
        self._dashboard = Dashboard(token)

    def app(self) -> Starlette:
        get, post, delete = ["GET"], ["POST"], ["DELETE"]
        past, alerts = PastRoutes(self._backend), AlertRoutes(self._backend)
        details, nodes = DetailRoutes(self._backend, self._peer), NodeRoutes(self._backend)
        table: list[tuple[str, Handler, list[str]]] = [
            ("/", self._dashboard.page, get),
            ("/static/{build}/{name:path}", self._dashboard.file, get),
            ("/healthz", self.health, get),
            ("/readyz", details.ready, get),
            ("/metrics", self.metrics, get),
            ("/api/openapi.json", openapi, get),
            ("/api/status", self.status, get),
            ("/api/ticket", self.ticket, get),
            ("/api/topology", self.topology, get),
            ("/api/overview", self.overview, get),
            ("/api/raft", self.raft, get),
            ("/api/nodes/{node}/history", nodes.history, get),
            ("/api/nodes/{node}/runs", nodes.runs, get),
            ("/api/events", self.feed, get),
            ("/api/snapshot", self.snapshot, get),
            ("/api/runs", self.runs, get),
            ("/api/runs", self.submit, post),
            ("/api/runs/{run}", self.run, get),
            ("/api/runs/{run}/events", self.events, get),
            ("/api/runs/{run}/output", self.output, get),
            ("/api/runs/{run}/tests", details.tests, get),
            ("/api/runs/{run}/tests/{index}", details.test, get),
            ("/api/runs/{run}/timeline", details.timeline, get),
            ("/api/queue", details.queue, get),
            ("/api/runs/{run}/cancel", self.cancel, post),
            ("/api/why/{target:path}", self.why, get),
            ("/api/plan", self.plan, post),
            ("/api/records/{cid}", self.record, get),
            ("/api/link/{cid}", self._dashboard.link, get),
            ("/api/projects", past.projects, get),
            ("/api/trends", past.trends, get),
            ("/api/tests", past.tests, get),
            ("/api/history/rebuild", past.rebuild, post),
            ("/api/alerts", alerts.listing, get),
            ("/api/alerts/{alert}/acknowledge", alerts.acknowledge, post),
            ("/api/content", self.add, post),
            ("/api/content/{cid}", self.read, get),
            ("/api/checkout", self.checkout, post),
            ("/api/export", self.export, post),
            ("/api/import", self.import_, post),
            ("/api/pins", self.pins, get),
            ("/api/pins", self.pin, post),
            ("/api/pins/{cid}", self.unpin, delete),
            ("/api/command", self.command, post),
            ("/ipfs/{path:path}", Gateway(self._content).answer, get),
        ]
        routes = [Route(path, _answering(handler), methods=methods) for path, handler, methods in table]
        return Starlette(routes=routes, exception_handlers={404: _no_route, 405: _no_route})

    async def health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok", "peer": self._peer})

    async def metrics(self, request: Request) -> Response:
        if self._metrics is None:
            raise UsageError("this node counts nothing")
        text, content_type = await self._metrics.text(request.headers.get("accept", ""))
        return Response(text, headers={"content-type": content_type, "cache-control": "no-store"})

    async def status(self, request: Request) -> Response:
        return JSONResponse(await self._backend.status())

    async def ticket(self, request: Request) -> Response:
        return JSONResponse({"ticket": await self._backend.ticket()}, headers={"cache-control": "no-store"})

    async def topology(self, request: Request) -> Response:
        return JSONResponse(await self._backend.topology())

    async def overview(self, request: Request) -> Response:
        return JSONResponse(await self._backend.overview())

    async def raft(self, request: Request) -> Response:
        return JSONResponse(await self._backend.raft())

    async def feed(self, request: Request) -> Response:
        """What happens in the mesh, to whoever watches."""
        after = last_seen(request)
        if request.method == "HEAD":
            return Response(media_type=ServerSentEvents.media_type)
        pieces = self._backend.feed.listen(after)
        return ServerSentEvents(pieces, await anext(pieces, b""))

    async def snapshot(self, request: Request) -> Response:
        return Response(
            await self._backend.snapshot(),
            media_type="application/octet-stream",
            headers={"cache-control": "no-store", "x-content-type-options": "nosniff"},
        )

    async def runs(self, request: Request) -> Response:
        return JSONResponse(await self._backend.runs())

    async def submit(self, request: Request) -> Response:
        document = await parse.body(request)
        nonce = parse.nonce(parse.text(document, "nonce"))
        run = await self._backend.submit(nonce, parse.spec(document.get("spec"), self._peer))
        return JSONResponse({"run": str(run)}, status_code=201)

    async def run(self, request: Request) -> Response:
        return JSONResponse(await self._backend.run(parse_run(request.path_params["run"])))

    async def events(self, request: Request) -> Response:
        run = parse_run(request.path_params["run"])
        given = request.query_params.get("cursor", "0")
        cursor = digits(given, 16)
        if cursor is None or cursor > CURSOR_MAX:
            raise UsageError(f"'cursor' must be a whole number, not {given[:40]!r}")
        return EventStream(self._backend.follow(run, cursor, request.query_params.get("whole") == "1"))

    async def output(self, request: Request) -> Response:
        run = parse_run(request.path_params["run"])
        return EventStream(self._backend.output(run, request.query_params.get("test", "")))

    async def cancel(self, request: Request) -> Response:
        run = parse_run(request.path_params["run"])
        await self._backend.cancel(run)
        return JSONResponse({"run": str(run)})

    async def why(self, request: Request) -> Response:
        return JSONResponse(await self._backend.why(request.path_params["target"]))

    async def plan(self, request: Request) -> Response:
        """Rehearses runs that are not submitted."""
        specs, manifests = parse.plan(await parse.body(request, parse.PLAN_BYTES_MAX), self._peer)
        return JSONResponse(await self._backend.plan(specs, manifests))

    async def record(self, request: Request) -> Response:
        record = await self._backend.record(parse_cid(request.path_params["cid"]))
        return JSONResponse(record_document(record))

    async def add(self, request: Request) -> Response:
        document = await parse.body(request, parse.NAMES_BYTES_MAX)
        path = _absolute(document, "path")
        names = document.get("names")
        if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
            raise UsageError("'names' must be a list of strings, or null for all")
        return JSONResponse({"cid": await self._content.add_path(path, names)}, status_code=201)

    async def read(self, request: Request) -> Response:
        cid = parse_cid(request.path_params["cid"])
        pieces = aiter(self._content.read(cid, request.query_params.get("path", "")))
        return FileStream(await anext(pieces, b""), pieces)

    async def checkout(self, request: Request) -> Response:
        """Fetches the tree and writes it to a path that does not exist, or is an empty directory."""
        document = await parse.body(request)
        cid, target = parse_cid(parse.text(document, "cid")), _absolute(document, "target")
        _check_vacant(target)
        await self._content.fetch(cid)
        _check_vacant(target)
        if target.is_dir():
            target.rmdir()
        for heals_left in reversed(range(HEALS_MAX)):
            try:
                await self._content.checkout(cid, target)
                break
            except ContentNotFound:  # all of it was here: a block is damaged, and does not count as being here any more
                if not heals_left:
                    raise
                await self._heal(cid)
        return JSONResponse({"cid": cid, "target": str(target)})

    async def export(self, request: Request) -> Response:
        """Fetches all that is under a root and writes it to a CAR file that does not exist yet."""
        document = await parse.body(request)
        cid, target = parse_cid(parse.text(document, "cid")), _absolute(document, "target")
        made = await self._content.export_archive(cid, target)
        return JSONResponse({"cid": cid, "target": str(target), "blocks": made.blocks, "bytes": made.bytes})

    async def import_(self, request: Request) -> Response:
        found = await self._content.import_archive(_absolute(await parse.body(request), "path"))
        whole = [{"cid": root, "whole": await self._content.has(root)} for root in found.roots]
        return JSONResponse({"roots": whole, "blocks": found.blocks, "bytes": found.bytes}, status_code=201)

    async def _heal(self, cid: Cid) -> None:
        """Have another node's copy of what is damaged here."""
        try:
            await self._content.fetch(cid, timeout=HEAL_SECONDS)
        except ContentNotFound as error:
            raise StorageError(f"a block of {cid} is damaged on this node's disk, and {error}") from None

    async def pins(self, request: Request) -> Response:
        return JSONResponse(await self._backend.pins())

    async def pin(self, request: Request) -> Response:
        document = await parse.body(request)
        cid, replicas = parse_cid(parse.text(document, "cid")), document.get("replicas", REPLICAS_DEFAULT)
        if type(replicas) is not int or not 1 <= replicas <= REPLICAS_MAX:
            raise UsageError(f"'replicas' must be a whole number from 1 to {REPLICAS_MAX}, not {replicas!r:.40}")
        return JSONResponse({**await self._backend.pin(cid, replicas), "cid": cid}, status_code=201)

    async def unpin(self, request: Request) -> Response:
        cid = parse_cid(request.path_params["cid"])
        return JSONResponse({**await self._backend.unpin(cid), "cid": cid})

    async def command(self, request: Request) -> Response:
        document = await parse.body(request)
        node, verb = parse.text(document, "node"), parse.text(document, "verb")
        if verb not in list(CommandVerb):
            raise UsageError(f"{verb!r} is not a command; known are {', '.join(CommandVerb)}")
        await self._backend.command(node, CommandVerb(verb))
        return JSONResponse({"node": node, "verb": verb})


def _answering(handler: Handler) -> Handler:
    """The handler, with every error turned into its answer."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except GatewayError as error:
            return _failure(str(error), error.exit_code, error.status, error.headers)
        except MeshError as error:
            return _failure(str(error), error.exit_code, _status(error))
        except Exception:
            log.exception("%s %s failed", request.method, request.url.path)
            return _failure(INTERNAL, 3, 500)

    return answer


def _status(error: MeshError) -> int:
    if isinstance(error, ContentNotFound):
        return 404
    if isinstance(error, NodeUnavailable):
        return 504
    return STATUS_OF_EXIT.get(error.exit_code, 500)


async def _no_route(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    return _failure(f"the API has no {request.method} {request.url.path}", 4, status)


def _failure(error: str, exit_code: int, status: int, headers: Mapping[str, str] | None = None) -> Response:
    return JSONResponse({"error": error, "exit_code": exit_code}, status_code=status, headers=headers)


def _absolute(document: dict[str, object], name: str) -> Path:
    path = Path(parse.text(document, name))
    if not path.is_absolute() or "\0" in str(path):
        raise UsageError(f"{name!r} must be an absolute path on the node's host, not {str(path)[:200]!r}")
    return path


def _check_vacant(target: Path) -> None:
    if target.is_symlink() or (target.exists() and not (target.is_dir() and not any(target.iterdir()))):
        raise UsageError(f"{target} exists already; name a path that does not, or an empty directory")

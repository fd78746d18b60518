"""The routes that tell what goes on in a run, test by test, and what waits; and whether this node is of use.

Each checks what was asked for and hands it to the `Details` or the `Feed` port.
"""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mesh.api.checks import digits, parse_run
from mesh.api.port import Backend
from mesh.views.tests_table import LIMIT_DEFAULT, Wanted
from protocols.errors import UsageError
from protocols.ids import PeerId

NUMBER_DIGITS_MAX = 9


class DetailRoutes:
    def __init__(self, backend: Backend, peer: PeerId) -> None:
        self._backend = backend
        self._peer = peer

    async def ready(self, request: Request) -> Response:
        reasons = await self._backend.feed.ready()
        document = {"ready": not reasons, "peer": self._peer, "reasons": reasons}
        return JSONResponse(document, 503 if reasons else 200, {"cache-control": "no-store"})

    async def tests(self, request: Request) -> Response:
        asked = request.query_params
        wanted = Wanted(
            outcome=asked.get("outcome", ""),
            search=asked.get("search", ""),
            sort=asked.get("sort", "index"),
            order=asked.get("order", "asc"),
            offset=_number("offset", asked.get("offset", "0")),
            limit=_number("limit", asked.get("limit", str(LIMIT_DEFAULT))),
        )
        return _json(await self._backend.details.tests(parse_run(request.path_params["run"]), wanted))

    async def test(self, request: Request) -> Response:
        run, index = parse_run(request.path_params["run"]), _number("test", request.path_params["index"])
        return JSONResponse(await self._backend.details.test(run, index))

    async def timeline(self, request: Request) -> Response:
        return _json(await self._backend.details.timeline(parse_run(request.path_params["run"])))

    async def queue(self, request: Request) -> Response:
        return _json(await self._backend.details.queue())


def _json(document: bytes) -> Response:
    return Response(document, media_type="application/json")


def _number(name: str, text: str) -> int:
    number = digits(text, NUMBER_DIGITS_MAX)
    if number is None:
        raise UsageError(f"{name!r} must be a whole number, not {text[:40]!r}")
    return number

"""Routes of past runs: projects, a project's trends, a test over time; and a history out of reports."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mesh.api import parse
from mesh.api.checks import parse_cid
from mesh.api.parse import asked_number
from mesh.api.port import Backend
from protocols.errors import UsageError

RUNS_DEFAULT, RUNS_MAX = 200, 500
SEEN_DEFAULT, SEEN_MAX = 100, 1_000
REPORTS_MAX = 1_000
"""In one request to rebuild."""

TEXT_CHARACTERS_MAX = 4_000
"""Of a project's name, or a test's ID."""


class PastRoutes:
    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def projects(self, request: Request) -> Response:
        return JSONResponse(await self._backend.past("projects", {}))

    async def trends(self, request: Request) -> Response:
        asked = {"project": _text(request, "project"), "limit": asked_number(request, "limit", RUNS_DEFAULT, RUNS_MAX)}
        return JSONResponse(await self._backend.past("trends", asked))

    async def tests(self, request: Request) -> Response:
        asked = {
            "project": _text(request, "project"),
            "test": _text(request, "test"),
            "limit": asked_number(request, "limit", SEEN_DEFAULT, SEEN_MAX),
        }
        return JSONResponse(await self._backend.past("seen", asked))

    async def rebuild(self, request: Request) -> Response:
        reports = (await parse.body(request)).get("reports")
        if reports is None:
            return JSONResponse(await self._backend.rebuild(None))
        if not isinstance(reports, list) or len(reports) > REPORTS_MAX or not all(isinstance(r, str) for r in reports):
            raise UsageError(f"'reports' must be a list of at most {REPORTS_MAX} CIDs, or null for all that are known")
        return JSONResponse(await self._backend.rebuild([parse_cid(report) for report in reports]))


def _text(request: Request, name: str) -> str:
    given = request.query_params.get(name, "")
    if not 0 < len(given) <= TEXT_CHARACTERS_MAX:
        raise UsageError(f"{name!r} must be given in the query, with at most {TEXT_CHARACTERS_MAX} characters")
    return given

"""Routes of alerts: what there is, and that somebody knows."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mesh.api import parse
from mesh.api.port import Backend


class AlertRoutes:
    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def listing(self, request: Request) -> Response:
        return JSONResponse(await self._backend.alerts())

    async def acknowledge(self, request: Request) -> Response:
        by = parse.text(await parse.body(request), "by")
        return JSONResponse(await self._backend.acknowledge(request.path_params["alert"], by))

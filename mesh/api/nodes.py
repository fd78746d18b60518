"""Routes of one node: how busy it was over the last hours, and what it ran lately."""

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mesh.api.parse import asked_number
from mesh.api.port import Backend
from mesh.views.load_history import STEP_SECONDS, STEPS

HOURS_MAX = STEPS * STEP_SECONDS // 3600
RUNS_DEFAULT, RUNS_MAX = 20, 200


class NodeRoutes:
    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def history(self, request: Request) -> Response:
        hours = asked_number(request, "hours", HOURS_MAX, HOURS_MAX)
        return JSONResponse(await self._backend.node_history(request.path_params["node"], hours))

    async def runs(self, request: Request) -> Response:
        limit = asked_number(request, "limit", RUNS_DEFAULT, RUNS_MAX)
        return JSONResponse(await self._backend.node_runs(request.path_params["node"], limit))

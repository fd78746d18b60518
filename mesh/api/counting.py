"""How many requests were answered, how, and how soon: an ASGI layer around all others, for the metrics."""

import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mesh.measures import ApiMeasures


class Counting:
    """Passes everything on to `app`, and counts what begins an answer. What is cut before that is not counted."""

    def __init__(self, app: ASGIApp, measures: ApiMeasures) -> None:
        self._app = app
        self._measures = measures

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        start = time.perf_counter()

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._measures.answered(scope["method"], message["status"], time.perf_counter() - start)
            await send(message)

        await self._app(scope, receive, counted)

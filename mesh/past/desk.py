"""Documents of a voter's history: projects, a project's trends, a test over time, what a host ran."""

import json
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from mesh.histories import RunHistory
from mesh.views import trends
from protocols.errors import UsageError
from protocols.ids import PeerId

TESTS_MAX = 300_000
"""Of the runs together that a project's lists are made of, or a host's."""

KEPT_MAX = 16
"""Documents in memory: pages ask again and again, and runs end seldom."""

Make = Callable[[str, int], Awaitable[dict[str, Any]]]


class PastDesk:
    def __init__(self, history: RunHistory) -> None:
        self._history = history
        self._kept: OrderedDict[tuple[str, str, int], tuple[int, dict[str, Any]]] = OrderedDict()
        """(view, project or host, limit) -> how often the history had changed by then, and the document."""

    async def look(self, view: str, argument: str) -> dict[str, Any]:
        """`argument`: a JSON object with "project", "test", "host" and "limit", as the view needs them."""
        if view == "projects":
            return {"projects": trends.projects_document(await self._history.projects())}
        try:
            asked: dict[str, Any] = json.loads(argument)
            project, limit = str(asked.get("project", "")), int(asked.get("limit", 1))
            test, host = str(asked.get("test", "")), str(asked.get("host", ""))
            (project + test + host).encode()
        except (ValueError, TypeError, AttributeError, OverflowError, RecursionError):
            raise UsageError(f"the history's {view} can't be asked for by {argument[:80]!r}") from None
        if view == "trends":
            return await self._kept_or(self._trend, view, project, max(1, min(limit, trends.RUNS_MAX)))
        if view == "seen":
            seen = await self._history.test(project, test, max(1, min(limit, trends.SEEN_MAX)))
            return trends.seen_document(project, test, seen)
        if view == "host":
            return await self._kept_or(self._host, view, host, max(1, min(limit, trends.PARTS_MAX)))
        raise UsageError(f"the history has no view {view!r}")

    async def _kept_or(self, make: Make, view: str, of: str, limit: int) -> dict[str, Any]:
        """The document as it is, while no run is added."""
        changes = self._history.changes
        known = self._kept.get((view, of, limit))
        if known is None or known[0] != changes:
            known = self._kept[view, of, limit] = (changes, await make(of, limit))
        self._kept.move_to_end((view, of, limit))
        while len(self._kept) > KEPT_MAX:
            self._kept.popitem(last=False)
        return known[1]

    async def _trend(self, project: str, limit: int) -> dict[str, Any]:
        runs = await self._history.runs(project, limit)
        wholes, names = await self._history.wholes(project, trends.RUNS_COMPARED, TESTS_MAX)
        return await trio.to_thread.run_sync(trends.trends_document, project, runs, wholes, names)

    async def _host(self, host: str, limit: int) -> dict[str, Any]:
        return trends.host_document(PeerId(host), await self._history.parts(PeerId(host), limit, TESTS_MAX))

"""Documents of a voter's history: projects, a project's trends, a test over time."""

import json
from collections import OrderedDict
from typing import Any

import trio

from mesh.histories import RunHistory
from mesh.views import trends
from protocols.errors import UsageError

TESTS_MAX = 300_000
"""Of the runs together that a project's lists are made of."""

TRENDS_KEPT = 8
"""Documents in memory: pages ask again and again, and runs end seldom."""


class PastDesk:
    def __init__(self, history: RunHistory) -> None:
        self._history = history
        self._trends: OrderedDict[tuple[str, int], tuple[int, dict[str, Any]]] = OrderedDict()
        """(project, limit) -> how often the history had changed by then, and the document."""

    async def look(self, view: str, argument: str) -> dict[str, Any]:
        """`argument`: a JSON object with "project", "test" and "limit", as the view needs them."""
        asked: dict[str, Any] = json.loads(argument) if argument else {}
        if view == "projects":
            return {"projects": trends.projects_document(await self._history.projects())}
        project, limit = str(asked.get("project", "")), int(asked.get("limit", 1))
        if view == "trends":
            return await self._trend(project, max(1, min(limit, trends.RUNS_MAX)))
        if view == "seen":
            test = str(asked.get("test", ""))
            seen = await self._history.test(project, test, max(1, min(limit, trends.SEEN_MAX)))
            return trends.seen_document(project, test, seen)
        raise UsageError(f"the history has no view {view!r}")

    async def _trend(self, project: str, limit: int) -> dict[str, Any]:
        changes = self._history.changes
        known = self._trends.get((project, limit))
        if known is None or known[0] != changes:
            runs = await self._history.runs(project, limit)
            wholes, names = await self._history.wholes(project, trends.RUNS_COMPARED, TESTS_MAX)
            document = await trio.to_thread.run_sync(trends.trends_document, project, runs, wholes, names)
            known = self._trends[project, limit] = (changes, document)
        self._trends.move_to_end((project, limit))
        while len(self._trends) > TRENDS_KEPT:
            self._trends.popitem(last=False)
        return known[1]

"""Who asks for the history: by the coordinator's; without one, a voter by its own, and says so."""

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from mesh.ports import ReplicatedLog
from mesh.state.model import CoordinatorState
from protocols.errors import NoQuorum, UsageError
from protocols.ids import Cid

LOOK_SECONDS = 5.0
"""How long a coordinator is looked for where this node has an answer, too."""

PATIENCE_SECONDS = 30.0
"""The same where it has none."""

Look = Callable[[str, str, float], Awaitable[dict[str, Any]]]
"""Asks the coordinator for a view, with an argument and seconds; `NoQuorum` without one."""

Own = Callable[[str, str], Awaitable[dict[str, Any]]]
"""The same of this node's own history."""


Rebuild = Callable[[Sequence[Cid]], Awaitable[dict[str, Any]]]
"""Takes in what these reports tell."""


class PastLooker:
    def __init__(
        self,
        look: Look,
        own: Own | None,
        dated: Callable[[bool], dict[str, Any]],
        rebuild: Rebuild | None = None,
        replica: Callable[[], ReplicatedLog | None] = lambda: None,
    ) -> None:
        """`dated`: as in `Feeds`."""
        self._look = look
        self._own = own
        self._dated = dated
        self._rebuild = rebuild
        self._replica = replica

    async def rebuild(self, reports: Sequence[Cid] | None) -> dict[str, Any]:
        """This node's own history; None: from the reports of all runs that the log knows."""
        replica = self._replica()
        if self._rebuild is None or replica is None:
            raise UsageError("this node keeps no history: ask one that has the log (`mesh raft` shows them)")
        if reports is None:
            state: CoordinatorState = replica.state
            known = [run.report for run in state.archive.values()] + [run.report for run in state.runs.values()]
            reports = [report for report in known if report is not None]
        return await self._rebuild(reports)

    async def document(self, view: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        argument = json.dumps(asked)
        try:
            patience = LOOK_SECONDS if self._own is not None else PATIENCE_SECONDS
            document, agreed = await self._look(view, argument, patience), True
        except NoQuorum:
            if self._own is None:
                raise
            document, agreed = await self._own(view, argument), False
        return {**document, **self._dated(agreed)}

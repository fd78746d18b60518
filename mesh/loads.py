"""How busy each node was over the last day: what this node heard by gossip, in its memory; it ends with the process."""

import time
from collections.abc import Callable
from typing import Any

import trio

from mesh.ports import Nodes
from mesh.views.load_history import LoadHistory
from protocols.ids import PeerId

LOOK_SECONDS = 5.0
"""Between two looks at all nodes: twelve make one step of the history."""


class Loads:
    def __init__(self, nodes: Nodes, now: Callable[[], float] = time.time) -> None:
        self._nodes = nodes
        self._now = now
        self._history = LoadHistory()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            views = self._nodes.nodes()
            self._history.look(self._now(), [(view.presence, view.state) for view in views.values()])
            await trio.sleep(LOOK_SECONDS)

    def knows(self, peer: str) -> bool:
        """Also a node that the mesh has forgotten since."""
        return peer in self._history

    def document(self, peer: PeerId, hours: int) -> dict[str, Any]:
        """See docs/api.md."""
        return self._history.document(peer, hours)

"""How busy each node was over the last day: what this node heard by gossip, in this life and, as far as its file tells,
in earlier ones.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio

from mesh.hints import HintFile
from mesh.ports import Nodes
from mesh.views.load_history import NOTHING_KEPT, LoadHistory
from protocols.ids import PeerId
from protocols.loads import KeptLoads

LOOK_SECONDS = 5.0
"""Between two looks at all nodes: twelve make one step of the history."""

LOOKS_PER_SAVE = 120
"""Ten minutes; and once more at the end."""


class Loads:
    def __init__(self, nodes: Nodes, path: Path, now: Callable[[], float] = time.time) -> None:
        self._nodes = nodes
        self._file = HintFile(path, KeptLoads, "loads are remembered from now on")
        self._now = now
        self._history = LoadHistory()

    async def run(self) -> None:
        """Until cancelled."""
        self._history = self._load()
        try:
            while True:
                for _ in range(LOOKS_PER_SAVE):
                    views = self._nodes.nodes()
                    self._history.look(self._now(), [(view.presence, view.state) for view in views.values()])
                    await trio.sleep(LOOK_SECONDS)
                await trio.to_thread.run_sync(self._file.save, self._history.kept())
        finally:
            self._file.save(self._history.kept())

    def knows(self, peer: str) -> bool:
        """Also a node that the mesh has forgotten since."""
        return peer in self._history

    def document(self, peer: PeerId, hours: int) -> dict[str, Any]:
        """See docs/api.md."""
        return self._history.document(peer, hours)

    def _load(self) -> LoadHistory:
        try:
            return LoadHistory(self._file.load() or NOTHING_KEPT)
        except ValueError as error:
            self._file.spoilt(error)
            return LoadHistory()

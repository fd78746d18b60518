"""How busy each node was over the last day: what this node heard by gossip, in this life and, as far as its file tells,
in earlier ones.

The file is a hint: it is written now and then, without a sync, and one that can't be read is as good as none.
"""

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import trio

from mesh.ports import Nodes
from mesh.views.load_history import LoadHistory
from protocols.codec import decode, encode
from protocols.errors import RemoteProtocolError
from protocols.ids import PeerId
from protocols.loads import KeptLoads

log = logging.getLogger(__name__)

LOOK_SECONDS = 5.0
"""Between two looks at all nodes: twelve make one step of the history."""

LOOKS_PER_SAVE = 120
"""Ten minutes; and once more at the end."""


class Loads:
    def __init__(self, nodes: Nodes, path: Path, now: Callable[[], float] = time.time) -> None:
        self._nodes = nodes
        self._path = path
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
                await trio.to_thread.run_sync(self._save, self._history.kept())
        finally:
            self._save(self._history.kept())

    def knows(self, peer: str) -> bool:
        """Also a node that the mesh has forgotten since."""
        return peer in self._history

    def document(self, peer: PeerId, hours: int) -> dict[str, Any]:
        """See docs/api.md."""
        return self._history.document(peer, hours)

    def _load(self) -> LoadHistory:
        try:
            return LoadHistory(decode(self._path.read_bytes(), KeptLoads))
        except FileNotFoundError:
            return LoadHistory()
        except (OSError, RemoteProtocolError, ValueError) as error:
            log.warning("%s can't be read (%s): loads are remembered from now on", self._path, error)
            return LoadHistory()

    def _save(self, kept: KeptLoads) -> None:
        partial = self._path.with_suffix(".partial")
        try:
            partial.write_bytes(encode(kept))
            os.replace(partial, self._path)
        except OSError as error:
            log.warning("%s can't be written: %s", self._path, error)

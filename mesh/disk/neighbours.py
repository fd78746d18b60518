"""Where the other nodes of the mesh were last, so that a node that restarts finds them with nothing to join by.

A hint: it is written now and then, without a sync, and a file that can't be read is as good as none.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from protocols.codec import decode, encode
from protocols.errors import RemoteProtocolError
from protocols.ids import PeerId
from protocols.presence import Neighbours

log = logging.getLogger(__name__)

NEIGHBOURS_MAX = 64


class NeighbourFile:
    """One file, replaced as a whole."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written: Neighbours | None = None

    def load(self) -> dict[PeerId, tuple[str, ...]]:
        """Addresses by peer; empty when there is no file, or none that can be read."""
        try:
            return dict(decode(self._path.read_bytes(), Neighbours).addresses)
        except FileNotFoundError:
            return {}
        except (OSError, RemoteProtocolError) as error:
            log.warning("%s can't be read (%s): looking for the other nodes anew", self._path, error)
            return {}

    def save(self, addresses: Mapping[PeerId, Sequence[str]]) -> None:
        """Remember these, if they are other than before."""
        kept = sorted(addresses.items())[:NEIGHBOURS_MAX]
        neighbours = Neighbours(tuple((peer, tuple(found)) for peer, found in kept))
        if neighbours == self._written or not kept:
            return
        partial = self._path.with_suffix(".partial")
        try:
            partial.write_bytes(encode(neighbours))
            os.replace(partial, self._path)
        except OSError as error:
            log.warning("%s can't be written: %s", self._path, error)
        self._written = neighbours

"""Where the other nodes of the mesh were last, so that a node that restarts finds them with nothing to join by."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from mesh.hints import HintFile
from protocols.ids import PeerId
from protocols.presence import Neighbours

NEIGHBOURS_MAX = 64


class NeighbourFile:
    """One file, replaced as a whole."""

    def __init__(self, path: Path) -> None:
        self._file = HintFile(path, Neighbours, "looking for the other nodes anew")
        self._written: Neighbours | None = None

    def load(self) -> dict[PeerId, tuple[str, ...]]:
        """Addresses by peer; empty when there is no file, or none that can be read."""
        found = self._file.load()
        return dict(found.addresses) if found is not None else {}

    def save(self, addresses: Mapping[PeerId, Sequence[str]]) -> None:
        """Remember these, if they are other than before."""
        kept = sorted(addresses.items())[:NEIGHBOURS_MAX]
        neighbours = Neighbours(tuple((peer, tuple(found)) for peer, found in kept))
        if neighbours == self._written or not kept:
            return
        self._file.save(neighbours)
        self._written = neighbours

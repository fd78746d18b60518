"""How busy nodes were over the last day, as a node writes it down for its next life."""

from protocols.codec import message
from protocols.ids import PeerId


@message("d.node")
class NodeLoads:
    """One node's rings of bytes (`mesh/views/load_history.py`)."""

    peer: PeerId
    heard: int
    """The last step in which it told of itself."""
    states: bytes
    figures: tuple[bytes, ...]


@message("d.loads")
class KeptLoads:
    """All of them; `step` is the newest, in steps since the epoch."""

    step: int
    nodes: tuple[NodeLoads, ...]

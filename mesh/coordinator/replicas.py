"""Content on two nodes before anything is promised about it (on one, if the mesh has one).

A completion, a manifest, a bundle or a report counts only once a second node has it on disk, so that no single death
loses it. Whoever reports content has it; the coordinator fetches its own copy, or, when the content came from the
coordinator's own node, has another node hold one.
"""

import logging
from collections.abc import Mapping

from mesh.ports import Content, Network, NodeView
from protocols.codec import decode, encode
from protocols.errors import MeshError, MeshFailed
from protocols.ids import Cid, PeerId
from protocols.presence import NodeState, Role
from protocols.work import PROTOCOL, Ack, Hold, Refused

log = logging.getLogger(__name__)

HOLD_SECONDS = 60.0
"""How long one node may take to fetch its copy."""

HOLDERS_TRIED_MAX = 5


class Replicas:
    """The second copy."""

    def __init__(self, network: Network, content: Content) -> None:
        self._network = network
        self._content = content

    async def secure(
        self, root: Cid, origin: PeerId, nodes: Mapping[PeerId, NodeView], reason: str = ""
    ) -> tuple[PeerId, ...]:
        """Two nodes that have `root` whole, `origin` among them; `MeshFailed` when no second node could take it.

        With a `reason` the copies are pinned for it; without one they stay as long as there is room.
        """
        me = self._network.peer_id
        if origin != me:
            await self._content.fetch(root, (origin,))
        if reason:
            await self._content.pin(root, reason)
        if origin != me:
            return (origin, me)
        others = others_alive(nodes, me)
        for peer in others[:HOLDERS_TRIED_MAX]:
            try:
                await self.ask_to_hold(peer, root, reason)
                return (me, peer)
            except MeshError as error:
                log.info("%s did not take a copy of %s: %s", peer, root, error)
        if others:
            raise MeshFailed(f"no other node could take a copy of {root}")
        return (me,)

    async def ask_to_hold(self, peer: PeerId, root: Cid, reason: str) -> None:
        """Have `peer` fetch `root` from here and keep it."""
        request = encode(Hold(root, (self._network.peer_id,), reason))
        answer = decode(await self._network.call(peer, PROTOCOL, request, timeout=HOLD_SECONDS), Ack, Refused)
        if isinstance(answer, Refused):
            raise MeshFailed(answer.reason)


def others_alive(nodes: Mapping[PeerId, NodeView], me: PeerId) -> list[PeerId]:
    """Connected nodes but this one: those with a log first, then by ID."""
    alive = [
        view.presence
        for peer, view in nodes.items()
        if peer != me and view.connected and view.state is NodeState.ALIVE and view.presence.role is not Role.CLIENT
    ]
    return [presence.peer for presence in sorted(alive, key=lambda p: (not p.raft, p.peer))]

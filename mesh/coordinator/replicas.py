"""Content on two nodes before anything is promised about it (on one, if the mesh has one).

A completion, a manifest, a bundle or a report counts only once a second node has it on disk, so that no single death
loses it. Whoever reports content has it; the coordinator fetches its own copy, or, when the content came from the
coordinator's own node, has another node hold one. A coordinator is alone only when every other node that it knows is
dead and nobody else votes: one whose connections just broke, or that has not heard of the others yet, must wait.

What is pinned in the log has its copies looked after from then on (`pins.py`); here it gets the first two.
"""

import logging
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence

from mesh.autopilot import reads_format
from mesh.content.unixfs.cid import as_raw
from mesh.ports import Content, Network, NodeView
from mesh.state import pinset
from protocols.codec import decode, encode
from protocols.errors import MeshError, MeshFailed
from protocols.ids import NO_RUN, Cid, PeerId, RunId
from protocols.manifests import Origin
from protocols.presence import NodeState, Role
from protocols.work import PROTOCOL, Ack, Hold, Refused

log = logging.getLogger(__name__)

HOLD_SECONDS = 60.0
"""How long one node may take to fetch its copy."""

HOLDERS_TRIED_MAX = 5

KNOWN_MAX = 8_192
"""Roots of which it is remembered who had them lately."""

ORIGINS_MAX = 1_024
"""Remembered as secured."""


class Replicas:
    """The second copy. `voters` are those of the log's group."""

    def __init__(self, network: Network, content: Content, voters: Callable[[], Collection[PeerId]]) -> None:
        self._network = network
        self._content = content
        self._voters = voters
        self.known: OrderedDict[Cid, tuple[PeerId, ...]] = OrderedDict()
        """Who had these roots whole when last heard of: a hint where to have copies made, and from whom."""
        self._origins: OrderedDict[Cid, None] = OrderedDict()
        """Those that were secured lately."""

    async def secure(
        self,
        root: Cid,
        origin: PeerId,
        nodes: Mapping[PeerId, NodeView],
        reason: str = "",
        run: RunId = NO_RUN,
    ) -> tuple[PeerId, ...]:
        """Two nodes that have `root` whole, `origin` among them; `MeshFailed` when no second node could take it.

        With a `reason` the copies are kept for it, with a `run` as long as that is open; without both they stay as
        long as there is room.
        """
        me = self._network.peer_id
        if origin != me:
            await self._content.fetch(root, (origin,))
        if reason or run:
            await self._content.hold([root], reason or f"run {run}", run)
        if origin != me:
            self.note(root, (origin, me))
            return (origin, me)
        for peer in holders_within_reach(nodes, me)[:HOLDERS_TRIED_MAX]:
            told = run if reads_format(nodes[peer].presence) >= pinset.LOG_FORMAT_MIN else NO_RUN
            try:
                await self.ask_to_hold(peer, root, reason, told)
            except MeshError as error:
                log.info("%s did not take a copy of %s: %s", peer, root, error)
            else:
                self.note(root, (me, peer))
                return (me, peer)
        if set(self._voters()) - {me} or any(_may_hold(view, me) for view in nodes.values()):
            raise MeshFailed(f"no other node could take a copy of {root}")
        self.note(root, (me,))
        return (me,)

    async def secure_origin(self, origin: Cid, peer: PeerId, nodes: Mapping[PeerId, NodeView], run: RunId) -> None:
        """Where records come from, and what their worker had installed, on two nodes; of what it links beside that,
        the bundle for one, there are copies already."""
        if origin in self._origins:
            return
        root = as_raw(origin)
        await self.secure(root, peer, nodes, run=run)
        environment = decode(await self._content.get(root), Origin).environment
        if environment is not None and environment.distributions is not None:
            await self.secure(environment.distributions, peer, nodes, run=run)
        self._origins[origin] = None
        while len(self._origins) > ORIGINS_MAX:
            self._origins.popitem(last=False)

    async def offer(self, name: str, data: bytes) -> Cid:
        """A file on this node, for somebody who asked for it: unpinned, so that it goes by itself."""
        return await self._content.add_files({name: data})

    async def ask_to_hold(
        self,
        peer: PeerId,
        root: Cid,
        reason: str,
        run: RunId = NO_RUN,
        sources: Sequence[PeerId] = (),
        timeout: float = HOLD_SECONDS,
    ) -> None:
        """Have `peer` fetch `root` from the `sources`, or from here, and keep it."""
        request = encode(Hold(root, tuple(sources) or (self._network.peer_id,), reason, run))
        answer = decode(await self._network.call(peer, PROTOCOL, request, timeout=timeout), Ack, Refused)
        if isinstance(answer, Refused):
            raise MeshFailed(answer.reason)

    def note(self, root: Cid, peers: Sequence[PeerId]) -> None:
        """These had it just now."""
        self.known[root] = tuple(dict.fromkeys([*peers, *self.known.get(root, ())]))[:HOLDERS_TRIED_MAX]
        self.known.move_to_end(root)
        while len(self.known) > KNOWN_MAX:
            self.known.popitem(last=False)


def holders_within_reach(nodes: Mapping[PeerId, NodeView], me: PeerId) -> list[PeerId]:
    """Connected nodes but this one: those that stay first, those with a log first among them, then by ID."""
    near = [view for view in nodes.values() if view.connected and _may_hold(view, me)]
    near.sort(key=lambda view: (view.state is NodeState.DRAINING, not view.presence.raft, view.presence.peer))
    return [view.presence.peer for view in near]


def _may_hold(view: NodeView, me: PeerId) -> bool:
    presence = view.presence
    return presence.peer != me and view.state is not NodeState.DEAD and presence.role is not Role.CLIENT

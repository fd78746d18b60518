"""What the coordinator sees of the mesh over time: who goes and comes back, which runs wait, what lacks copies.

Soft: a new coordinator begins to count anew, so that it tells nothing that it has not itself seen last.
"""

from collections import deque
from collections.abc import Mapping

from mesh.anomalies.meshwide import NodeSeen, RunSeen, Seen
from mesh.ports import NodeView
from mesh.scheduler.replication import is_under
from mesh.state.model import CoordinatorState, Run, RunPhase
from protocols.ids import PeerId, RunId
from protocols.presence import NodeState, Role

RETURNS_MAX = 16
"""Of a node, that are remembered."""

SHORT_SECONDS = 15.0
"""Between two looks at the pinset, which may be long."""

HERE = (NodeState.ALIVE, NodeState.DRAINING)


class Watching:
    def __init__(self) -> None:
        self._lives: dict[PeerId, tuple[int, bool]] = {}
        """The incarnation of each node when it was last here, and whether it is."""
        self._leaving: set[PeerId] = set()
        """Nodes that said that they would go."""
        self._returns: dict[PeerId, deque[float]] = {}
        self._idle: dict[RunId, float] = {}
        """Since when nothing of an open run is with a worker."""
        self._short_since: float | None = None
        self._counted = (0, 0)
        self._counted_at = -SHORT_SECONDS
        """The roots that lack copies, when they were counted last."""

    def look(self, state: CoordinatorState, nodes: Mapping[PeerId, NodeView], now: float) -> Seen:
        """`now`: seconds since the epoch."""
        for peer, view in nodes.items():
            self._note(peer, view, now)
        if not 0 <= now - self._counted_at < SHORT_SECONDS:
            self._counted, self._counted_at = self._short(state, nodes), now
        short, lost = self._counted
        if not short:
            self._short_since = None
        elif self._short_since is None:
            self._short_since = now
        return Seen(
            now=now,
            nodes=[self._node(peer, view) for peer, view in sorted(nodes.items())],
            runs=self._runs(state, now),
            short=short,
            lost=lost,
            short_for=0.0 if self._short_since is None else now - self._short_since,
        )

    def _note(self, peer: PeerId, view: NodeView, now: float) -> None:
        here = view.state in HERE
        incarnation = view.presence.incarnation
        known = self._lives.get(peer)
        if known is not None and here and (not known[1] or known[0] != incarnation):
            if peer not in self._leaving:
                self._returns.setdefault(peer, deque(maxlen=RETURNS_MAX)).append(now)
            self._leaving.discard(peer)
        if view.presence.draining:
            self._leaving.add(peer)
        self._lives[peer] = (incarnation, view.state is not NodeState.DEAD)

    def _node(self, peer: PeerId, view: NodeView) -> NodeSeen:
        free = view.presence.load.get("disk.free")
        returns = tuple(self._returns.get(peer, ()))
        name = view.presence.name
        return NodeSeen(peer, name, view.state in HERE, free if isinstance(free, int) else None, returns)

    def _runs(self, state: CoordinatorState, now: float) -> list[RunSeen]:
        still = [run for run in state.runs.values() if _waits(state, run)]
        self._idle = {run.id: self._idle.get(run.id, run.submitted_at if not run.done else now) for run in still}
        return [
            RunSeen(run.id, run.spec.name, now - self._idle[run.id], f"{run.pending_tests or 'All'} of its tests wait.")
            for run in still
        ]

    def _short(self, state: CoordinatorState, nodes: Mapping[PeerId, NodeView]) -> tuple[int, int]:
        """Roots with too few copies where there are nodes for more, and those of them without any."""
        here = {peer for peer, view in nodes.items() if view.state in HERE}
        room = sum(nodes[peer].presence.role is not Role.CLIENT for peer in here)
        short = [pin for pin in state.pins.values() if is_under(pin, here) and pin.holders]
        short = [pin for pin in short if sum(peer in here for peer in pin.holders) < min(pin.wanted, room)]
        return len(short), sum(not any(peer in here for peer in pin.holders) for pin in short)


def _waits(state: CoordinatorState, run: Run) -> bool:
    """Whether nothing of it is with a worker, though nothing that it comes after is open."""
    if run.phase not in (RunPhase.COLLECTING, RunPhase.RUNNING) or run.leases:
        return False
    before = (state.runs.get(one) for one in run.spec.after)
    return not any(other is not None and other.phase is not RunPhase.FINISHED for other in before)

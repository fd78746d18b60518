"""Keeps what is pinned on as many nodes as it is to be, while this node leads.

What is to be done is decided again and again from the pinset and from who is here (`scheduler/replication.py`,
`scheduler/letting_go.py`); nodes fetch and keep, and the log is told only of what they have on disk by then. So a
coordinator that dies in between leaves nothing behind but a copy that its node lets go of when it next asks.
"""

import logging
from collections.abc import Collection, Sequence

import trio

from mesh.coordinator.pin_desk import PinDesk
from mesh.coordinator.replicas import Replicas
from mesh.ports import Clock, Content, Network, Nodes, NodeView, ReplicatedLog
from mesh.scheduler.letting_go import let_go
from mesh.scheduler.replication import Copy, Place, replicate
from mesh.state import pinset
from mesh.state.model import CoordinatorState, Pin
from mesh.together import together
from protocols.codec import decode, encode
from protocols.commands import PINS_PER_COMMAND_MAX, Command, Placed, Placement, Unpin
from protocols.errors import MeshError
from protocols.ids import Cid, PeerId
from protocols.presence import NodeState, Role
from protocols.work import PROTOCOL, ROOTS_PER_MESSAGE_MAX, AskHave, Have

log = logging.getLogger(__name__)

GRACE_SECONDS = 60.0
"""How long a holder may be away before another node gets a copy."""

LOOK_SECONDS = 2.0
"""Between two looks at the pinset, unless a copy was made meanwhile."""

SETTLE_SECONDS = 0.2
"""Copies that are made within this time are told to the log together."""

COPY_SECONDS = 600.0
"""How long one node may take to fetch a copy that nobody waits for."""

STALL_SECONDS = 60.0
"""How long this node waits for a block of a copy."""

COPIES_AT_ONCE = 8

REFUSED_SECONDS = 60.0
"""How long a node that could not take a root is not asked again for that."""

SEARCH_SECONDS = 30.0
"""Between two searches for what no node here is known to have."""
SEARCH_CALL_SECONDS = 10.0

LET_GO_SECONDS = 600.0
"""Between two looks at what may go."""

HERE = (NodeState.ALIVE, NodeState.DRAINING)


class PinKeeper:
    """Timers on trio's clock: those of who is away begin when this node saw them last."""

    def __init__(
        self,
        network: Network,
        content: Content,
        log: ReplicatedLog,
        nodes: Nodes,
        replicas: Replicas,
        clock: Clock,
        grace: float = GRACE_SECONDS,
    ) -> None:
        self._network = network
        self._content = content
        self._log = log
        self._nodes = nodes
        self._replicas = replicas
        self._clock = clock
        self._grace = grace
        self.desk = PinDesk(log=log, nodes=nodes, replicas=replicas, clock=clock)
        self._away: dict[PeerId, float] = {}
        """Since when a node was not heard of."""
        self._busy: set[Cid] = set()
        """Roots of which copies are made now, or not yet told to the log."""
        self._made: list[Placement] = []
        self._settled: object = None
        """The pinset, and who was here, when there was last nothing to do."""
        self._refused: dict[tuple[Cid, PeerId], float] = {}
        """Until when a node is not asked again."""
        self._missed: set[Cid] = set()
        """Roots that the last search did not find."""
        self._searched = self._let_go_at = 0.0
        self._news = trio.Event()
        self._limit = trio.CapacityLimiter(COPIES_AT_ONCE)

    @property
    def _state(self) -> CoordinatorState:
        state: CoordinatorState = self._log.state
        return state

    async def run(self) -> None:
        """For as long as this node leads."""
        self._away.clear()
        self._settled = None
        self._busy.clear()
        self._made.clear()
        self._refused.clear()
        self._searched = self._let_go_at = trio.current_time() - max(SEARCH_SECONDS, LET_GO_SECONDS)
        async with trio.open_nursery() as nursery:
            while True:
                self._news = trio.Event()
                try:
                    await self._look(nursery)
                except MeshError as error:
                    log.info("the pins are looked after later: %s", error)
                with trio.move_on_after(LOOK_SECONDS):
                    await self._news.wait()
                    await trio.sleep(SETTLE_SECONDS)

    async def _look(self, nursery: trio.Nursery) -> None:
        if self._state.format < pinset.LOG_FORMAT_MIN:
            return
        await self._tell()
        await self._let_go()
        state, here = self._state, {peer: view.state for peer, view in self._nodes.nodes().items()}
        if not self._busy and self._settled == (id(state), state.pin_changes, here):
            return
        now = trio.current_time()
        self._refused = {key: until for key, until in self._refused.items() if until > now}
        places = self._places(now)
        pins = [pin for root, pin in state.pins.items() if root not in self._busy]
        due = replicate(pins, places, self._grace, self._replicas.known, self._refused.keys())
        self._settled = (id(state), state.pin_changes, here) if due.settled and not self._busy else None
        for copy in due.copies:
            self._busy.add(copy.root)
            nursery.start_soon(self._copy, copy, state.pins[copy.root])
        if due.lost and now - self._searched >= SEARCH_SECONDS:
            self._searched = now
            nursery.start_soon(self._search, due.lost[:ROOTS_PER_MESSAGE_MAX])
        await self._propose([Placed(some) for some in _batches(due.drops)])

    def _places(self, now: float) -> dict[PeerId, Place]:
        """Every node that is known, and whoever holds something."""
        views = self._nodes.nodes()
        holders = {peer for pin in self._state.pins.values() for peer in pin.holders}
        for peer in sorted(views.keys() | holders):
            view = views.get(peer)
            if view is not None and view.state in HERE:
                self._away.pop(peer, None)
            else:
                self._away.setdefault(peer, now if view is None else min(now, view.heard))
        return {peer: self._place(peer, views.get(peer), now) for peer in sorted(views.keys() | holders)}

    def _place(self, peer: PeerId, view: NodeView | None, now: float) -> Place:
        gone = now - self._away.get(peer, now)
        if view is None:
            return Place(peer, peer, 0, here=False, gone=gone, takes=False)
        presence = view.presence
        free = presence.load.get("disk.free", 0)
        return Place(
            peer,
            str(presence.capabilities.get("hostname", presence.name)),
            free if isinstance(free, int) else 0,
            here=view.state in HERE,
            gone=gone,
            takes=view.connected and view.state is NodeState.ALIVE and presence.role is not Role.CLIENT,
        )

    async def _copy(self, copy: Copy, pin: Pin) -> None:
        """Have copies made, and note for the log where they are."""
        held: list[PeerId] = []
        async with self._limit:
            for peer in copy.candidates:
                if len(held) == copy.count:
                    break
                try:
                    await self._hold(peer, pin, [source for source in copy.sources if source != peer])
                except MeshError as error:
                    log.info("%s takes no copy of %s: %s", peer, copy.root, error)
                    self._refused[copy.root, peer] = trio.current_time() + REFUSED_SECONDS
                else:
                    held.append(peer)
        if held:
            self._made.append(Placement(copy.root, tuple(held), (), pin.size or await self._size(copy.root)))
        else:
            self._busy.discard(copy.root)
        self._news.set()

    async def _hold(self, peer: PeerId, pin: Pin, sources: Sequence[PeerId]) -> None:
        reason = ", ".join(reason.text for reason in pin.reasons)
        if peer != self._network.peer_id:
            await self._replicas.ask_to_hold(peer, pin.root, reason, sources=sources, timeout=COPY_SECONDS)
            return
        await self._content.fetch(pin.root, sources, STALL_SECONDS)
        await self._content.hold([pin.root], reason)

    async def _size(self, root: Cid) -> int:
        try:
            return await self._content.size(root)
        except MeshError:
            return 0

    async def _tell(self) -> None:
        """Tell the log of the copies that were made."""
        made, self._made = self._made, []
        try:
            await self._propose([Placed(some) for some in _batches(made)])
        finally:
            self._busy.difference_update(one.root for one in made)

    async def _let_go(self) -> None:
        now = trio.current_time()
        if now - self._let_go_at < LET_GO_SECONDS:
            return
        self._let_go_at = now
        state = self._state
        gone = let_go(state.pins.values(), pinset.needed(state), self._clock.now())
        for start in range(0, len(gone), PINS_PER_COMMAND_MAX):
            await self._propose([Unpin(gone[start : start + PINS_PER_COMMAND_MAX])])
        if gone:
            log.info("%d pins of finished runs ended", len(gone))

    async def _search(self, roots: Sequence[Cid]) -> None:
        """Ask every node here which of these it has: after an upgrade, say, or when all holders are away."""
        me = self._network.peer_id
        views = self._nodes.nodes()
        for root in roots:
            if await self._content.has(root):
                self._replicas.note(root, (me,))

        async def ask(peer: PeerId) -> None:
            try:
                payload = await self._network.call(peer, PROTOCOL, encode(AskHave(tuple(roots))), SEARCH_CALL_SECONDS)
                answer = decode(payload, Have)
            except MeshError as error:
                log.debug("%s does not say what it has: %s", peer, error)
                return
            for root, has in zip(roots, answer.roots, strict=False):
                if has:
                    self._replicas.note(root, (peer,))

        await together(ask, [peer for peer, view in sorted(views.items()) if view.connected and peer != me])
        missed = {root for root in roots if root not in self._replicas.known}
        for root in sorted(missed - self._missed):
            pin = self._state.pins.get(root)
            if pin is not None:
                log.warning("no node here has %s, pinned as the %s", root, pin.reasons[0].text)
        self._missed = missed
        self._news.set()

    async def _propose(self, commands: Sequence[Command]) -> None:
        if commands:
            await self._log.propose_many(commands)


def _batches(placements: Collection[Placement]) -> list[tuple[Placement, ...]]:
    every = tuple(placements)
    return [every[start : start + PINS_PER_COMMAND_MAX] for start in range(0, len(every), PINS_PER_COMMAND_MAX)]

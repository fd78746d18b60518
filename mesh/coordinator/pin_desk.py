"""What nodes and users ask the coordinator about pins: what a node is to keep, what it has lost; pin, unpin, list."""

from typing import Any

from mesh.content.unixfs.cid import check_cid
from mesh.coordinator.replicas import Replicas
from mesh.ports import Clock, Nodes, ReplicatedLog
from mesh.state import pinset
from mesh.state.model import CoordinatorState, Pin
from mesh.state.results import Rejected
from mesh.views.pins import PINS_PER_PAGE, pin_document
from protocols.client import PinContent, UnpinContent
from protocols.codec import encode
from protocols.commands import PINS_PER_COMMAND_MAX, Command, PinKind, PinReference, PinRoot, Placed, Placement, Unpin
from protocols.errors import MeshFailed, UsageError
from protocols.ids import Cid, PeerId
from protocols.presence import Role
from protocols.work import ROOTS_PER_MESSAGE_MAX, Ack, AskDue, AskNamed, Due, Lost, Named, Refused

PinRequest = AskNamed | AskDue | Lost
PIN_REQUESTS = (AskNamed, AskDue, Lost)


class PinDesk:
    def __init__(self, *, log: ReplicatedLog, nodes: Nodes, replicas: Replicas, clock: Clock) -> None:
        self._log = log
        self._nodes = nodes
        self._replicas = replicas
        self._clock = clock

    @property
    def _state(self) -> CoordinatorState:
        state: CoordinatorState = self._log.state
        return state

    # Nodes

    async def handle(self, peer: PeerId, request: PinRequest) -> bytes:
        """Answer a node, by all that is committed: what it lets go of may be collected."""
        if not self._log.is_leader:
            return encode(Refused("this node does not coordinate", self._log.leader))
        await self._log.barrier()
        match request:
            case AskNamed():
                return encode(self._named(peer, request))
            case AskDue(after):
                mine = sorted(root for root, pin in self._state.pins.items() if root > after and peer in pin.holders)
                return encode(Due(tuple(mine[:ROOTS_PER_MESSAGE_MAX]), len(mine) > ROOTS_PER_MESSAGE_MAX))
            case Lost(roots):
                await self._lost(peer, roots)
                return encode(Ack())

    def _named(self, peer: PeerId, request: AskNamed) -> Named:
        state = self._state
        runs = bytes(run in state.runs and pinset.is_open(state.runs[run]) for run in request.runs)
        if state.format < pinset.LOG_FORMAT_MIN:
            return Named(b"\1" * len(request.roots), runs)
        named = pinset.named(state)
        return Named(bytes(root in named and self._is_to_keep(peer, root) for root in request.roots), runs)

    def _is_to_keep(self, peer: PeerId, root: Cid) -> bool:
        """Also what the node was not told to keep, as long as there are too few who were: it may become one."""
        pin = self._state.pins.get(root)
        if pin is None:  # of an open run
            return True
        if peer not in pin.holders and len(pin.holders) < pin.wanted:
            self._replicas.note(root, (peer,))
            return True
        return peer in pin.holders

    async def _lost(self, peer: PeerId, roots: tuple[Cid, ...]) -> None:
        gone = [root for root in roots if root in self._state.pins and peer in self._state.pins[root].holders]
        for start in range(0, len(gone), PINS_PER_COMMAND_MAX):
            some = gone[start : start + PINS_PER_COMMAND_MAX]
            await self._log.propose(Placed(tuple(Placement(root, (), (peer,)) for root in some)))

    # Users

    async def pin(self, peer: PeerId, request: PinContent) -> dict[str, Any]:
        """Pin what `peer` has and keeps already; other nodes get their copies by and by."""
        check_cid(request.root)
        commands: list[Command] = [PinRoot(request.root, request.replicas, "user", self._clock.now())]
        view = self._nodes.nodes().get(peer)
        if view is not None and view.presence.role is not Role.CLIENT:
            commands.append(Placed((Placement(request.root, (peer,), (), max(0, request.size)),)))
        self._replicas.note(request.root, (peer,))
        applied = (await self._log.propose_many(commands))[0].result
        if isinstance(applied, Rejected):
            raise UsageError(f"{request.root} was not pinned: {applied.reason}")
        return self._document(self._state.pins[request.root])

    async def unpin(self, request: UnpinContent) -> dict[str, Any]:
        """Take away the user's reason, or else those of runs."""
        pin = self._state.pins.get(request.root)
        if pin is None:
            raise UsageError(f"{request.root} is not pinned in the mesh")
        ended = [reason for reason in pin.reasons if reason.kind is PinKind.USER] or list(pin.reasons)
        references = tuple(PinReference(pin.root, reason.kind, reason.since) for reason in ended)
        if isinstance((await self._log.propose(Unpin(references))).result, Rejected):
            if pin.root in pinset.needed(self._state):
                raise UsageError(f"{pin.root} is the {pin.reasons[0].text}, which is not over")
            raise MeshFailed(f"{pin.root} was pinned anew meanwhile")
        left = self._state.pins.get(request.root)
        return {
            "cid": request.root,
            "ended": [reason.text for reason in ended],
            "left": [reason.text for reason in left.reasons] if left else [],
        }

    def page(self, after: str) -> dict[str, Any]:
        """The pins from the one after this root on, as many as fit an answer."""
        roots = sorted(root for root in self._state.pins if root > after)
        pins = [self._document(self._state.pins[root]) for root in roots[:PINS_PER_PAGE]]
        return {"pins": pins, "more": len(roots) > PINS_PER_PAGE}

    def _document(self, pin: Pin) -> dict[str, Any]:
        return pin_document(pin, {peer: (view.presence.name, view.state) for peer, view in self._nodes.nodes().items()})

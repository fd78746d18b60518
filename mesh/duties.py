"""Who answers what: the calls that reach a node, handed to the service that they are for. Part of the composition.

Every node holds content for others and takes an operator's commands; a worker takes leases; a member of the log
answers workers and users while it coordinates, and tells at any time what its log told.
"""

from collections.abc import Callable

from mesh.coordinator import TestCoordinator
from mesh.coordinator.clients import CLIENT_REQUESTS
from mesh.coordinator.pin_desk import PIN_REQUESTS
from mesh.coordinator.service import WORK_REQUESTS
from mesh.feeds import Feeds
from mesh.ports import Content, Network
from mesh.worker.agent import WorkerAgent
from protocols import client, work
from protocols.codec import decode, encode
from protocols.ids import PeerId
from protocols.work import (
    Ack,
    AskHave,
    Assign,
    CommandVerb,
    EndRun,
    Have,
    Hold,
    MakeReady,
    NodeCommand,
    RecallLease,
    Refused,
    RunEnded,
    Tailed,
    TailTest,
)

OF_ANY_NODE = (Assign, EndRun, MakeReady, RecallLease, Hold, AskHave, NodeCommand, TailTest)


class Duties:
    """The handlers of one node's calls."""

    def __init__(
        self,
        *,
        network: Network,
        content: Content,
        coordinator: Callable[[], TestCoordinator | None],
        agent: WorkerAgent | None,
        known_coordinator: Callable[[], PeerId | None],
        feed: Feeds,
        obey: Callable[[CommandVerb], None],
    ) -> None:
        self._content = content
        self._coordinator = coordinator
        self._agent = agent
        self._known_coordinator = known_coordinator
        self._feed = feed
        self._obey = obey
        network.on_call(work.PROTOCOL, self._work)
        network.on_call(client.PROTOCOL, self._client)

    async def _work(self, peer: PeerId, payload: bytes) -> bytes:
        request = decode(payload, *WORK_REQUESTS, *PIN_REQUESTS, *OF_ANY_NODE)
        match request:
            case Hold(root, holders, reason, run):
                await self._content.fetch(root, (peer, *holders))
                if reason or run:
                    await self._content.hold([root], reason or f"run {run}", run)
            case AskHave(roots):
                return encode(Have(bytes([await self._content.has(root) for root in roots])))
            case NodeCommand(verb):
                self._obey(verb)
            case Assign():
                if self._agent is None:
                    return encode(Refused("this node does not work"))
                self._agent.take(request)
            case MakeReady():
                if self._agent is not None:
                    self._agent.make_ready(request)
            case EndRun(run):
                return encode(await self._agent.end_run(run) if self._agent is not None else RunEnded())
            case RecallLease():
                if self._agent is not None:
                    self._agent.recall(request)
            case TailTest():
                return encode(self._agent.tail(request) if self._agent is not None else Tailed((), ()))
            case _:
                coordinator = self._coordinator()
                if coordinator is None:
                    return encode(self._elsewhere())
                if isinstance(request, PIN_REQUESTS):
                    return await coordinator.pins.desk.handle(peer, request)
                return await coordinator.handle_work(peer, request)
        return encode(Ack())

    async def _client(self, peer: PeerId, payload: bytes) -> bytes:
        request = decode(payload, *CLIENT_REQUESTS, client.Watch)
        if isinstance(request, client.Watch):
            return await self._feed.answer(request)
        coordinator = self._coordinator()
        if coordinator is None:
            return encode(self._elsewhere())
        return await coordinator.clients.handle(peer, request)

    def _elsewhere(self) -> Refused:
        return Refused("this node holds no log", self._known_coordinator())

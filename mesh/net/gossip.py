"""Gossip: signed messages to whoever subscribed, by GossipSub 1.1. A hint, never a promise: it drops in silence over
its limits, so whoever relies on it backs it with anti-entropy over a direct call.

Only 1.1, because 1.2 doubled the CPU; a heartbeat of 1 s, because the default is 120; sequence numbers that start at
nanoseconds, because whole seconds made a restarted publisher repeat those of its last life, and be taken for seen.
"""

import logging
import time
from typing import Any

import trio
from libp2p.custom_types import TProtocol
from libp2p.peer.id import ID
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.pubsub import Pubsub
from libp2p.tools.anyio_service import background_trio_service

from mesh.net.contain import contained
from mesh.ports import MESSAGE_BYTES_MAX, MessageHandler
from protocols.errors import LocalProtocolError
from protocols.ids import PeerId

PROTOCOL = TProtocol("/meshsub/1.1.0")
TOPICS_PER_PEER_MAX = 64
MESSAGES_PER_SECOND_MAX = 1000.0
"""Of one topic; more are dropped, our own counted."""
HEARTBEAT_RESTART_SECONDS = 1.0

log = logging.getLogger(__name__)


class _Router(GossipSub):  # type: ignore[misc]
    """GossipSub whose heartbeat survives its own exceptions (they took the host with them)."""

    async def heartbeat(self) -> None:
        while True:
            with contained("the gossip heartbeat", logging.WARNING):
                await super().heartbeat()
            await trio.sleep(HEARTBEAT_RESTART_SECONDS)


class _Pubsub(Pubsub):  # type: ignore[misc]
    """Pubsub that nothing received can take down: garbage on a stream, a malformed key or a raising validator did."""

    async def stream_handler(self, stream: Any) -> None:
        clean = False
        with contained("a gossip stream"):
            await super().stream_handler(stream)
            clean = True
        if not clean:
            with contained("closing a gossip stream"):
                await stream.reset()
                self._handle_dead_peer(stream.muxed_conn.peer_id)

    async def _handle_new_peer(self, peer_id: Any) -> None:
        """A subscription made while the greeting was under way was in neither the greeting nor an announcement, so that
        the peer never sent us anything of that topic: greet once more."""
        await super()._handle_new_peer(peer_id)
        queue = self.peer_queues.get(peer_id)
        if queue is not None:
            queue.push(self.get_hello_packet())

    async def handle_dead_peer_queue(self) -> None:
        """A peer that was back within 0.2 s of its connection's end kept the stream of its last life, which nobody
        reads: it was never told what we subscribe to, and so sent nothing."""
        async with self.dead_peer_receive_channel:
            self.event_handle_dead_peer_queue_started.set()
            async for peer_id in self.dead_peer_receive_channel:
                with contained("a gossip peer's end"):
                    stream = self.peers.get(peer_id)
                    if stream is None or stream.muxed_conn.event_shutting_down.is_set():
                        self._handle_dead_peer(peer_id)

    def _handle_dead_peer(self, peer_id: Any) -> None:
        """Drops our stream to the peer, and opens another if it is still connected. It forgot what such a peer had
        subscribed to, which the peer does not repeat."""
        connected = self._peer_is_connected(peer_id)
        kept = [topic for topic, peers in self.peer_topics.items() if connected and peer_id in peers]
        super()._handle_dead_peer(peer_id)
        for topic in kept:
            self.peer_topics.setdefault(topic, set()).add(peer_id)
            self._peer_subscription_count[peer_id] = len(kept)

    async def push_msg(self, msg_forwarder: Any, msg: Any) -> None:
        with contained("a gossip message"):
            await super().push_msg(msg_forwarder, msg)


class Gossip:
    """Publish and subscribe of the Network port. `run` before anything else."""

    def __init__(self, host: Any, peer_id: PeerId, nursery: trio.Nursery) -> None:
        self._peer_id = peer_id
        self._nursery = nursery
        self._handlers: dict[str, list[MessageHandler]] = {}
        self._router = _Router(
            [PROTOCOL],
            degree=4,
            degree_low=3,
            degree_high=6,
            heartbeat_interval=1,
            prune_back_off=10,
            unsubscribe_back_off=5,
            max_messages_per_topic_per_second=MESSAGES_PER_SECOND_MAX,
        )
        self.pubsub = _Pubsub(
            host,
            self._router,
            strict_signing=True,
            max_subscriptions_per_rpc=TOPICS_PER_PEER_MAX,
            max_subscriptions_per_peer=TOPICS_PER_PEER_MAX,
        )
        self.pubsub.counter = time.time_ns()

    async def run(self, task_status: Any = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled."""
        async with background_trio_service(self.pubsub), background_trio_service(self._router):
            await self.pubsub.wait_until_ready()
            task_status.started()
            await trio.sleep_forever()

    def subscribe(self, topic: str, handler: MessageHandler) -> None:
        handlers = self._handlers.setdefault(topic, [])
        handlers.append(handler)
        if len(handlers) == 1:
            self._nursery.start_soon(self._receive, topic, handlers)

    async def publish(self, topic: str, payload: bytes) -> None:
        if len(payload) > MESSAGE_BYTES_MAX:
            raise LocalProtocolError(f"gossip of {len(payload)} bytes is over the limit of {MESSAGE_BYTES_MAX}")
        await self.pubsub.publish(topic, payload)

    async def _receive(self, topic: str, handlers: list[MessageHandler]) -> None:
        self.pubsub.set_topic_validator(topic, self._valid, False)
        subscription = await self.pubsub.subscribe(topic)
        while True:
            message = await subscription.get()
            author = PeerId(ID(message.from_id).to_base58())
            if author == self._peer_id:
                continue
            for handler in handlers:
                with contained("a gossip handler", logging.ERROR):
                    handler(author, message.data)

    def _valid(self, forwarder: Any, message: Any) -> bool:
        """Signatures are checked before; this bounds what is kept and passed on."""
        return len(message.data) <= MESSAGE_BYTES_MAX and len(message.topicIDs) == 1 and len(message.seqno) == 8

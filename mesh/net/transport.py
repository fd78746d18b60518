"""The libp2p host that we build: TCP, noise and yamux under a swarm key, and none of what the library adds by default.

`libp2p.new_host` also offers plaintext, TLS and mplex to whoever asks, dials peers of its own accord, and queues every
peer's streams behind one semaphore. So the parts are put together here.
"""

from collections.abc import Callable, Sequence
from typing import Any

import trio
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.crypto.x25519 import create_new_key_pair as create_noise_key_pair
from libp2p.host.basic_host import BasicHost, _IdentifyNotifee
from libp2p.network.auto_connector import AutoConnector
from libp2p.network.config import ConnectionConfig, RetryConfig
from libp2p.network.connection.raw_connection import RawConnection
from libp2p.network.swarm import Swarm
from libp2p.peer.id import ID
from libp2p.peer.peerstore import PeerStore
from libp2p.security.noise.transport import PROTOCOL_ID as NOISE
from libp2p.security.noise.transport import Transport as NoiseTransport
from libp2p.stream_muxer.yamux.yamux import PROTOCOL_ID as YAMUX
from libp2p.stream_muxer.yamux.yamux import Yamux
from libp2p.transport.exceptions import SecurityUpgradeFailure
from libp2p.transport.tcp.tcp import TCP
from libp2p.transport.upgrader import TransportUpgrader
from multiaddr import Multiaddr

from mesh.net import patches
from mesh.net.contain import contained

HANDSHAKE_SECONDS_MAX = 4.0
"""Noise, and again the choice of the muxer; a stranger without the swarm key is closed after this at the latest."""

NEGOTIATION_SECONDS_MAX = 10
"""Agreeing on the protocol of a new stream."""

CONNECTIONS_MAX = 300
CONNECTIONS_INBOUND_MAX = 250
CONNECTIONS_PER_PEER_MAX = 8


class TimedUpgrader(TransportUpgrader):  # type: ignore[misc]
    """A refused client just hung, for 30 s and more: every handshake has a time limit, in both directions."""

    async def upgrade_security(self, raw_conn: Any, is_initiator: bool, peer_id: Any = None) -> Any:
        try:
            with trio.fail_after(HANDSHAKE_SECONDS_MAX):
                return await super().upgrade_security(raw_conn, is_initiator, peer_id)
        except trio.TooSlowError:
            raise SecurityUpgradeFailure(f"no handshake within {HANDSHAKE_SECONDS_MAX:.0f} s") from None


class _NoAutoConnector(AutoConnector):  # type: ignore[misc]
    """Our keeper knows whom to dial; the library would dial whatever is in its address book."""

    async def run_background_task(self, nursery: trio.Nursery) -> None:
        """No periodic check."""

    async def maybe_connect(self) -> None:
        """Nothing to connect to."""


class MeshSwarm(Swarm):  # type: ignore[misc]
    """The library's connection table, with inbound slots that are given back."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.auto_connector = _NoAutoConnector(swarm=self)
        self._inbound_limiter = trio.CapacityLimiter(CONNECTIONS_INBOUND_MAX)

    async def _do_handle_inbound_connection(self, read_write_closer: Any, maddr: Any, failure_event: Any) -> None:
        """The original held the inbound slot until the swarm ended: after 250 connections a node refused all others."""
        raw = RawConnection(read_write_closer, False)
        try:
            with contained("an inbound connection"):
                muxed = await self.upgrade_inbound_raw_conn(raw, maddr)
                await muxed.event_closed.wait()
        finally:
            with trio.CancelScope(shield=True), contained("closing a socket"):
                await raw.close()


class MeshHost(BasicHost):  # type: ignore[misc]
    """A host that no stream handler can take down, that does not identify every peer unasked, and that tells others
    where it really is."""

    def __init__(self, swarm: MeshSwarm) -> None:
        self.announced: Callable[[], Sequence[str]] = lambda: ()
        """Full multiaddrs under which others can reach this host."""
        super().__init__(swarm, negotiate_timeout=NEGOTIATION_SECONDS_MAX, disable_identify_address_discovery=True)
        swarm.notifees[:] = [n for n in swarm.notifees if not isinstance(n, _IdentifyNotifee)]

    def get_addrs(self) -> list[Multiaddr]:
        """It announced what it listens on: of a peer at 0.0.0.0, which Kubo takes for no address at all, Kubo asks for
        no block."""
        return [Multiaddr(address) for address in self.announced()]

    async def _swarm_stream_handler(self, net_stream: Any) -> None:
        """A handler that raised killed the host."""
        done = False
        with contained("a stream handler"):
            await super()._swarm_stream_handler(net_stream)
            done = True
        if not done:
            with contained("resetting a stream"):
                await net_stream.reset()


def new_host(seed: bytes, swarm_key: bytes) -> MeshHost:
    """A host that has not been started, listening on nothing."""
    patches.apply()
    key_pair = create_new_key_pair(seed)
    peer_id = ID.from_pubkey(key_pair.public_key)
    peerstore = PeerStore()
    peerstore.add_key_pair(peer_id, key_pair)
    noise = NoiseTransport(key_pair, noise_privkey=create_noise_key_pair().private_key)
    config = ConnectionConfig(
        max_connections=CONNECTIONS_MAX,
        min_connections=0,
        low_watermark=CONNECTIONS_MAX,
        high_watermark=CONNECTIONS_MAX,
        max_connections_per_peer=CONNECTIONS_PER_PEER_MAX,
        inbound_upgrade_timeout=2 * HANDSHAKE_SECONDS_MAX,
        outbound_upgrade_timeout=HANDSHAKE_SECONDS_MAX,
        outbound_stream_protocol_negotiation_timeout=NEGOTIATION_SECONDS_MAX,
        inbound_stream_protocol_negotiation_timeout=NEGOTIATION_SECONDS_MAX,
    )
    swarm = MeshSwarm(
        peer_id,
        peerstore,
        TimedUpgrader({NOISE: noise}, {YAMUX: Yamux}),
        transports=[TCP()],
        retry_config=RetryConfig(max_retries=0),
        connection_config=config,
        psk=swarm_key.hex(),
    )
    return MeshHost(swarm)

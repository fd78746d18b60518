"""The Network port on libp2p: puts host, connections, keeper, streams, gossip and discovery together, and takes them
apart.

`open_network` owns every task, socket and thread; when its context is left, cancelled or not, they are gone within
`CLOSE_SECONDS_MAX`. What its body raises comes out as it is, not wrapped in the groups of the nurseries inside.
"""

import mesh.net.lean  # noqa: F401  before anything of libp2p

# isort: split
import ipaddress
import logging
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import psutil
import trio
from multiaddr import Multiaddr

from mesh.net.connections import Connections
from mesh.net.contain import contained
from mesh.net.discovery import discover
from mesh.net.gossip import Gossip
from mesh.net.identity import Identity
from mesh.net.keeper import Keeper
from mesh.net.multiaddrs import join_address, parse_listen_address, split_address
from mesh.net.psk import fingerprint
from mesh.net.streams import Streams
from mesh.net.transport import MeshHost, new_host
from mesh.ports import CALL_SECONDS_DEFAULT, CallHandler, MessageHandler
from protocols.errors import UsageError
from protocols.ids import PeerId
from protocols.presence import Link

CLOSE_SECONDS_MAX = 4.0
INTERFACE_ADDRESSES_MAX = 16

log = logging.getLogger(__name__)


class MeshNetwork:
    """One node's view of the network; made by `open_network`."""

    def __init__(self, host: MeshHost, identity: Identity, nursery: trio.Nursery) -> None:
        self.host = host
        """The libp2p host, for protocols of its own (bitswap)."""
        host.announced = self.addresses
        self._identity = identity
        self._watchers: list[Callable[[PeerId, bool], None]] = []
        self._nursery = nursery
        self._bound: tuple[tuple[str, str, int], ...] = ()
        self._connections = Connections(host, nursery, self._changed)
        self._keeper = Keeper(host.get_network(), identity.peer_id, nursery, self._connections.__contains__)
        self._streams = Streams(host, identity.peer_id, nursery, self._connections.__contains__, self._keeper.problem)
        self._gossip = Gossip(host, identity.peer_id, nursery)

    @property
    def peer_id(self) -> PeerId:
        return self._identity.peer_id

    def sign(self, data: bytes) -> bytes:
        return self._identity.sign(data)

    @property
    def port(self) -> int:
        """The first TCP port that is listened on."""
        return self._bound[0][2]

    def addresses(self) -> tuple[str, ...]:
        """Real interface addresses in place of wildcards, loopback last, "/p2p/…" included."""
        found = [
            (kind, host, port)
            for bound_kind, bound_host, port in self._bound
            for kind, host in _hosts_behind(bound_kind, bound_host)
        ]
        found.sort(key=lambda entry: ipaddress.ip_address(entry[1]).is_loopback)
        return tuple(join_address(*entry, self.peer_id) for entry in dict.fromkeys(found))

    def links(self) -> Mapping[PeerId, Link]:
        return self._connections.links()

    def know(self, peer: PeerId, addresses: Sequence[str]) -> None:
        self._keeper.know(peer, addresses)

    def forget(self, peer: PeerId) -> None:
        self._keeper.forget(peer)
        for connection in self._connections.of(peer):
            self._nursery.start_soon(connection.abort)

    def problem(self, peer: PeerId) -> str:
        """Why the last attempt to reach this peer failed, as a sentence; "" if none did."""
        return self._keeper.problem(peer)

    def watch(self, changed: Callable[[PeerId, bool], None]) -> None:
        self._watchers.append(changed)

    def on_message(self, protocol: str, handler: MessageHandler) -> None:
        self._streams.on_message(protocol, handler)

    def on_call(self, protocol: str, handler: CallHandler) -> None:
        self._streams.on_call(protocol, handler)

    def send(self, peer: PeerId, protocol: str, payload: bytes) -> bool:
        return self._streams.send(peer, protocol, payload)

    async def call(self, peer: PeerId, protocol: str, payload: bytes, timeout: float = CALL_SECONDS_DEFAULT) -> bytes:
        """As the port says. A peer that was made known a moment ago is given its first round of dials."""
        start = trio.current_time()
        if peer != self.peer_id and peer not in self._connections:
            with trio.move_on_after(timeout):
                await self._keeper.first_dial(peer)
        return await self._streams.call(peer, protocol, payload, max(0.0, timeout - (trio.current_time() - start)))

    def subscribe(self, topic: str, handler: MessageHandler) -> None:
        self._gossip.subscribe(topic, handler)

    async def publish(self, topic: str, payload: bytes) -> None:
        await self._gossip.publish(topic, payload)

    async def _start(self, listen: Sequence[str], swarm_key: bytes, mdns: bool) -> None:
        await self._nursery.start(self._gossip.run)  # its notifee would hold up connections that come before it runs
        self._bound = await _listen(self.host.get_network(), self._identity, listen)
        if mdns:
            hosts = [split_address(address)[:2] for address in self.addresses()]
            hosts = [entry for entry in hosts if not ipaddress.ip_address(entry[1]).is_loopback] or hosts
            self._nursery.start_soon(
                discover, self.peer_id, fingerprint(swarm_key), hosts, self.port, self._keeper.found
            )

    def _changed(self, peer: PeerId, connected: bool) -> None:
        log.info("%s is %s", peer, "connected" if connected else "gone")
        if connected:
            self._keeper.gained(peer)
        else:
            self._keeper.lost(peer)
        for watcher in self._watchers:
            with contained("a watcher", logging.ERROR):
                watcher(peer, connected)


@asynccontextmanager
async def open_network(
    *, identity: Identity, swarm_key: bytes, listen: Sequence[str] = (), mdns: bool = True
) -> AsyncIterator[MeshNetwork]:
    """A running node of the mesh with this swarm key. `listen` empty: all interfaces, at a remembered port.

    `UsageError` if an address in `listen` can't be listened on.
    """
    checked = [parse_listen_address(address) for address in listen]
    host = new_host(identity.seed, swarm_key)
    failure: Exception | None = None
    async with host.run([]):
        try:
            async with trio.open_nursery() as nursery:
                network = MeshNetwork(host, identity, nursery)
                try:
                    await network._start(checked, swarm_key, mdns)
                    yield network
                except Exception as error:
                    failure = error
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(CLOSE_SECONDS_MAX):
                await _close(host)
    if failure is not None:
        raise failure


async def _listen(swarm: Any, identity: Identity, listen: Sequence[str]) -> tuple[tuple[str, str, int], ...]:
    """Bind, and tell where: kind, host and port of each socket. The library reports a failure to bind as False."""
    if listen:
        for address in listen:
            if not await swarm.listen(Multiaddr(address)):
                raise UsageError(f"can't listen on {address}: the port is taken, or the address is not of this host")
        return _bound(swarm)
    port = identity.remembered_port()
    bound = await swarm.listen(Multiaddr(f"/ip4/0.0.0.0/tcp/{port}"))
    if not bound and port:
        log.info("port %d of the last run is taken: using another one", port)
        bound = await swarm.listen(Multiaddr("/ip4/0.0.0.0/tcp/0"))
    if bound:
        port = _bound(swarm)[0][2]
    if not await swarm.listen(Multiaddr(f"/ip6/::/tcp/{port}")) and not bound:
        raise UsageError("can't listen on any interface of this host")
    found = _bound(swarm)
    identity.remember_port(found[0][2])
    return found


def _bound(swarm: Any) -> tuple[tuple[str, str, int], ...]:
    addresses = [str(address) for listener in swarm.listeners.values() for address in listener.get_addrs()]
    return tuple(sorted(split_address(address)[:3] for address in addresses))


def _hosts_behind(kind: str, host: str) -> list[tuple[str, str]]:
    """The interface addresses that a bound address stands for. Link-local ones need a scope that others can't know."""
    if not ipaddress.ip_address(host).is_unspecified:
        return [(kind, host)]
    family = socket.AF_INET if kind == "ip4" else socket.AF_INET6
    up = {name for name, stats in psutil.net_if_stats().items() if stats.isup}
    found = [
        entry.address
        for name, entries in sorted(psutil.net_if_addrs().items())
        for entry in entries
        if name in up and entry.family == family and "%" not in entry.address
    ]
    usable = [address for address in found if not ipaddress.ip_address(address).is_link_local]
    return [(kind, address) for address in usable[:INTERFACE_ADDRESSES_MAX]]


async def _close(host: MeshHost) -> None:
    """Close the sockets, then the host. The peers see the end at once; a farewell in each layer takes 0.2 s."""
    swarm = host.get_network()
    for conn in swarm.get_connections():
        with contained("closing a socket"):
            conn.muxed_conn.event_shutting_down.set()
            await conn.muxed_conn.secured_conn.close()
    swarm.connections.clear()
    with contained("closing the host"):
        await host.close()

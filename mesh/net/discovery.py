"""Finding the nodes of our mesh on the local network, by multicast DNS.

The service type carries a hash of the swarm key, so that meshes ask and answer only for their own (the key itself is
not to be had from it). zeroconf runs in threads of its own; what it finds comes into trio as names, and is resolved
there with a time limit. libp2p's own mDNS blocked trio for 1.5 s at the start and advertised 0.0.0.0. A network
without multicast costs one line of log: tickets and addresses still work. IPv4 multicast only.

Whoever is on the link, with our key or without, may answer: what an answer makes zeroconf raise costs that name, and
what goes wrong with discovery as a whole costs discovery, never the node.
"""

import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from mesh.net.contain import contained
from mesh.net.multiaddrs import check_peer_id, join_address
from protocols.errors import UsageError
from protocols.ids import PeerId

if TYPE_CHECKING:
    from zeroconf import ServiceInfo, Zeroconf

RESOLVE_MILLISECONDS_MAX = 3000
START_SECONDS_MAX = 10.0
STOP_SECONDS_MAX = 1.5
RECORD_SECONDS = 120
NAMES_WAITING_MAX = 256
RESOLVES_MAX = 16
"""At once, each in a thread of those that the whole node shares: whoever floods the link with names gets no more."""


log = logging.getLogger(__name__)

Found = Callable[[PeerId, Sequence[str]], None]


def service_type(fingerprint: str) -> str:
    """The DNS-SD type of one mesh; its label may have 15 characters."""
    return f"_mesh-{fingerprint[:9]}._tcp.local."


async def discover(
    peer_id: PeerId, fingerprint: str, hosts: Sequence[tuple[str, str]], port: int, found: Found
) -> None:
    """Advertise this node at `hosts` (pairs of "ip4" or "ip6" and address) and report others, until cancelled."""
    logging.getLogger("zeroconf").setLevel(logging.CRITICAL)  # tracebacks whenever a link goes down
    kind = service_type(fingerprint)
    names_in, names_out = trio.open_memory_channel[str](NAMES_WAITING_MAX)
    token = trio.lowlevel.current_trio_token()
    try:
        zeroconf = await trio.to_thread.run_sync(_open, [host for family, host in hosts if family == "ip4"])
    except Exception as error:  # OSError, or zeroconf's own for no usable interface
        log.info("no local discovery: this network has no multicast (%s)", error)
        return
    with contained("local discovery", logging.WARNING):
        try:
            info = _describe(kind, peer_id, hosts, port)
            await trio.to_thread.run_sync(_advertise_and_browse, zeroconf, kind, info, _Relay(token, names_in))
            async with trio.open_nursery() as nursery:
                for _ in range(RESOLVES_MAX):
                    nursery.start_soon(_resolve_each, zeroconf, kind, peer_id, names_out, found)
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(STOP_SECONDS_MAX):
                await trio.to_thread.run_sync(zeroconf.close, abandon_on_cancel=True)


class _Relay:
    """Carries names from zeroconf's thread into trio."""

    def __init__(self, token: trio.lowlevel.TrioToken, names: trio.MemorySendChannel[str]) -> None:
        self._token = token
        self._names = names

    def __call__(self, zeroconf: Any, service_type: str, name: str, state_change: Any) -> None:
        if state_change.name == "Removed":
            return  # the keeper finds out by itself, and a restarted node is added again
        try:
            self._token.run_sync_soon(self._put, name)
        except trio.RunFinishedError:
            return  # the program is over; zeroconf is about to be closed

    def _put(self, name: str) -> None:
        try:
            self._names.send_nowait(name)
        except (trio.WouldBlock, trio.BrokenResourceError):
            log.debug("a discovered name was dropped")


def _open(ip4: list[str]) -> "Zeroconf":
    from zeroconf import IPVersion, Zeroconf

    return Zeroconf(interfaces=ip4, ip_version=IPVersion.V4Only)


def _describe(kind: str, peer_id: PeerId, hosts: Sequence[tuple[str, str]], port: int) -> "ServiceInfo":
    from zeroconf import ServiceInfo

    return ServiceInfo(
        kind,
        f"{peer_id}.{kind}",
        port=port,
        parsed_addresses=[host for _, host in hosts],
        server=f"{peer_id}.local.",
        host_ttl=RECORD_SECONDS,
        other_ttl=RECORD_SECONDS,
    )


def _advertise_and_browse(zeroconf: "Zeroconf", kind: str, info: "ServiceInfo", relay: _Relay) -> None:
    from zeroconf import ServiceBrowser

    ServiceBrowser(zeroconf, kind, handlers=[relay])
    # A peer ID is unique by itself: no need to probe for other owners of the name, which takes most of a second.
    zeroconf.register_service(info, cooperating_responders=True)


async def _resolve_each(
    zeroconf: "Zeroconf", kind: str, own: PeerId, names: trio.MemoryReceiveChannel[str], found: Found
) -> None:
    async for name in names:
        if not name.startswith(own):
            await _resolve(zeroconf, kind, name, found)


async def _resolve(zeroconf: "Zeroconf", kind: str, name: str, found: Found) -> None:
    with contained(f"resolving {name!r}"):
        ask = partial(zeroconf.get_service_info, kind, name, RESOLVE_MILLISECONDS_MAX)
        info = await trio.to_thread.run_sync(ask, abandon_on_cancel=True)
        if info is None or not info.port:
            return
        try:
            peer = check_peer_id(name.removesuffix(f".{kind}"))
        except UsageError:
            return  # somebody else's idea of our service type
        hosts = info.parsed_scoped_addresses()
        found(peer, [join_address("ip6" if ":" in h else "ip4", h, info.port, peer) for h in hosts if "%" not in h])

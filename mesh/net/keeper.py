"""Keeps a connection to every known peer: dials, again and again, until told to forget it.

Everything here is ours because the library's dialler takes a minute to come back, remembers a failure for a minute,
tries one address only and has no time limit. Both sides of a lost connection dial. The one with the higher ID waits a
moment, so that one connection is made as a rule; but it does dial, because its direction may be the only one that
works.
"""

import logging
import random
import socket
from collections.abc import Sequence
from typing import Any

import trio
from libp2p.peer.id import ID
from multiaddr import Multiaddr

from mesh.net.multiaddrs import check_peer_id, join_address, split_address
from protocols.errors import UsageError
from protocols.ids import PeerId

DIAL_SECONDS_MAX = 5.0
"""One address, handshakes included."""
STAGGER_SECONDS = 0.25
"""Head start of each address of a peer before the next one."""
RETRY_SECONDS = (0.2, 1.0, 1.0, 1.5, 2.0, 3.0)
"""Before each further round of dials; the last one for good. Times a jitter of 0.7 to 1.3."""
YIELD_SECONDS = 0.4
"""What the higher peer ID waits for the other's dial."""
SETTLED_SECONDS = 5.0
"""A connection that lived shorter counts as another failure: no storm of dials that are dropped at once."""
PEERS_MAX = 1024
ADDRESSES_MAX = 32
FORGET_FOUND_SECONDS = 600.0
"""A peer that was only found, never told, is forgotten after this long without a connection."""

log = logging.getLogger(__name__)


class _Kept:
    """One peer that we want to be connected to."""

    def __init__(self) -> None:
        self.told: tuple[str, ...] = ()
        self.found: tuple[str, ...] = ()
        self.scope = trio.CancelScope()
        self.hurry = trio.Event()
        self.lost = trio.Event()
        self.first_round = trio.Event()
        """Set once every address has been tried, or one has worked."""
        self.problem = ""
        self.last_good = ""

    def addresses(self) -> list[str]:
        """Without repeats, the one that worked last first."""
        wanted = [self.last_good, *self.told, *self.found]
        known = {*self.told, *self.found}
        return [address for address in dict.fromkeys(wanted) if address in known][:ADDRESSES_MAX]


class Keeper:
    """The peers to be connected to, each with a task that dials it."""

    def __init__(self, swarm: Any, peer_id: PeerId, nursery: trio.Nursery, connected: Any) -> None:
        self._swarm = swarm
        self._peer_id = peer_id
        self._nursery = nursery
        self._connected = connected
        self._kept: dict[PeerId, _Kept] = {}
        self._random = random.Random()

    def know(self, peer: PeerId, addresses: Sequence[str]) -> None:
        """Told by a service: these replace what was told before."""
        if len(self._kept) >= PEERS_MAX and peer not in self._kept:
            self._make_room()
        kept = self._keep(peer)
        if kept is not None and kept.told != tuple(addresses):
            kept.told = tuple(addresses)
            kept.hurry.set()

    def found(self, peer: PeerId, addresses: Sequence[str]) -> None:
        """Seen on the local network."""
        kept = self._keep(peer)
        if kept is not None and kept.found != tuple(addresses):
            kept.found = tuple(addresses)
            kept.hurry.set()

    def forget(self, peer: PeerId) -> None:
        kept = self._kept.pop(peer, None)
        if kept is not None:
            kept.scope.cancel()
            kept.first_round.set()

    def gained(self, peer: PeerId) -> None:
        """The first connection to this peer is there, whoever dialled it."""
        kept = self._kept.get(peer)
        if kept is not None:
            kept.first_round.set()
            kept.hurry.set()

    def lost(self, peer: PeerId) -> None:
        """The last connection to this peer ended."""
        kept = self._kept.get(peer)
        if kept is not None:
            kept.lost.set()

    def problem(self, peer: PeerId) -> str:
        """Why the last dial of this peer failed, "" if none did."""
        kept = self._kept.get(peer)
        return kept.problem if kept is not None and not self._connected(peer) else ""

    async def first_dial(self, peer: PeerId) -> None:
        """Wait until a peer just learnt of is connected, or all its addresses have failed once."""
        kept = self._kept.get(peer)
        if kept is not None:
            await kept.first_round.wait()

    def _keep(self, peer: PeerId) -> _Kept | None:
        if peer == self._peer_id:
            return None
        kept = self._kept.get(peer)
        if kept is None:
            try:
                check_peer_id(peer)
            except UsageError as error:
                log.debug("not kept: %s", error)
                return None
            if len(self._kept) >= PEERS_MAX:
                log.warning("%s is not kept: %d peers are known already", peer, PEERS_MAX)
                return None
            kept = self._kept[peer] = _Kept()
            self._nursery.start_soon(self._run, peer, kept)
        return kept

    def _make_room(self) -> None:
        """Forget one who was only found: anybody on the link can be found, under as many names as he likes."""
        for peer, kept in self._kept.items():
            if not kept.told and not self._connected(peer):
                self.forget(peer)
                return

    async def _run(self, peer: PeerId, kept: _Kept) -> None:
        with kept.scope:
            failures = 0
            both_dial = not kept.told  # a peer that was found on the local network has found us as well
            alone_since = trio.current_time()
            while kept.told or trio.current_time() < alone_since + FORGET_FOUND_SECONDS:
                if self._connected(peer):
                    since = trio.current_time()
                    await self._stay(kept)
                    alone_since = trio.current_time()
                    if alone_since > since + SETTLED_SECONDS:
                        failures = 0
                    await self._pause(kept, failures)
                    both_dial = True
                if both_dial and self._peer_id > peer and not self._connected(peer):
                    await self._wait(kept, YIELD_SECONDS)
                if not self._connected(peer):
                    await self._dial_round(peer, kept)
                    if not self._connected(peer):
                        kept.first_round.set()
                        await self._pause(kept, failures)
                    failures += 1
        if self._kept.get(peer) is kept:
            del self._kept[peer]

    async def _stay(self, kept: _Kept) -> None:
        """Until the connection is lost."""
        kept.lost = trio.Event()
        kept.first_round.set()
        kept.problem = ""
        await kept.lost.wait()

    async def _pause(self, kept: _Kept, failures: int) -> None:
        delay = RETRY_SECONDS[min(failures, len(RETRY_SECONDS) - 1)]
        await self._wait(kept, delay * self._random.uniform(0.7, 1.3))

    async def _wait(self, kept: _Kept, seconds: float) -> None:
        kept.hurry = trio.Event()
        with trio.move_on_after(seconds):
            await kept.hurry.wait()

    async def _dial_round(self, peer: PeerId, kept: _Kept) -> None:
        """Try the addresses, each with a head start before the next; the first that works ends the round."""
        failures: list[str] = []
        done = trio.CancelScope()

        async def attempt(address: str, failed: trio.Event) -> None:
            why = await self._dial(peer, address)
            if why:
                failures.append(why)
                failed.set()
            else:
                kept.last_good = address
                done.cancel()

        with done:
            async with trio.open_nursery() as nursery:
                for address in kept.addresses():
                    failed = trio.Event()
                    nursery.start_soon(attempt, address, failed)
                    with trio.move_on_after(STAGGER_SECONDS):
                        await failed.wait()
        if not self._connected(peer) and failures and failures[0] != kept.problem:
            kept.problem = failures[0]
            log.info("can't reach %s: %s", peer, kept.problem)

    async def _dial(self, peer: PeerId, address: str) -> str:
        """Dial one address; "" if a connection came of it, else the reason why not."""
        target = ID.from_base58(peer)
        self._swarm.unblock_peer(target)
        try:
            with trio.fail_after(DIAL_SECONDS_MAX):
                for resolved in await _resolve(peer, address):
                    await self._swarm.dial_addr(Multiaddr(resolved), target)
                    return ""
                return f"{address} has no such host"
        except trio.TooSlowError:
            return f"{address} did not answer within {DIAL_SECONDS_MAX:.0f} s"
        except UsageError as error:
            return str(error)
        except Exception as error:  # the library raises nearly anything from a dial
            return _explain(address, error)


async def _resolve(peer: PeerId, address: str) -> list[str]:
    """The address with its host name, if it has one, as numbers (by the system, /etc/hosts included)."""
    kind, host, port, named = split_address(address)
    if named is not None and named != peer:
        raise UsageError(f"{address} belongs to another peer than {peer}")
    if not kind.startswith("dns"):
        return [join_address(kind, host, port, peer)]
    family = {"dns4": socket.AF_INET, "dns6": socket.AF_INET6}.get(kind, socket.AF_UNSPEC)
    try:
        found = await trio.socket.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM)
    except OSError:
        return []
    kinds = {socket.AF_INET: "ip4", socket.AF_INET6: "ip6"}
    return [join_address(kinds[entry[0]], str(entry[4][0]), port, peer) for entry in found if entry[0] in kinds]


def _explain(address: str, error: BaseException) -> str:
    """A sentence about a failed dial."""
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and len(chain) < 8:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    text = " ".join(str(link) for link in chain)
    if "Peer ID mismatch" in text:
        return f"{address} is another peer now"
    for link in chain:
        if isinstance(link, OSError) and link.strerror:
            return f"{address}: {link.strerror}"
    if "fail to open connection" in text:
        return f"{address}: connection refused or no route"
    return f"{address} closed the connection during the handshake; it may belong to a mesh with another swarm key"

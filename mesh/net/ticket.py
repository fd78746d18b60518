"""The join ticket: one pasteable line with a mesh's swarm key and some of its nodes' addresses.

"mesh1" and base64url, without padding, of a message in our codec followed by four bytes of its SHA-256: a mangled
paste is told from a ticket of another mesh. Whoever has the line can join, so nothing logs it. Light to import: the
command line checks a ticket before it loads libp2p.
"""

import base64
import binascii
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from mesh.net.multiaddrs import join_address, parse_peer_address, split_address
from mesh.net.psk import KEY_BYTES
from protocols.codec import decode, encode, message
from protocols.errors import RemoteProtocolError, UsageError
from protocols.ids import PeerId

PREFIX = "mesh1"
TICKET_CHARACTERS_MAX = 8192
TICKET_ADDRESSES_MAX = 32
_CHECK_BYTES = 4


@dataclass(frozen=True, slots=True)
class Ticket:
    swarm_key: bytes
    addresses: tuple[str, ...]
    """Multiaddrs, each with /p2p/ID, best first."""

    def peers(self) -> dict[PeerId, list[str]]:
        """The addresses of each peer, in order."""
        found: dict[PeerId, list[str]] = {}
        for address in self.addresses:
            found.setdefault(parse_peer_address(address)[0], []).append(address)
        return found


@message("n.ticket")
class _Packed:
    """The ticket's content; addresses grouped by peer, because a peer ID is longer than all the rest."""

    key: bytes
    peers: tuple[tuple[str, tuple[str, ...]], ...]


def format_ticket(swarm_key: bytes, addresses: Sequence[str]) -> str:
    """The line. Takes the first `TICKET_ADDRESSES_MAX` addresses."""
    groups: dict[PeerId, list[str]] = {}
    for address in addresses[:TICKET_ADDRESSES_MAX]:
        kind, host, port, _ = split_address(address)
        groups.setdefault(parse_peer_address(address)[0], []).append(f"{kind}/{host}/{port}")
    body = encode(_Packed(swarm_key, tuple((peer, tuple(hosts)) for peer, hosts in groups.items())))
    return PREFIX + base64.urlsafe_b64encode(body + _check(body)).rstrip(b"=").decode()


def is_ticket(text: str) -> bool:
    """Whether `text` is meant as a ticket (and not as a multiaddr)."""
    return text.strip().startswith(PREFIX)


def parse_ticket(text: str) -> Ticket:
    """The ticket in `text`; `UsageError` with one sentence that says what is wrong with it (and shows no key)."""
    line = "".join(text.split())
    if not line.startswith(PREFIX):
        raise UsageError(f"a join ticket begins with {PREFIX!r}; get one with `mesh ticket`")
    if len(line) > TICKET_CHARACTERS_MAX:
        raise UsageError(f"the join ticket is too long ({len(line)} characters)")
    encoded = line[len(PREFIX) :]
    try:
        raw = base64.b64decode(encoded + "=" * (-len(encoded) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise UsageError("the join ticket holds characters that no ticket has; copy it again") from None
    body, check = raw[:-_CHECK_BYTES], raw[-_CHECK_BYTES:]
    if not body or check != _check(body):
        raise UsageError("the join ticket is damaged or cut short (its checksum is wrong); copy it again")
    try:
        packed = decode(body, _Packed)
    except RemoteProtocolError as error:
        raise UsageError(f"the join ticket was made by another version of this program ({error})") from None
    if len(packed.key) != KEY_BYTES:
        raise UsageError(f"the join ticket's swarm key has {len(packed.key)} bytes instead of {KEY_BYTES}")
    addresses = []
    for peer, hosts in packed.peers:
        for host in hosts:
            parts = host.split("/")
            if len(parts) != 3 or not parts[2].isdigit():
                raise UsageError(f"the join ticket holds the address {host[:80]!r}, which is none")
            addresses.append(parse_peer_address(join_address(parts[0], parts[1], int(parts[2]), PeerId(peer)))[1])
    if len(addresses) > TICKET_ADDRESSES_MAX:
        raise UsageError(
            f"the join ticket holds {len(addresses)} addresses; at most {TICKET_ADDRESSES_MAX} are allowed"
        )
    return Ticket(packed.key, tuple(addresses))


def _check(body: bytes) -> bytes:
    return hashlib.sha256(b"mesh ticket\0" + body).digest()[:_CHECK_BYTES]

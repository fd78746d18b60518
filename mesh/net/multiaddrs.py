"""Addresses as text: which multiaddrs we dial, listen on and hand out, checked without loading libp2p.

We speak TCP and nothing else, so an address is /ip4|ip6|dns|dns4|dns6/HOST/tcp/PORT, and /p2p/ID where it names a
peer. The multiaddr package would accept far more (and costs 100 ms to import), only to be refused later with a worse
sentence.
"""

import ipaddress
import re

import base58

from protocols.errors import UsageError
from protocols.ids import PeerId

ADDRESS_CHARACTERS_MAX = 512
PEER_ID_CHARACTERS_MAX = 64

_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)(\.(?!-)[A-Za-z0-9_-]{1,63}(?<!-))*\.?")
_EXAMPLE = "/ip4/192.0.2.1/tcp/4001/p2p/12D3KooW…"


def check_peer_id(text: str) -> PeerId:
    """`text` as a peer ID in base58: the multihash of an Ed25519 key, or a SHA-256 of a longer one. Exactly as it is
    written there: base58 itself takes spaces behind it, which would make another name of the same peer."""
    try:
        raw = base58.b58decode(text) if len(text) <= PEER_ID_CHARACTERS_MAX and not text[-1:].isspace() else b""
    except ValueError:
        raw = b""
    if not (raw[:2] == b"\x00\x24" and len(raw) == 38) and not (raw[:2] == b"\x12\x20" and len(raw) == 34):
        raise UsageError(f"{_short(text)} is not a peer ID (base58, such as 12D3KooW…)")
    return PeerId(text)


def split_address(text: str) -> tuple[str, str, int, PeerId | None]:
    """Host kind ("ip4", "dns", …), host, port and peer of a multiaddr; `UsageError` names what is wrong."""
    if len(text) > ADDRESS_CHARACTERS_MAX:
        raise UsageError(f"{_short(text)} is too long for a multiaddr ({len(text)} characters)")
    parts = text.split("/")
    if parts[0] != "" or len(parts) not in (5, 7) or parts[3] != "tcp" or (len(parts) == 7 and parts[5] != "p2p"):
        raise UsageError(f"{_short(text)} is not a TCP multiaddr; expected something like {_EXAMPLE}")
    kind, host, port_text = parts[1], parts[2], parts[4]
    if not _host_ok(kind, host):
        raise UsageError(f"{_short(text)} is not a multiaddr: /{kind}/{host} names no host")
    if not port_text.isascii() or not port_text.isdigit() or int(port_text) > 65535:
        raise UsageError(f"{_short(text)} is not a multiaddr: {port_text!r} is no TCP port")
    return kind, host, int(port_text), check_peer_id(parts[6]) if len(parts) == 7 else None


def parse_peer_address(text: str) -> tuple[PeerId, str]:
    """The peer and the whole text of a multiaddr to dial, which must end in /p2p/ID."""
    _, _, port, peer = split_address(text)
    if peer is None:
        raise UsageError(f"{_short(text)} does not say which peer it is; expected something like {_EXAMPLE}")
    if port == 0:
        raise UsageError(f"{_short(text)} has port 0, which nobody can be reached at")
    return peer, text


def parse_listen_address(text: str) -> str:
    """`text` as an address to listen on: /ip4 or /ip6, a TCP port (0: the system picks), no peer."""
    kind, _, _, peer = split_address(text)
    if kind not in ("ip4", "ip6") or peer is not None:
        raise UsageError(f"{_short(text)} can't be listened on; expected something like /ip4/0.0.0.0/tcp/4001")
    return text


def join_address(kind: str, host: str, port: int, peer: PeerId) -> str:
    return f"/{kind}/{host}/tcp/{port}/p2p/{peer}"


def _host_ok(kind: str, host: str) -> bool:
    if kind in ("dns", "dns4", "dns6"):
        return len(host) <= 253 and _NAME.fullmatch(host) is not None
    try:
        if kind == "ip4":
            ipaddress.IPv4Address(host)
            return True
        if kind == "ip6":
            return ipaddress.IPv6Address(host).scope_id is None
    except ValueError:
        return False
    return False


def _short(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "…")

"""What clients name (a CID, a run, an address to listen on), checked. Light to import: the commands use it too.

Invariant: what is returned is canonical (CIDv1 in base32), so that the same content never has two names inside.
"""

import base64
import binascii
import hashlib
import hmac
import re

from protocols.errors import UsageError
from protocols.ids import Cid, RunId

RUN_MAX = 2**63 - 1

CID_CHARACTERS_MAX = 200

_RUN = re.compile(r"[0-9]{1,19}\Z")
_CID_V1 = re.compile(r"b[a-z2-7]+\Z")
_CID_V0 = re.compile(r"Qm[1-9A-HJ-NP-Za-km-z]{44}\Z")
_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"

DAG_PB = 0x70


def digits(text: str, digits_max: int) -> int | None:
    """A whole number, from 0; None: it is none, or a longer one."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= digits_max else None


def parse_run(text: str) -> RunId:
    if not _RUN.match(text) or int(text) > RUN_MAX:
        raise UsageError(f"{text[:80]!r} is not a run; a run is a number, as `mesh runs` lists them")
    return RunId(int(text))


def parse_cid(text: str) -> Cid:
    """A CIDv1 in base32 whose digest has the length that it claims; CIDv0 is turned into it."""
    wrong = UsageError(f"{text[:80]!r} is not a CID; one is expected in base32, such as bafy… or bafk…")
    if _CID_V0.match(text):
        return _encode(bytes([1, DAG_PB]) + _base58(text))
    if not _CID_V1.match(text) or len(text) > CID_CHARACTERS_MAX:
        raise wrong
    try:
        raw = base64.b32decode(text[1:].upper() + "=" * (-(len(text) - 1) % 8))
    except binascii.Error:
        raise wrong from None
    digest = raw
    numbers = []
    for _ in range(4):  # version, codec, hash function, digest length
        number, digest = _varint(digest)
        numbers.append(number)
    if numbers[0] != 1 or numbers[3] != len(digest) or not digest or _encode(raw) != text:
        raise wrong
    return Cid(text)


def _encode(raw: bytes) -> Cid:
    return Cid("b" + base64.b32encode(raw).decode().rstrip("=").lower())


def _base58(text: str) -> bytes:
    number = 0
    for character in text:
        number = number * 58 + _BASE58.index(character)
    return number.to_bytes(34, "big")


def _varint(raw: bytes) -> tuple[int, bytes]:
    """An unsigned varint and what follows it; -1 when there is none."""
    number = 0
    for position, byte in enumerate(raw[:5]):
        number |= (byte & 0x7F) << (7 * position)
        if byte < 0x80:
            return number, raw[position + 1 :]
    return -1, b""


def parse_bind(text: str) -> tuple[str, int]:
    """HOST:PORT, IPv6 in brackets."""
    host, _, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    name = host[1:-1] if bracketed else host
    if not name or (":" in name and not bracketed) or not _is_port(port):
        raise UsageError(f"--api {text!r} is not HOST:PORT (such as 127.0.0.1:0) nor 'off'")
    return name, int(port)


def _is_port(text: str) -> bool:
    number = digits(text, 5)
    return number is not None and number <= 65535


VIEW = "/view/"

STATIC = "/static/"
"""What the dashboard's page loads; like the page itself, it holds no data."""


def view_path(token: str, cid: str) -> str:
    """Where a browser, which sends no token, may read what is under one root: a link that opens that and nothing else.

    In the path, and not in a cookie or a query, so that what lies beside a page is found from it, and because a
    cookie is sent to every port of a host.
    """
    key = hmac.new(token.encode(), f"ipfs {cid}".encode(), hashlib.sha256).hexdigest()
    return f"{VIEW}{key}/ipfs/{cid}"

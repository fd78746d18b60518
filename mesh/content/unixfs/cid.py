"""Content identifiers: CIDv1, sha2-256, in base32. A CIDv0 ("Qm…") is understood and becomes its CIDv1.

A block is kept and compared by its multihash alone, because one block may be named under several codecs; the CID
says how to read it.
"""

import functools
import hashlib

from mesh.content.unixfs.protobuf import read_varint, varint
from protocols.errors import RemoteProtocolError, UsageError
from protocols.ids import Cid, cid_binary, cid_text

RAW, DAG_PB, DAG_CBOR = 0x55, 0x70, 0x71
CODECS = {"raw": RAW, "dag-pb": DAG_PB, "dag-cbor": DAG_CBOR}
SHA2_256 = b"\x12\x20"
MULTIHASH_BYTES = 34
PARSED_MAX = 16_384
"""CIDs whose parts are remembered: each is asked for several times on its way."""

BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


def multihash_of(data: bytes) -> bytes:
    return SHA2_256 + hashlib.sha256(data).digest()


def make_cid(codec: int, multihash: bytes) -> Cid:
    return cid_text(b"\x01" + varint(codec) + multihash)


def cid_of(data: bytes, codec: int = RAW) -> Cid:
    return make_cid(codec, multihash_of(data))


def cid_from_bytes(binary: bytes) -> Cid:
    """The CID whose binary form is `binary`; `RemoteProtocolError` for what we do not speak."""
    codec, multihash = _split(binary)
    return make_cid(codec, multihash)


def cid_bytes(cid: Cid) -> bytes:
    codec, multihash = parse_cid(cid)
    return b"\x01" + varint(codec) + multihash


def as_raw(cid: Cid) -> Cid:
    """The same block under the codec raw: it and nothing that it links."""
    return make_cid(RAW, parse_cid(cid)[1])


@functools.lru_cache(maxsize=PARSED_MAX)
def parse_cid(cid: str) -> tuple[int, bytes]:
    """(codec, multihash); `RemoteProtocolError` if `cid` is not a CID of ours."""
    return _split(_decode_text(cid))


def check_cid(text: str) -> Cid:
    """The CID that a person wrote, as CIDv1 in base32; `UsageError` when it is none."""
    try:
        codec, multihash = parse_cid(text.strip())
    except RemoteProtocolError as error:
        raise UsageError(f"{text!r} is not a CID that this mesh can use: {error}") from None
    return make_cid(codec, multihash)


def _decode_text(text: str) -> bytes:
    if len(text) == 46 and text.startswith("Qm"):
        return _base58(text)
    try:
        return cid_binary(text)
    except ValueError as error:
        raise RemoteProtocolError(str(error)) from None


def _base58(text: str) -> bytes:
    value = 0
    for character in text:
        digit = BASE58.find(character)
        if digit < 0:
            raise RemoteProtocolError("it has characters that base58 lacks")
        value = value * 58 + digit
    if value >> 8 * MULTIHASH_BYTES:
        raise RemoteProtocolError("it is no sha2-256 multihash")
    return value.to_bytes(MULTIHASH_BYTES, "big")


def _split(binary: bytes) -> tuple[int, bytes]:
    if len(binary) == MULTIHASH_BYTES and binary.startswith(SHA2_256):
        return DAG_PB, bytes(binary)
    version, position = read_varint(binary, 0)
    if version != 1:
        raise RemoteProtocolError(f"CID version {version} is unknown")
    codec, position = read_varint(binary, position)
    multihash = bytes(binary[position:])
    if codec not in (RAW, DAG_PB, DAG_CBOR):
        raise RemoteProtocolError(f"its codec 0x{codec:x} is none of raw, dag-pb and dag-cbor")
    if len(multihash) != MULTIHASH_BYTES or not multihash.startswith(SHA2_256):
        raise RemoteProtocolError("its hash is not sha2-256")
    return codec, multihash

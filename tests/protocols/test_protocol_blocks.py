"""Messages as IPLD blocks: strict DAG-CBOR, in which a CID is a link."""

import hashlib
import struct

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.codec import decode, encode, encode_block
from protocols.errors import LocalProtocolError, RemoteProtocolError
from protocols.ids import Cid, LeaseId, PeerId, RunId, TestIndex, cid_binary, cid_text
from protocols.manifests import Chunk, EnvironmentInfo, Origin, Outcome, Record, RunSpec, Seal
from protocols.presence import Presence, Role

ONE, TWO = (cid_text(b"\x01\x71\x12\x20" + hashlib.sha256(data).digest()) for data in (b"1", b"2"))
RECORD = Record("t.py::test", Outcome.PASSED, 0.5, 1e9, PeerId("12D3"), 0, 1, artifacts=ONE, origin=TWO)
ORIGIN = Origin(
    RunId(3),
    RunSpec(ONE, "n", "p", PeerId("x"), selection=TWO),
    TWO,
    EnvironmentInfo("ambient", "d", "cpython", "3.12.1", "linux-x86_64", ONE),
    (("PYTHONHASHSEED", "1"),),
)
SEAL = Seal(RunId(3), PeerId("12D3"), 1.0, ((PeerId("12D3"), "n"),), 1, 1, (("a", ONE), ("b", TWO)), b"s")
CHUNK = Chunk((TestIndex(0),), (encode_block(RECORD),), RunId(3), LeaseId(9), PeerId("12D3"), TWO, b"s")


def links(value: object) -> list[Cid]:
    if isinstance(value, cbor2.CBORTag):
        assert value.tag == 42
        return [cid_text(value.value[1:])]
    return [link for item in value for link in links(item)] if isinstance(value, list) else []


@pytest.mark.parametrize(
    ("made", "expected"),
    [(RECORD, [ONE, TWO]), (ORIGIN, [ONE, TWO, TWO, ONE]), (SEAL, [ONE, TWO]), (CHUNK, [TWO])],
    ids=["record", "origin", "seal", "chunk"],
)
def test_cids_are_links_and_come_back_as_they_were(made: object, expected: list[Cid]) -> None:
    block = encode_block(made)
    assert links(cbor2.loads(block)) == expected
    assert decode(block, type(made)) == made
    assert decode(encode(made), type(made)) == made, "what was stored before is text"
    assert links(cbor2.loads(encode(made))) == []


def test_floats_have_64_bits_and_keys_are_sorted() -> None:
    """As DAG-CBOR's strictness section has it; the messages' own CBOR writes floats as short as they can be."""
    assert b"\xfb" + struct.pack(">d", 0.5) in encode_block(RECORD)
    presence = Presence(
        PeerId("p"), "n", Role.AUTO, 1, 1, (), 1, 0, False, {"bb": 1, "a": 2.0, "aa": 3, "c": (1, 2)}, {}, (), ()
    )
    raw = cbor2.loads(encode_block(presence))
    (mapping,) = [item for item in raw if isinstance(item, dict) and item]
    assert list(mapping) == ["a", "c", "aa", "bb"]
    assert decode(encode_block(presence), Presence) == presence


@given(st.binary(min_size=1, max_size=60))
def test_text_of_cids(binary: bytes) -> None:
    assert cid_binary(cid_text(binary)) == binary


@pytest.mark.parametrize("text", ["", "Qm1", "b1", "bß", "b" * 200, "ba", "b a"])
def test_text_that_is_no_cid(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected CIDv1|base32|cut off"):
        cid_binary(text)
    if text:
        with pytest.raises(LocalProtocolError, match="is not a CID"):
            encode_block(Record("t", Outcome.PASSED, 0.0, 0.0, PeerId("w"), 0, 1, artifacts=Cid(text)))


@pytest.mark.parametrize("raw", [cbor2.CBORTag(42, b""), cbor2.CBORTag(42, "text"), cbor2.CBORTag(43, b"\0x"), 5, b"x"])
def test_what_is_no_link_is_refused(raw: object) -> None:
    junk = ["m.environment", "ambient", "d", "cpython", "3", "linux", raw]
    with pytest.raises(RemoteProtocolError):
        decode(cbor2.dumps(junk), EnvironmentInfo)

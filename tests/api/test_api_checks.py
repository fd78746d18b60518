import base64
import contextlib
import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.api.checks import parse_bind, parse_cid, parse_run
from protocols.errors import UsageError


def cid_of(data: bytes, codec: int = 0x55) -> str:
    raw = bytes([1, codec, 0x12, 32]) + hashlib.sha256(data).digest()
    return "b" + base64.b32encode(raw).decode().rstrip("=").lower()


@settings(deadline=None)
@given(st.binary())
def test_every_sha256_cid_is_taken_as_it_is(data: bytes) -> None:
    assert parse_cid(cid_of(data)) == cid_of(data)
    assert parse_cid(cid_of(data, 0x70)) == cid_of(data, 0x70)


@settings(deadline=None)
@given(st.text())
def test_junk_is_a_usage_error(text: str) -> None:
    for parse in (parse_cid, parse_run, parse_bind):
        with contextlib.suppress(UsageError):
            parse(text)


@pytest.mark.parametrize("change", [lambda c: c[:-1], lambda c: c + "a", lambda c: c.upper(), lambda c: "z" + c[1:]])
def test_a_damaged_cid_is_refused(change) -> None:
    with pytest.raises(UsageError, match="is not a CID"):
        parse_cid(change(cid_of(b"x")))


def test_cid_version_0_becomes_version_1() -> None:
    # The example of the IPFS documentation of CIDs.
    assert (
        parse_cid("QmbWqxBEKC3P8tqsKc98xmWNzrzDtRLMiMPL8wBuTGsMnR")
        == "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi"
    )


def test_bind() -> None:
    assert parse_bind("127.0.0.1:0") == ("127.0.0.1", 0)
    assert parse_bind("[::1]:8080") == ("::1", 8080)
    for wrong in ("", "127.0.0.1", ":80", "::1:80", "host:", "host:x", "host:65536", "host:-1"):
        with pytest.raises(UsageError, match="HOST:PORT"):
            parse_bind(wrong)

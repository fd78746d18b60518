"""Frames survive any cutting of the bytes, and no peer can make us keep more than one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.errors import LocalProtocolError, RemoteProtocolError
from protocols.framing import FRAME_BYTES_MAX, HEADER_BYTES, FrameDecoder, frame


@given(st.lists(st.binary(max_size=50), max_size=8), st.data())
def test_any_chunking(payloads: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(map(frame, payloads))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    decoder = FrameDecoder()
    received = []
    for start, stop in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        received += decoder.feed(stream[start:stop])
    assert received == payloads
    decoder.finish()


@given(st.binary(max_size=20), st.data())
def test_an_end_inside_a_frame_is_an_error(payload: bytes, data: st.DataObject) -> None:
    stream = frame(payload)
    cut = data.draw(st.integers(1, len(stream) - 1))
    decoder = FrameDecoder()
    assert decoder.feed(stream[:cut]) == []
    with pytest.raises(RemoteProtocolError, match=f"{cut} bytes in"):
        decoder.finish()


def test_limits() -> None:
    largest = bytes(FRAME_BYTES_MAX)
    assert FrameDecoder().feed(frame(largest)) == [largest]
    with pytest.raises(LocalProtocolError, match="over the limit"):
        frame(largest + b"x")
    with pytest.raises(RemoteProtocolError, match="over the limit"):
        FrameDecoder().feed((FRAME_BYTES_MAX + 1).to_bytes(HEADER_BYTES, "big"))


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_junk_is_frames_or_one_error(chunks: list[bytes]) -> None:
    decoder = FrameDecoder()
    try:
        for chunk in chunks:
            for payload in decoder.feed(chunk):
                assert len(payload) <= FRAME_BYTES_MAX
    except RemoteProtocolError:
        return

"""Frames: a 4-byte big-endian length, then that many bytes. Sans-IO: bytes in, frames out.

A frame is under 1 MiB (docs/architecture.md: longer content is blocks), which bounds what one peer can make us buffer.
"""

from protocols.errors import LocalProtocolError, RemoteProtocolError

FRAME_BYTES_MAX = 1_000_000
HEADER_BYTES = 4


def frame(payload: bytes) -> bytes:
    """`payload` behind its length; `LocalProtocolError` when it is longer than a frame may be."""
    if len(payload) > FRAME_BYTES_MAX:
        raise LocalProtocolError(f"a frame of {len(payload)} bytes is over the limit of {FRAME_BYTES_MAX}")
    return len(payload).to_bytes(HEADER_BYTES, "big") + payload


class FrameDecoder:
    """Collects received bytes and gives back whole frames, in order.

    Invariant: between calls the buffer holds less than one whole frame.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The frames that `data` completes; `RemoteProtocolError` as soon as a header promises too much."""
        self._buffer += data
        frames = []
        while len(self._buffer) >= HEADER_BYTES:
            length = int.from_bytes(self._buffer[:HEADER_BYTES], "big")
            if length > FRAME_BYTES_MAX:
                raise RemoteProtocolError(f"a frame of {length} bytes is over the limit of {FRAME_BYTES_MAX}")
            end = HEADER_BYTES + length
            if len(self._buffer) < end:
                break
            frames.append(bytes(self._buffer[HEADER_BYTES:end]))
            del self._buffer[:end]
        return frames

    def finish(self) -> None:
        """The stream ended: an end inside a frame is a failure (a killed peer looks like a clean end)."""
        if self._buffer:
            raise RemoteProtocolError(f"the stream ended inside a frame, {len(self._buffer)} bytes in")

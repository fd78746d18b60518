"""Tokens to a slot, frames from it, and the bounds of both. Pure; the node imports this module too.

A token is `(offset, length)`: the test's node ID is that piece of the item file, and the offset is its key. Results of
tests that passed without a word are a few numbers; every other result is one JSON object.
"""

from __future__ import annotations

import json
import struct
from typing import Any

TOKEN = struct.Struct("<QI")

NOWHERE = 2**64 - 1
PAUSE = (NOWHERE, 0)
"""Nothing is queued for this slot: tear down all but the session's fixtures, then wait."""
STOP = (NOWHERE, 1)
"""Tear down everything and exit."""

TOKENS_MAX = 256
"""Tokens that wait in one slot's pipe; fewer than PIPE_BUF bytes, so that each write is atomic."""

STARTED = struct.Struct("<cQd")
"""b"S", key, seconds since the epoch."""
PASSED = struct.Struct("<cQdfff")
"""b"P", key, start, and the seconds of setup, call and teardown."""
FULL = struct.Struct("<cI")
"""b"J", length of the JSON that follows; or b"I", and the JSON says what the test of the next result read."""

FRAME_BYTES_MAX = 16 * 1024 * 1024
PIPE_BYTES = 1024 * 1024
"""Room that is asked for in the pipe from a slot to the node."""

OUTPUT_BYTES_MAX = 256 * 1024
"""Kept of each captured stream of one test: the first and the last half of this. The same as in the node's records."""
TEXT_BYTES_MAX = 256 * 1024
"""Kept of a traceback."""
NOTE_BYTES_MAX = 64
"""The line that says how much is missing."""
ENDING_BYTES_MAX = 16 * 1024
"""Kept of what goes wrong as a process ends, after its last test."""
MESSAGE_CHARS_MAX = 1000
PROPERTIES_MAX = 200
PROPERTIES_BYTES_MAX = 64 * 1024
"""Kept of all properties of one test together."""
SUBTESTS_MAX = 100
"""Sub-tests of one test that are told apart; all of them count."""
SUBTEST_BYTES_MAX = 500
WARNINGS_MAX = 20
"""Kept of one test."""
WARNING_BYTES_MAX = 2000

Frame = tuple[Any, ...]


def pack_json(value: dict[str, Any]) -> bytes:
    """One b"J" frame."""
    data = json.dumps(value).encode()
    return FULL.pack(b"J", len(data)) + data


def pack_inputs(value: dict[str, Any]) -> bytes:
    """One b"I" frame: {"key", "set"}, and of a set that is new its "numbers", and the "names" that are."""
    data = json.dumps(value).encode()
    return FULL.pack(b"I", len(data)) + data


class FrameReader:
    """Bytes of a slot to frames: ("S", key, epoch), ("P", key, start, setup, call, teardown), ("J", object) or
    ("I", object)."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that are complete now; `ValueError` for bytes that no slot writes."""
        buffer = self._buffer
        buffer += data
        frames: list[Frame] = []
        at, size = 0, len(buffer)
        while at < size:
            kind = buffer[at]
            if kind == 80:
                if size - at < PASSED.size:
                    break
                frames.append(("P", *PASSED.unpack_from(buffer, at)[1:]))
                at += PASSED.size
            elif kind == 83:
                if size - at < STARTED.size:
                    break
                frames.append(("S", *STARTED.unpack_from(buffer, at)[1:]))
                at += STARTED.size
            elif kind in (73, 74):
                if size - at < FULL.size:
                    break
                _, length = FULL.unpack_from(buffer, at)
                if length > FRAME_BYTES_MAX:
                    raise ValueError(f"a frame of {length} bytes")
                if size - at - FULL.size < length:
                    break
                at += FULL.size
                frames.append((chr(kind), json.loads(bytes(buffer[at : at + length]))))
                at += length
            else:
                raise ValueError(f"a frame of kind {kind}")
        del buffer[:at]
        return frames


def clip(text: str, limit: int = OUTPUT_BYTES_MAX) -> tuple[str, int]:
    """Valid UTF-8 of at most about `limit` bytes, head and tail kept; and the number of bytes left out."""
    if len(text) * 4 <= limit and text.isascii():
        return text, 0
    data = text.encode("utf-8", "backslashreplace")
    if len(data) <= limit + NOTE_BYTES_MAX:  # it may have been clipped before
        return data.decode(), 0
    return clip_bytes(data, limit)


def clip_bytes(data: bytes, limit: int = OUTPUT_BYTES_MAX) -> tuple[str, int]:
    """The same for bytes; what is not UTF-8 is shown with backslashes."""
    if len(data) <= limit:
        return data.decode("utf-8", "backslashreplace"), 0
    return join_ends(data[: limit // 2], data[-(limit // 2) :], len(data) - 2 * (limit // 2))


def join_ends(head: bytes, tail: bytes, dropped: int) -> tuple[str, int]:
    """Head and tail of a stream of which `dropped` bytes are missing, with a line that says so."""
    note = f"\n[... {dropped} bytes left out ...]\n"
    return head.decode("utf-8", "backslashreplace") + note + tail.decode("utf-8", "backslashreplace"), dropped

"""What a test has printed up to now, from its slot's files (see pytest_side/capture.py); read in bounded pieces."""

import os
from collections.abc import Sequence
from pathlib import Path

from mesh.ports import Tail

TAIL_STREAMS = (("early1", "out"), ("fd1",), ("early2", "err"), ("fd2",))
"""Files that make up a stream of a running test: phases that are over, then the one under way."""
TAIL_BYTES_MAX = 32 * 1024
"""Of one stream, read at once."""
TAIL_LAG_BYTES_MAX = 512 * 1024
"""A reader who is further behind goes on near the end."""


def tail(directory: Path, offsets: Sequence[int]) -> Tail:
    """What the slot's files hold beyond `offsets` (none given: from the start)."""
    pieces: list[bytes] = []
    ends: list[int] = []
    skipped = 0
    given = list(offsets) + [0] * (len(TAIL_STREAMS) - len(offsets))
    for names, offset in zip(TAIL_STREAMS, given, strict=False):
        paths = [directory / name for name in names]
        sizes = [path.stat().st_size if path.exists() else 0 for path in paths]
        if sum(sizes) - offset > TAIL_LAG_BYTES_MAX:
            skipped += sum(sizes) - TAIL_BYTES_MAX - offset
            offset = sum(sizes) - TAIL_BYTES_MAX
        piece = b""
        start = 0
        for path, size in zip(paths, sizes, strict=True):
            at = max(0, offset + len(piece) - start)
            if at < size and len(piece) < TAIL_BYTES_MAX:
                with open(path, "rb") as file:
                    piece += os.pread(file.fileno(), min(TAIL_BYTES_MAX - len(piece), size - at), at)
            start += size
        pieces.append(piece)
        ends.append(max(0, offset) + len(piece))
    return Tail(tuple(pieces), tuple(ends), skipped)

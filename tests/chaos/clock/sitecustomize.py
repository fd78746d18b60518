"""A wall clock that is off by MESH_CHAOS_CLOCK seconds, for every Python process that has this directory on its path.

Time namespaces shift the monotonic clock only. The files' times stay the kernel's, as with a disk that another host
wrote.
"""

import os
import time

_OFFSET = float(os.environ.get("MESH_CHAOS_CLOCK", "0"))


def _shift() -> None:
    true, true_ns = time.time, time.time_ns
    time.time = lambda: true() + _OFFSET
    time.time_ns = lambda: true_ns() + int(_OFFSET) * 1_000_000_000


if _OFFSET:
    _shift()

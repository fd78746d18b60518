"""Loads the node, for the programs that run one in their own process."""

import ctypes
import gc
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

from mesh.options import NodeOptions

Serve = Callable[[NodeOptions, Callable[[str, str], None]], Coroutine[Any, Any, int]]


M_ARENA_MAX = -8
"""glibc's malloc.h."""


def load_serve() -> Serve:
    """`mesh.node.serve`, before any thread is started. Modules are not garbage: the collector looks through them
    neither while they load, which would be a tenth of a node's start, nor ever again. Threads share one heap, as they
    share the interpreter's lock: what one has freed the others can use (`make bench-memory`)."""
    with suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)
    gc.disable()
    try:
        from mesh.node import serve

        gc.freeze()
    finally:
        gc.enable()
    return serve

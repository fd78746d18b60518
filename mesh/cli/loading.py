"""Loads the node, for the programs that run one in their own process."""

import gc
from collections.abc import Callable, Coroutine
from typing import Any

from mesh.options import NodeOptions

Serve = Callable[[NodeOptions, Callable[[str, str], None]], Coroutine[Any, Any, int]]


def load_serve() -> Serve:
    """`mesh.node.serve`. Modules are not garbage: the collector looks through them neither while they load, which would
    be a tenth of a node's start, nor ever again."""
    gc.disable()
    try:
        from mesh.node import serve

        gc.freeze()
    finally:
        gc.enable()
    return serve

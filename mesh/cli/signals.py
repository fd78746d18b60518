"""SIGTERM and SIGHUP taken as Ctrl-C: whoever ends a command from outside wants its end in order, too.

One stroke is one interruption: `timeout` signals its child and then the child's process group, a terminal's Ctrl-C may
reach a command twice through a wrapper; a second interruption means "at once", so it must be meant.
"""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

TAKEN = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

STROKE_SECONDS = 0.5
"""Signals within it after another are the same stroke."""


class Strokes:
    """Tells a new stroke from the echo of one."""

    def __init__(self) -> None:
        self._last = float("-inf")

    def new(self) -> bool:
        now = time.monotonic()
        if now - self._last < STROKE_SECONDS:
            return False
        self._last = now
        return True


@contextmanager
def termination_interrupts() -> Iterator[None]:
    """While inside, all of them raise KeyboardInterrupt in the main thread, which must be the caller's."""
    strokes = Strokes()

    def interrupt(number: int, frame: object) -> None:
        if strokes.new():
            raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in TAKEN}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""SIGTERM and SIGHUP taken as Ctrl-C: whoever ends a command from outside wants its end in order, too."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

TAKEN = (signal.SIGTERM, signal.SIGHUP)


@contextmanager
def termination_interrupts() -> Iterator[None]:
    """While inside, both raise KeyboardInterrupt in the main thread, which must be the caller's."""
    before = {number: signal.signal(number, _interrupt) for number in TAKEN}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt

"""What tests change in their process and forget to undo: the working directory, signal handlers, and an alarm that
would go off in another test."""

from __future__ import annotations

import signal
from typing import Any

from _mesh_pytest_side import originals

SIGNALS = [
    getattr(signal, name)
    for name in (
        "SIGINT",
        "SIGTERM",
        "SIGHUP",
        "SIGCHLD",
        "SIGUSR1",
        "SIGUSR2",
        "SIGALRM",
        "SIGPIPE",
        "SIGQUIT",
    )
    if hasattr(signal, name)
]


class Surroundings:
    """As they are when this is made; `restore` puts them back where they differ."""

    __slots__ = ("_alarm", "_directory", "_handlers")

    def __init__(self, root: str) -> None:
        try:
            self._directory = originals.getcwd()
        except OSError:  # removed under our feet
            self._directory = root
        self._alarm = originals.getitimer(signal.ITIMER_REAL)[0] > 0
        self._handlers = [originals.getsignal(number) for number in SIGNALS]

    def restore(self) -> None:
        originals.chdir(self._directory)
        if not self._alarm and originals.getitimer(signal.ITIMER_REAL)[0] > 0:
            originals.setitimer(signal.ITIMER_REAL, 0)
        handlers: Any = [originals.getsignal(number) for number in SIGNALS]
        if handlers == self._handlers:
            return
        for index, number in enumerate(SIGNALS):
            before = self._handlers[index]
            if before is not None and before != handlers[index]:
                originals.set_signal(number, before)

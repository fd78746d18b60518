"""What tests change in their process and forget to undo: the working directory and signal handlers."""

from __future__ import annotations

import os
import signal
from typing import Any

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
getsignal = signal.getsignal


class Surroundings:
    """As they are when this is made; `restore` puts them back where they differ."""

    __slots__ = ("_directory", "_handlers")

    def __init__(self, root: str) -> None:
        try:
            self._directory = os.getcwd()
        except OSError:  # removed under our feet
            self._directory = root
        self._handlers = [getsignal(number) for number in SIGNALS]

    def restore(self) -> None:
        os.chdir(self._directory)
        handlers: Any = [getsignal(number) for number in SIGNALS]
        if handlers == self._handlers:
            return
        for index, number in enumerate(SIGNALS):
            before = self._handlers[index]
            if before is not None and before != handlers[index]:
                signal.signal(number, before)

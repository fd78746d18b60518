"""The first output of an external command that may hang, flood or fork: bounded in time and bytes, its group killed.

Rejected: `subprocess.run(timeout=…)`, which reads without a bound and leaves grandchildren behind.
"""

import os
import selectors
import signal
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress

COMMAND_SECONDS_MAX = 2.0
OUTPUT_BYTES_MAX = 4096


class CommandFailed(Exception):
    """The command is not there, failed, or took too long; the text says which."""


class CommandHung(CommandFailed):
    """It did not end in time, which another time it may."""


def output(command: Sequence[str], seconds: float = COMMAND_SECONDS_MAX) -> str:
    """What `command` wrote to stdout, its first `OUTPUT_BYTES_MAX` bytes; `CommandFailed` unless it exited with 0."""
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
    except OSError as error:
        raise CommandFailed(f"{command[0]} does not start: {error.strerror}") from None
    deadline = time.monotonic() + seconds
    with process:
        assert process.stdout is not None
        try:
            text = _read(process.stdout.fileno(), deadline)
            code = process.wait(max(0.0, deadline - time.monotonic()) if len(text) < OUTPUT_BYTES_MAX else 0.0)
        except (TimeoutError, subprocess.TimeoutExpired):
            raise CommandHung(f"{command[0]} did not end within {seconds:g} s and {OUTPUT_BYTES_MAX} bytes") from None
        finally:
            with suppress(ProcessLookupError, PermissionError):  # gone already; macOS says EPERM of a zombie's group
                os.killpg(process.pid, signal.SIGKILL)
    if code != 0:
        raise CommandFailed(f"{command[0]} exited with {code}")
    return text.decode("utf-8", "replace")


def _read(descriptor: int, deadline: float) -> bytes:
    """To the end, or to `OUTPUT_BYTES_MAX`; `TimeoutError` at the deadline."""
    kept = b""
    with selectors.DefaultSelector() as selector:
        selector.register(descriptor, selectors.EVENT_READ)
        while len(kept) < OUTPUT_BYTES_MAX:
            if not selector.select(max(0.0, deadline - time.monotonic())):
                raise TimeoutError
            piece = os.read(descriptor, OUTPUT_BYTES_MAX - len(kept))
            if not piece:
                break
            kept += piece
    return kept

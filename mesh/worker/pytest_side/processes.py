"""Operating system's matters of the zygote and its slots: dying with the parent, priority, descriptors."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
NICE = 5
"""Slots give way to the node, whose heartbeats must be punctual under full load."""


def die_with_parent(parent: int | None) -> None:
    """Linux: be killed when the parent dies. Elsewhere the end of a control pipe tells, between two tests."""
    if not sys.platform.startswith("linux"):
        return
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if parent is not None and os.getppid() != parent:
        os._exit(1)


def be_nice() -> None:
    with contextlib.suppress(OSError, AttributeError):
        os.nice(NICE)


def redirect(directory: str) -> None:
    """Descriptors 0, 1 and 2 of a slot: nothing to read, and files that the node can read when the slot is dead."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    for number, name in ((1, "fd1"), (2, "fd2")):
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND
        fd = os.open(os.path.join(directory, name), flags, 0o600)
        os.dup2(fd, number)
        os.close(fd)


def kill_group(pid: int) -> None:
    """SIGKILL to the process group that `pid` leads, whatever is left of it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)

"""Captured output of a slot: bounded, and readable by the node when the slot is dead.

pytest captures descriptors 1 and 2 into temporary files that have no name, and reads them whole. A slot gives it files
with names, in the slot's folder ("out" and "err"), reads only their ends, and shows bytes that are not UTF-8 with
backslashes. What escapes that capture (capture=no, capture=sys, output between two tests) lands in the slot's own
descriptors 1 and 2, which are files too ("fd1" and "fd2"), and is added to the test that ran.
"""

from __future__ import annotations

import contextlib
import os
import sys
import types
from typing import Any

import _pytest.capture
import pytest
from _mesh_pytest_side import originals, processes, wire


def read_ends(fd: int, size: int) -> tuple[str, int]:
    """Text of a file, its middle left out when it is larger than a record keeps; and the bytes left out."""
    if size <= wire.OUTPUT_BYTES_MAX:
        return wire.clip_bytes(originals.pread(fd, size, 0))
    half = wire.OUTPUT_BYTES_MAX // 2
    return wire.join_ends(originals.pread(fd, half, 0), originals.pread(fd, half, size - half), size - 2 * half)


def keep_open(stream: Any) -> None:
    """A test that closes such a stream takes it from nobody else."""
    stream.close = lambda: None


class SlotCapture:
    """Restarts pytest's global capture in a slot, and keeps it working whatever tests do to their streams."""

    def __init__(self, config: pytest.Config, directory: str) -> None:
        for stream in (sys.__stdout__, sys.__stderr__):
            keep_open(stream)
        self._manager = config.pluginmanager.getplugin("capturemanager")
        self._directory = directory
        self.dropped = 0
        """Bytes of the test under way that were left out."""
        self._early = [
            os.open(os.path.join(directory, name), os.O_WRONLY | os.O_CREAT) for name in ("early1", "early2")
        ]
        self._kept = False
        self._outer = [os.open(os.path.join(directory, name), os.O_RDWR | os.O_APPEND) for name in ("fd1", "fd2")]

    def restart(self) -> None:
        """In a new slot: leave the files shared with the zygote for ones of our own. The streams stay the objects that
        they were while modules were imported: many have kept them (`from sys import stdout`)."""
        manager: Any = self._manager
        if manager is None:
            return
        if manager._global_capturing is None:
            manager.start_global_capturing()
        streams: Any = manager._global_capturing
        streams.suspend_capturing()
        processes.redirect(self._directory)  # suspending has put the zygote's own descriptors back
        for stream, name in ((streams.out, "out"), (streams.err, "err")):
            if isinstance(stream, _pytest.capture.FDCapture):
                self._repoint(stream, name)
                self._bound(stream)
            elif isinstance(stream, _pytest.capture.SysCapture):
                self._bound_memory(stream)
        streams.resume_capturing()
        manager.suspend_global_capture(in_=False)

    def _repoint(self, stream: Any, name: str) -> None:
        """A file of this slot, under the descriptor that captured output goes to; and what suspending puts back."""
        fd = os.open(os.path.join(self._directory, name), os.O_RDWR | os.O_CREAT | os.O_TRUNC)
        os.dup2(fd, stream.tmpfile.fileno(), inheritable=False)
        os.close(fd)
        os.dup2(stream.targetfd, stream.targetfd_save, inheritable=False)

    def _bound(self, stream: Any) -> None:
        fd = os.dup(stream.tmpfile.fileno())

        def snap(_: Any) -> str:
            size = originals.fstat(fd).st_size
            if size == 0:
                return ""
            text, dropped = read_ends(fd, size)
            self.dropped += dropped
            originals.lseek(fd, 0, os.SEEK_SET)
            originals.ftruncate(fd, 0)
            return text

        stream.snap = types.MethodType(snap, stream)
        keep_open(stream.tmpfile)

    def _bound_memory(self, stream: Any) -> None:
        file = stream.tmpfile
        file.seek(0)
        file.truncate()

        def snap(_: Any) -> str:
            text, dropped = wire.clip_bytes(file.buffer.getvalue())
            self.dropped += dropped
            file.seek(0)
            file.truncate()
            return text

        stream.snap = types.MethodType(snap, stream)
        keep_open(file)

    def keep_early(self, texts: list[str]) -> None:
        """Let the node find what the test under way wrote in earlier phases, should the process die."""
        self._kept = True
        for fd, text in zip(self._early, texts):  # noqa: B905
            originals.ftruncate(fd, 0)
            originals.pwrite(fd, text.encode("utf-8", "backslashreplace"), 0)

    def forget_early(self) -> None:
        if self._kept:
            self._kept = False
            for fd in self._early:
                originals.ftruncate(fd, 0)

    def escaped(self) -> list[str]:
        """What reached the slot's own descriptors since the last call: ["", ""] as a rule. Mends closed ones."""
        texts = ["", ""]
        for stream in (sys.__stdout__, sys.__stderr__):
            with contextlib.suppress(OSError, ValueError, AttributeError):
                stream.flush()  # type: ignore[union-attr]
        for index, fd in enumerate(self._outer):
            try:
                originals.fstat(index + 1)
            except OSError:
                originals.dup2(fd, index + 1)
            size = originals.fstat(fd).st_size
            if size:
                texts[index], dropped = read_ends(fd, size)
                self.dropped += dropped
                originals.ftruncate(fd, 0)
        return texts

"""Captured output of a slot: bounded, and readable by the node when the slot is dead.

pytest captures descriptors 1 and 2 into temporary files that have no name, and reads them whole. A slot gives it files
with names, in the slot's folder ("out" and "err"), reads only their ends, and shows bytes that are not UTF-8 with
backslashes. What escapes that capture (capture=no, capture=sys, output between two tests) lands in the slot's own
descriptors 1 and 2, which are files too ("fd1" and "fd2"), and is added to the test that ran.
"""

import os
import types
from typing import Any

import _pytest.capture
import pytest
from _mesh_pytest_side import wire


def read_ends(fd: int, size: int) -> tuple[str, int]:
    """Text of a file, its middle left out when it is larger than a record keeps; and the bytes left out."""
    if size <= wire.OUTPUT_BYTES_MAX:
        return wire.clip_bytes(os.pread(fd, size, 0))
    half = wire.OUTPUT_BYTES_MAX // 2
    return wire.join_ends(os.pread(fd, half, 0), os.pread(fd, half, size - half), size - 2 * half)


class SlotCapture:
    """Restarts pytest's global capture in a slot, and keeps it working whatever tests do to their streams."""

    def __init__(self, config: pytest.Config, directory: str) -> None:
        self._manager = config.pluginmanager.getplugin("capturemanager")
        self._directory = directory
        self.dropped = 0
        """Bytes of the test under way that were left out."""
        self._outer = [os.open(os.path.join(directory, name), os.O_RDWR) for name in ("fd1", "fd2")]

    def restart(self) -> None:
        """In a new slot: leave the files shared with the zygote for ones of our own."""
        manager: Any = self._manager
        if manager is None:
            return
        if manager._global_capturing is not None:
            manager._global_capturing.stop_capturing()
            manager._global_capturing = None
        names = iter(("out", "err"))
        anonymous = _pytest.capture.TemporaryFile  # type: ignore[attr-defined]

        def named(*args: Any, **kwargs: Any) -> Any:
            path = os.path.join(self._directory, next(names))
            return open(path, "w+b", buffering=0)

        _pytest.capture.TemporaryFile = named  # type: ignore[attr-defined]
        try:
            manager.start_global_capturing()
        finally:
            _pytest.capture.TemporaryFile = anonymous  # type: ignore[attr-defined]
        streams: Any = manager._global_capturing
        for stream in (streams.out, streams.err):
            if isinstance(stream, _pytest.capture.FDCapture):
                self._bound(stream)
        manager.suspend_global_capture(in_=False)

    def _bound(self, stream: Any) -> None:
        fd = os.dup(stream.tmpfile.fileno())

        def snap(_: Any) -> str:
            size = os.fstat(fd).st_size
            if size == 0:
                return ""
            text, dropped = read_ends(fd, size)
            self.dropped += dropped
            os.lseek(fd, 0, os.SEEK_SET)
            os.ftruncate(fd, 0)
            return text

        stream.snap = types.MethodType(snap, stream)
        stream.tmpfile.close = lambda: None  # a test that closes sys.stdout takes it from nobody else

    def escaped(self) -> list[str]:
        """What reached the slot's own descriptors since the last call: ["", ""] as a rule."""
        texts = ["", ""]
        for index, fd in enumerate(self._outer):
            size = os.fstat(fd).st_size
            if size:
                texts[index], dropped = read_ends(fd, size)
                self.dropped += dropped
                os.ftruncate(fd, 0)
        return texts

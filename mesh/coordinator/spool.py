"""The records of a run while its report is built: in a file, with 13 bytes of each in memory.

A run of a hundred thousand tests has a hundred megabytes of them. Written as their chunks come, read in any order.
"""

import os
import tempfile
from array import array
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

from protocols.ids import Cid, TestIndex


class Spool:
    """Encoded records by test, and their CIDs; of as many tests as the run has. A context manager."""

    def __init__(self, folder: Path, tests: int) -> None:
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by __exit__
        self._end = 0
        self._offsets = array("Q", bytes(8 * tests))
        self._sizes = array("I", bytes(4 * tests))
        """0: there is no record of the test."""
        self._cids = array("B", bytes(tests))
        """Lengths of the CIDs' texts, which follow the records."""

    def __enter__(self) -> "Spool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def put(self, test: TestIndex, data: bytes, cid: Cid) -> None:
        """In place of what there was of the test."""
        text = cid.encode()
        self._file.write(data + text)
        self._offsets[test], self._sizes[test], self._cids[test] = self._end, len(data), len(text)
        self._end += len(data) + len(text)

    def get(self, test: TestIndex) -> bytes | None:
        """The record, if there is one."""
        return self._read(test) if self._sizes[test] else None

    def cid(self, test: TestIndex) -> Cid | None:
        """The record's, if there is one."""
        return self._cid(test) if self._sizes[test] else None

    def items(self) -> Iterator[tuple[TestIndex, bytes, Cid]]:
        """All there are, in the order of their tests."""
        return ((TestIndex(test), self._read(test), self._cid(test)) for test, size in enumerate(self._sizes) if size)

    def _read(self, test: int) -> bytes:
        return self._at(self._offsets[test], self._sizes[test])

    def _cid(self, test: int) -> Cid:
        return Cid(self._at(self._offsets[test] + self._sizes[test], self._cids[test]).decode())

    def _at(self, offset: int, size: int) -> bytes:
        self._file.flush()
        return os.pread(self._file.fileno(), size, offset)

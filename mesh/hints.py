"""Files of a home that are hints: what a node would rather know after a restart, and can do without.

Such a file is written now and then, without a sync, and replaced as a whole; one that can't be read is as good as none.
"""

import logging
import os
from pathlib import Path
from typing import Generic, TypeVar

from protocols.codec import decode, encode
from protocols.errors import RemoteProtocolError

log = logging.getLogger(__name__)

M = TypeVar("M")


class HintFile(Generic[M]):
    """One message of a class. `without`: what the node does where there is none."""

    def __init__(self, path: Path, cls: type[M], without: str) -> None:
        self._path = path
        self._cls = cls
        self._without = without

    def load(self) -> M | None:
        try:
            return decode(self._path.read_bytes(), self._cls)
        except FileNotFoundError:
            return None
        except (OSError, RemoteProtocolError) as error:
            self.spoilt(error)
            return None

    def spoilt(self, error: Exception) -> None:
        """What was read is none of ours."""
        log.warning("%s can't be read (%s): %s", self._path, error, self._without)

    def save(self, message: M) -> None:
        partial = self._path.with_suffix(".partial")
        try:
            partial.write_bytes(encode(message))
            os.replace(partial, self._path)
        except OSError as error:
            log.warning("%s can't be written: %s", self._path, error)

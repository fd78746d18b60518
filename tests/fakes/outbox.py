"""An outbox in memory, which outlives its node. Implements the Outbox port."""

import random
from collections.abc import Callable

import trio

from protocols.errors import StorageError

SYNC_SECONDS = (0.0005, 0.003)


class FakeOutbox:
    """`removing` sees each result before it is forgotten."""

    def __init__(self, seed: int = 0, removing: Callable[[bytes], None] = lambda payload: None) -> None:
        self._items: dict[str, bytes] = {}
        self._rng = random.Random(seed)
        self._removing = removing
        self.sync = SYNC_SECONDS
        self.broken = False

    def items(self) -> list[tuple[str, bytes]]:
        return list(self._items.items())

    async def put(self, key: str, payload: bytes) -> None:
        await self._sync()
        self._items[key] = payload

    async def remove(self, key: str) -> None:
        if key in self._items:
            self._removing(self._items[key])
        await self._sync()
        self._items.pop(key, None)

    async def _sync(self) -> None:
        """A write under way at a crash is lost: so less is known than on the real one, never more."""
        await trio.sleep(self._rng.uniform(*self.sync))
        if self.broken:
            raise StorageError("the disk that holds the outbox is full")

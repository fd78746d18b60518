"""A bounded queue of a session's events: many producers put batches, one consumer takes one at a time.

A memory channel passes each event through the scheduler, which costs more than the event is worth when thousands of
tests a second pass; here a batch costs one wake-up.
"""

from collections import deque
from collections.abc import Sequence
from typing import Generic, TypeVar

import trio

T = TypeVar("T")

FAIR = 64
"""Events taken in a row before other tasks have their turn."""


class Mailbox(Generic[T]):
    """Holds about `limit` events: a batch may exceed it, then its producer waits."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._events: deque[T] = deque()
        self._filled = trio.Event()
        self._room = trio.Event()
        self._taken = 0

    async def put(self, batch: Sequence[T]) -> None:
        self._events.extend(batch)
        if batch:
            self._filled.set()
        while len(self._events) > self._limit:
            if self._room.is_set():  # others may wait for this one
                self._room = trio.Event()
            await self._room.wait()

    def __aiter__(self) -> "Mailbox[T]":
        return self

    async def __anext__(self) -> T:
        if not self._events:
            self._filled = trio.Event()
            await self._filled.wait()
        elif self._taken >= FAIR:
            self._taken = 0
            await trio.lowlevel.checkpoint()
        self._taken += 1
        event = self._events.popleft()
        if len(self._events) <= self._limit:
            self._room.set()
        return event

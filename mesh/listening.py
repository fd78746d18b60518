"""One listener to a node's feed, and the form in which it is told (server-sent events, HTML standard, section 9.2)."""

from collections.abc import Sequence

import trio

from protocols.client import FeedEvent

QUEUE_BYTES_MAX = 1024 * 1024
"""Of what a listener has not taken."""


class Listener:
    """What waits for one listener."""

    def __init__(self) -> None:
        self.live = False
        """Whether what comes is put here."""
        self.cut = False
        self._held: list[bytes] = []
        self._bytes = 0
        self._news = trio.Event()

    def put(self, block: bytes) -> None:
        self._held.append(block)
        self._bytes += len(block)
        if self._bytes > QUEUE_BYTES_MAX:
            self.stop()
        self._news.set()

    def stop(self) -> None:
        self.cut = True
        self._held.clear()
        self._news.set()

    async def take(self) -> bytes:
        """All there is, as soon as there is something; nothing, once it is cut."""
        await self._news.wait()
        self._news = trio.Event()
        taken, self._held, self._bytes = b"".join(self._held), [], 0
        return taken


def blocks(events: Sequence[FeedEvent]) -> bytes:
    """Of an entry's events the last alone has the ID: who has that has all."""
    followers = [*(event.index for event in events[1:]), None]
    return b"".join(
        [
            block(event.name, event.json, event.index if event.index != follower else None)
            for event, follower in zip(events, followers, strict=True)
        ]
    )


def block(name: str, data: bytes, index: int | None = None) -> bytes:
    """One event as text/event-stream has it."""
    head = f"event: {name}\n" if index is None else f"id: {index}\nevent: {name}\n"
    return head.encode() + b"data: " + data + b"\n\n"

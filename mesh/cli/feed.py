"""The feed of the mesh, for a command: `/api/events` as Python objects, taken up again wherever it broke off.

Invariant: an event of the log comes once, in order, also over a node that restarts; what can't be had again is told by
`hello` with `reset`.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from mesh.cli.client import Client, ConnectionLost
from protocols.errors import MeshError, MeshFailed

SILENCE_SECONDS_MAX = 25.0
"""Between two lines; the node sends a comment every 10 s at least."""

PAUSE_SECONDS_MIN, PAUSE_SECONDS_MAX = 0.2, 2.0
"""Before the next attempt; it doubles."""

ASK_SECONDS_MIN, ASK_SECONDS_MAX = 1.0, 5.0
"""Between two looks at what events do not tell: while something happens, and while nothing does."""

Event = tuple[str, dict[str, Any], int | None]
"""Its name, its data, and its ID if it is of the log."""


def feed(
    client: Client, lost: Callable[[ConnectionLost | MeshFailed], None], after: int | None = None
) -> Iterator[Event]:
    """Events for as long as the caller wants more. While the node does not answer `lost` is called before each
    attempt: it may raise, to give up."""
    pause = PAUSE_SECONDS_MIN
    while True:
        try:
            for event in _events(client, after):
                name, data, identity = event
                if identity is not None:
                    after = identity
                elif name == "hello" and (after is None or data.get("reset")):
                    after = int(data["head"])
                pause = PAUSE_SECONDS_MIN
                yield event
        except (ConnectionLost, MeshFailed) as error:
            lost(error)
        time.sleep(pause)
        pause = min(2 * pause, PAUSE_SECONDS_MAX)
        client.find_again()


def keep_asking(ask: Callable[[], None], stop: threading.Event, news: threading.Event) -> None:
    """Until `stop`, in a thread beside who hears the events: `ask` for what they do not tell, sooner after `news`."""
    while not stop.is_set():
        news.clear()
        with suppress(MeshError):  # the connection with the events tells of a node that is gone
            ask()
        if not stop.wait(ASK_SECONDS_MIN):
            news.wait(ASK_SECONDS_MAX)


def _events(client: Client, after: int | None) -> Iterator[Event]:
    """Of one connection."""
    headers = {} if after is None else {"last-event-id": str(after)}
    name, data, identity = "", "", None
    for line in client.lines("/api/events", headers, SILENCE_SECONDS_MAX):
        if not line:
            if data:
                yield name or "message", json.loads(data), identity
            name, data, identity = "", "", None
        key, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if key == "event":
            name = value
        elif key == "data":
            data += value
        elif key == "id" and value.isdecimal():
            identity = int(value)

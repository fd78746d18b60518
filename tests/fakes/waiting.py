"""Waiting on simulated time: what a test looks for may come of any of a hundred tasks, so there is no one event."""

from collections.abc import Callable

import trio


async def until(condition: Callable[[], bool], timeout: float = 120.0) -> None:
    """Until `condition` holds; `trio.TooSlowError` after `timeout` simulated seconds."""
    with trio.fail_after(timeout):
        while not condition():  # noqa: ASYNC110
            await trio.sleep(0.01)

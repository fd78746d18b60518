"""Simulated time would not wait for a thread: what services do in one is done at once."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import trio


@contextmanager
def no_threads() -> Iterator[None]:
    """Neither `trio.to_thread` nor `trio.Path` starts one."""
    with patch.object(trio.to_thread, "run_sync", _at_once), patch("trio._path.run_sync", _at_once):
        yield


async def _at_once(function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    await trio.lowlevel.checkpoint()
    return function(*arguments)

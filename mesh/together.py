"""Several calls at once, as one: what fails leaves as itself, not in an exception group, which no `except MeshError`
around it would catch."""

from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

import trio

from protocols.errors import MeshError

T = TypeVar("T")


async def together(call: Callable[[T], Awaitable[None]], items: Iterable[T]) -> None:
    """Call for all at once; the first `MeshError` ends the others, and is raised."""
    failures: list[MeshError] = []

    async def one(item: T) -> None:
        try:
            await call(item)
        except MeshError as error:
            failures.append(error)
            nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        for item in items:
            nursery.start_soon(one, item)
    if failures:
        raise failures[0]

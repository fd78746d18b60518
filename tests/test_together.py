"""Several calls as one: the first failure ends the others, and is itself."""

import pytest
import trio

from mesh.together import together
from protocols.errors import ContentNotFound


async def test_all_are_called_at_once(autojump_clock):
    done = []

    async def call(seconds: int) -> None:
        await trio.sleep(seconds)
        done.append(seconds)

    start = trio.current_time()
    await together(call, [3, 1, 2])
    assert (done, trio.current_time() - start) == ([1, 2, 3], 3.0)


async def test_a_failure_is_no_group_and_ends_the_others(autojump_clock):
    async def call(seconds: int) -> None:
        await trio.sleep(seconds)
        raise ContentNotFound(f"after {seconds}")

    start = trio.current_time()
    with pytest.raises(ContentNotFound, match="after 1"):
        await together(call, [1000, 1])
    assert trio.current_time() - start == 1.0

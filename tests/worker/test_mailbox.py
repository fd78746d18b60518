"""The queue of a session's events: whoever waits for room gets it."""

import trio
from trio.testing import wait_all_tasks_blocked

from mesh.worker.mailbox import Mailbox


async def test_every_producer_that_waits_goes_on_when_there_is_room():
    mailbox: Mailbox[int] = Mailbox(10)
    over = []

    async def produce(number: int) -> None:
        await mailbox.put([number] * 20)
        over.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(3):
            nursery.start_soon(produce, number)
        await wait_all_tasks_blocked()
        assert over == []
        taken = [await anext(mailbox) for _ in range(60)]
        await wait_all_tasks_blocked()
        assert sorted(over) == [0, 1, 2]
    assert sorted(taken) == [0] * 20 + [1] * 20 + [2] * 20

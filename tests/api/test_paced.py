"""Many who ask the same: few answers, and none that is old."""

import trio

from mesh.paced import QUESTIONS_MAX, REST, REST_SECONDS_MAX, Paced


class Maker:
    """Takes `seconds` to make an answer, which tells when it was begun."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.begun: list[float] = []

    async def __call__(self) -> bytes:
        self.begun.append(trio.current_time())
        await trio.sleep(self.seconds)
        return str(self.begun[-1]).encode()


async def test_all_who_wait_share_one_answer_that_is_younger_than_their_question(autojump_clock: object) -> None:
    paced, maker, old = Paced(), Maker(0.1), []

    async def ask(number: int) -> None:
        await trio.sleep(number * 0.03)
        for _ in range(5):
            asked = trio.current_time()
            answer = float(await paced.get("q", maker))
            old.append(answer < asked)
            await trio.sleep(0.2)

    start = trio.current_time()
    async with trio.open_nursery() as nursery:
        for number in range(20):
            nursery.start_soon(ask, number)
    assert len(old) == 100
    assert not any(old)
    assert len(maker.begun) <= 2 + (trio.current_time() - start) / (REST * maker.seconds)


async def test_what_is_cheap_is_hardly_waited_for_and_what_is_dear_not_for_ever(autojump_clock: object) -> None:
    paced = Paced()
    for maker, most in ((Maker(0.001), REST * 0.001), (Maker(1.0), REST_SECONDS_MAX), (Maker(3.0), 3.0)):
        for _ in range(3):
            await paced.get(maker, maker)
        gaps = [later - earlier for earlier, later in zip(maker.begun, maker.begun[1:], strict=False)]
        assert max(gaps) <= most + 1e-6


async def test_who_leaves_or_fails_keeps_nobody_waiting(autojump_clock: object) -> None:
    paced, maker = Paced(), Maker(0.1)

    async def fail() -> bytes:
        raise ValueError

    with trio.move_on_after(0.05):
        await paced.get("q", maker)
    try:
        await paced.get("q", fail)
    except ValueError:
        start = trio.current_time()
    assert await paced.get("q", maker) == str(start).encode()
    for number in range(2 * QUESTIONS_MAX):
        await paced.get(number, Maker(0.0))
    assert len(paced._questions) == QUESTIONS_MAX

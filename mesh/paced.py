"""Answers that many ask for and that cost something to make: one for each question at a time, and paced by its cost.

A page asks again whenever something happened, and so do all pages that are open. Whoever asks gets an answer that was
begun after it asked, so never an old one; whoever asks meanwhile waits for the next, and all who wait share it. The
next answer to a question begins no sooner than `rest` times what the last one took: so a question costs a bounded part
of a processor, however many ask it. Rejected: keeping answers for a while (the last event of a run would be shown
by chance, or never).
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass, field

import trio

REST = 5.0
REST_SECONDS_MAX = 1.5
QUESTIONS_MAX = 256
"""Whose last cost is remembered."""


@dataclass(slots=True)
class _Question:
    turn: trio.Lock = field(default_factory=trio.Lock)
    begun: int = 0
    """Answers so far."""
    made: int = 0
    """The last of them that came to an end."""
    answer: bytes = b""
    """That one, while others wait for it."""
    due: float = 0.0
    """When the next one may begin, on trio's clock."""


class Paced:
    def __init__(self, rest: float = REST) -> None:
        self._rest = rest
        self._questions: OrderedDict[Hashable, _Question] = OrderedDict()

    async def get(self, key: Hashable, make: Callable[[], Awaitable[bytes]]) -> bytes:
        """What `make` makes for this question, or made for somebody else since this was asked. What it raises only the
        one gets that called it."""
        question = self._questions.setdefault(key, _Question())
        self._questions.move_to_end(key)
        self._forget()
        asked = question.begun
        async with question.turn:
            if question.made <= asked:
                await trio.sleep_until(question.due)
                question.begun += 1
                start = trio.current_time()
                question.answer = await make()
                question.made = question.begun
                question.due = start + min(self._rest * (trio.current_time() - start), REST_SECONDS_MAX)
            answer = question.answer
            if not question.turn.statistics().tasks_waiting:
                question.answer = b""
            return answer

    def _forget(self) -> None:
        for key in list(self._questions)[: max(0, len(self._questions) - QUESTIONS_MAX)]:
            if not self._questions[key].turn.locked():
                del self._questions[key]

"""Commands on their way into the log, and those who wait for them.

Whatever was proposed since the Ready loop's last turn enters the core together, and so travels together: one message to
each member and one answer, where each command alone would cost both. A proposer learns a result only from the entry
that it proposed (same index and same term).

Rejected: to gather in the core; what it says to the others would no longer follow from each call.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import trio

from mesh.raft.errors import NotLeader
from mesh.raft.raft import Raft
from protocols.errors import MeshError, OutcomeUnknown
from protocols.ids import PeerId
from protocols.raft import Entry


@dataclass(slots=True)
class Waiter:
    """Somebody who waits for an entry, or for a read to be answered."""

    term: int = 0
    done: trio.Event = field(default_factory=trio.Event)
    result: Any = None
    error: MeshError | None = None

    def finish(self, result: Any, error: MeshError | None = None) -> None:
        self.result, self.error = result, error
        self.done.set()


class Proposal:
    """Encoded commands, which enter in a row or not at all."""

    def __init__(self, batch: Sequence[bytes]) -> None:
        self.batch = batch
        self.waiters = [Waiter() for _ in batch]
        self.indexes: list[int] = []
        """In the log; empty until they are there."""
        self.answer = Waiter()
        """Whether they entered."""


class Proposals:
    """Of one member: those that did not enter yet, and those that are not applied yet."""

    def __init__(self, raft: Raft) -> None:
        self._raft = raft
        self._queue: list[Proposal] = []
        self._waiting: dict[int, Waiter] = {}

    async def entered(self, proposal: Proposal) -> None:
        """Wait for the loop's turn. `NotLeader`, `Overloaded`: it is not in the log."""
        proposal.answer = Waiter()
        self._queue.append(proposal)
        await proposal.answer.done.wait()
        if proposal.answer.error is not None:
            raise proposal.answer.error

    def enter(self) -> None:
        """The loop's turn: all at once, or each by itself if one of them can't enter."""
        queue, self._queue = self._queue, []
        if not queue:
            return
        try:
            indexes = iter(self._raft.propose_many([data for proposal in queue for data in proposal.batch]))
        except MeshError as error:
            if len(queue) == 1:
                queue[0].answer.finish(None, error)
                return
            for proposal in queue:
                self._queue = [proposal]
                self.enter()
            return
        term = self._raft.status().term
        for proposal in queue:
            proposal.indexes = [next(indexes) for _ in proposal.batch]
            for index, waiter in zip(proposal.indexes, proposal.waiters, strict=True):
                waiter.term = term
                self._waiting[index] = waiter
            proposal.answer.finish(None)

    def forget(self, proposal: Proposal) -> None:
        """Nobody waits for it any more; it does not enter if it did not."""
        if proposal in self._queue:
            self._queue.remove(proposal)
        for index, waiter in zip(proposal.indexes, proposal.waiters, strict=False):
            if self._waiting.get(index) is waiter:
                del self._waiting[index]

    def applied(self, entry: Entry, result: Any, leader: PeerId | None) -> None:
        waiter = self._waiting.pop(entry.index, None)
        if waiter is not None:
            ours = waiter.term == entry.term
            waiter.finish(result, None if ours else NotLeader(leader))

    def give_up(self) -> None:
        """This member leads no more: what it proposed may be committed, or not."""
        for waiter in self._waiting.values():
            waiter.finish(None, OutcomeUnknown("the leadership was lost before a command was confirmed"))
        self._waiting.clear()

    def refuse(self) -> None:
        """It takes part no more: nothing enters."""
        for proposal in self._queue:
            proposal.answer.finish(None, NotLeader(None))
        self._queue.clear()

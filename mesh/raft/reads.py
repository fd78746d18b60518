"""Reads that wait for proof that their leader still led when they were asked (thesis, section 6.4, ReadOnlySafe).

A read joins the open round, as long as its heartbeats have not left; once a quorum has answered
that round or a later one, the read may be served at the commit index that it found. Rounds are numbers, so that one
answer serves every read before it. Nothing is read before an entry of the leader's term is committed: until then its
commit index may lie behind what an earlier leader told its clients (section 8).
"""

from dataclasses import dataclass

from mesh.raft.errors import Overloaded
from protocols.ids import PeerId


@dataclass(frozen=True, slots=True)
class Read:
    peer: PeerId
    context: int


class Reads:
    def __init__(self, reads_max: int) -> None:
        self._reads_max = reads_max
        self._early: list[Read] = []
        """Before the term's first commit."""
        self._waiting: list[tuple[int, int, Read]] = []
        """(round, index, read), by round."""
        self.round = 0
        """The newest that heartbeats carry."""

    def add_early(self, read: Read) -> None:
        self._bound()
        self._early.append(read)

    def take_early(self) -> list[Read]:
        early, self._early = self._early, []
        return early

    def add(self, read: Read, index: int) -> None:
        """`index`: the commit index now."""
        self._bound()
        self._waiting.append((self.round, index, read))

    def open_round(self) -> None:
        self.round += 1

    def answered(self, number: int) -> list[tuple[int, Read]]:
        """(index, read) of the reads whose round a quorum has answered."""
        done = [(index, read) for position, index, read in self._waiting if position <= number]
        self._waiting = [item for item in self._waiting if item[0] > number]
        return done

    @property
    def waiting(self) -> bool:
        """For a round to be answered."""
        return bool(self._waiting)

    def pending(self) -> list[Read]:
        return [*self._early, *(read for _, _, read in self._waiting)]

    @property
    def full(self) -> bool:
        return len(self._early) + len(self._waiting) >= self._reads_max

    def _bound(self) -> None:
        if self.full:
            raise Overloaded(f"{self._reads_max} reads wait for a quorum already")

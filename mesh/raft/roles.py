"""Roles and the transitions between them (figure 4), as values: a role decides, `Raft` carries out.

follower -> pre-candidate -> candidate -> leader; any of them -> follower. A role object lives for one stay in its role,
so what it knows can't be mistaken for knowledge of another term.
"""

import enum
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from mesh.raft.member import Member
from protocols.ids import PeerId
from protocols.raft import RaftMessage


class RoleName(enum.StrEnum):
    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


@dataclass(frozen=True, slots=True)
class BecomeFollower:
    term: int
    leader: PeerId | None
    split: bool = False
    """The votes of this term are given, perhaps to nobody's good."""


@dataclass(frozen=True, slots=True)
class BecomePreCandidate:
    pass


@dataclass(frozen=True, slots=True)
class BecomeCandidate:
    transfer: bool
    """The leader asked for it."""


@dataclass(frozen=True, slots=True)
class BecomeLeader:
    pass


Transition = BecomeFollower | BecomePreCandidate | BecomeCandidate | BecomeLeader


class Role(ABC):
    name: ClassVar[RoleName]

    def __init__(self, member: Member) -> None:
        self.member = member

    def enter(self) -> Transition | None:
        """Once, right after the transition."""
        return None

    def leave(self) -> None:
        """Once, right before the next role."""
        return

    @abstractmethod
    def tick(self) -> Transition | None: ...

    def quiet_ticks(self) -> int:
        """How many ticks from now on only count, unless something happens before: nobody need wake up for each."""
        return 0

    @abstractmethod
    def step(self, sender: PeerId, message: RaftMessage) -> Transition | None:
        """A message of the member's own term, other than a request for a vote. What this role has no use for (an answer
        that comes late) changes nothing."""

    @abstractmethod
    def read(self, context: int) -> None:
        """Ask for the index of a linearizable read. `NotLeader`, `Overloaded`."""

    def suspect(self, peer: PeerId) -> None:
        """The process of `peer` was seen to die."""
        return

    def synced(self, term: int, vote: PeerId | None) -> Transition | None:
        """A save finished: the term and vote that it left on disk; the log knows its part."""
        return None

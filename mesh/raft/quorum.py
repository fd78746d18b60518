"""The arithmetic of majorities and of joint majorities (section 6): pure functions of a configuration.

In joint consensus every decision needs a majority of both sets of voters. A set that is empty agrees to everything,
which makes the plain configuration the special case of the joint one; no voters at all agree to nothing.
"""

import enum
from collections.abc import Iterable, Mapping

from protocols.ids import PeerId
from protocols.raft import Configuration


class VoteResult(enum.Enum):
    PENDING = enum.auto()
    WON = enum.auto()
    LOST = enum.auto()


def majority(count: int) -> int:
    return count // 2 + 1


def voters(configuration: Configuration) -> tuple[PeerId, ...]:
    """Everybody who has a vote, in order of ID."""
    return tuple(sorted({*configuration.voters, *configuration.outgoing}))


def members(configuration: Configuration) -> tuple[PeerId, ...]:
    return tuple(sorted({*configuration.voters, *configuration.outgoing, *configuration.learners}))


def agreed(configuration: Configuration, values: Mapping[PeerId, int]) -> int:
    """The largest value that a quorum has reached; who is not in `values` has reached 0."""
    halves = _halves(configuration)
    return min((_agreed_by(half, values) for half in halves), default=0)


def vote_result(configuration: Configuration, votes: Mapping[PeerId, bool]) -> VoteResult:
    """Whether those who answered decide the election already."""
    halves = _halves(configuration)
    results = [_vote_of(half, votes) for half in halves]
    if not results or VoteResult.LOST in results:
        return VoteResult.LOST
    return VoteResult.PENDING if VoteResult.PENDING in results else VoteResult.WON


def has_quorum(configuration: Configuration, peers: Iterable[PeerId]) -> bool:
    present = set(peers)
    halves = _halves(configuration)
    return bool(halves) and all(len(present.intersection(half)) >= majority(len(half)) for half in halves)


def _halves(configuration: Configuration) -> list[tuple[PeerId, ...]]:
    return [half for half in (configuration.voters, configuration.outgoing) if half]


def _agreed_by(half: tuple[PeerId, ...], values: Mapping[PeerId, int]) -> int:
    reached = sorted((values.get(peer, 0) for peer in half), reverse=True)
    return reached[majority(len(half)) - 1]


def _vote_of(half: tuple[PeerId, ...], votes: Mapping[PeerId, bool]) -> VoteResult:
    granted = sum(1 for peer in half if votes.get(peer) is True)
    refused = sum(1 for peer in half if votes.get(peer) is False)
    if granted >= majority(len(half)):
        return VoteResult.WON
    return VoteResult.LOST if len(half) - refused < majority(len(half)) else VoteResult.PENDING

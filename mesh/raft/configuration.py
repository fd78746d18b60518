"""Changes of the group, and the configuration as a function of the log.

A configuration holds from the moment its entry is in the log, committed or not (section 6), so that truncating the
log rolls it back. Voters change through joint consensus only, whatever their number: one path, which is the general
one. Learners have no vote, so they come and go in one step. The leader allows one change at a time, and none before
an entry of its own term is committed (the flaw of single-server changes, found in 2015).
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from mesh.raft import quorum
from mesh.raft.errors import ChangeRefused
from protocols.codec import decode
from protocols.ids import PeerId
from protocols.raft import Configuration, Entry, EntryKind


@dataclass(frozen=True, slots=True)
class AddLearner:
    peer: PeerId


@dataclass(frozen=True, slots=True)
class Promote:
    """A learner becomes a voter, and others with it: a group of one that grows to three never has two voters, who would
    stop when either dies."""

    peer: PeerId
    others: tuple[PeerId, ...] = ()


@dataclass(frozen=True, slots=True)
class Demote:
    """A voter becomes a learner."""

    peer: PeerId


@dataclass(frozen=True, slots=True)
class Remove:
    """A voter or learner leaves."""

    peer: PeerId


@dataclass(frozen=True, slots=True)
class Replace:
    """The learner `by` takes the vote of `peer`, which leaves."""

    peer: PeerId
    by: PeerId


Change = AddLearner | Promote | Demote | Remove | Replace


def changed(now: Configuration, change: Change) -> Configuration:
    """The configuration that `change` leads to first: joint, if voters change. `ChangeRefused` if it makes no sense."""
    voters, learners = set(now.voters), set(now.learners)
    match change:
        case AddLearner(peer):
            if peer in voters | learners:
                raise ChangeRefused(f"{peer} is a member already")
            learners.add(peer)
        case Promote(peer, others):
            for each in (peer, *others):
                _move(each, learners, voters, "learner")
        case Demote(peer):
            _move(peer, voters, learners, "voter")
        case Remove(peer):
            if peer not in voters | learners:
                raise ChangeRefused(f"{peer} is no member")
            voters.discard(peer)
            learners.discard(peer)
        case Replace(peer, by):
            _move(by, learners, voters, "learner")
            if peer not in now.voters:
                raise ChangeRefused(f"{peer} is no voter")
            voters.discard(peer)
    if not voters:
        raise ChangeRefused("the last voter can't leave")
    made = Configuration(voters=tuple(sorted(voters)), learners=tuple(sorted(learners)))
    return made if made.voters == now.voters else replace(made, outgoing=now.voters)


def _move(peer: PeerId, source: set[PeerId], target: set[PeerId], kind: str) -> None:
    if peer not in source:
        raise ChangeRefused(f"{peer} is no {kind}")
    source.discard(peer)
    target.add(peer)


def left(joint: Configuration) -> Configuration:
    """What follows a joint configuration."""
    return replace(joint, outgoing=())


def ordered(configuration: Configuration) -> Configuration:
    """With its members in order of ID."""
    return Configuration(
        tuple(sorted(configuration.voters)),
        tuple(sorted(configuration.outgoing)),
        tuple(sorted(configuration.learners)),
    )


class Configurations:
    """Every configuration of the log's entries in memory, behind that of what lies before them."""

    def __init__(self, index: int, base: Configuration) -> None:
        self._history = [(index, base)]

    @property
    def latest(self) -> Configuration:
        return self._history[-1][1]

    @property
    def latest_index(self) -> int:
        """Of the entry that set `latest`; of the base, an index at or before the log's first."""
        return self._history[-1][0]

    def at(self, index: int) -> Configuration:
        """What held after the entry at `index`, which is not before the base."""
        return next(made for position, made in reversed(self._history) if position <= index)

    def since(self, index: int) -> list[Configuration]:
        """What held at `index`, and every later one."""
        return [self.at(index), *(made for position, made in self._history if position > index)]

    def parted(self, peer: PeerId) -> int:
        """Index of the last entry by which `peer` left the group; 0 if it did not, as far as this log goes back."""
        last, present = 0, False
        for index, made in self._history:
            before, present = present, peer in quorum.members(made)
            last = index if before and not present else last
        return last

    def append(self, entry: Entry) -> None:
        if entry.kind is EntryKind.CONFIGURATION:
            self._history.append((entry.index, decode(entry.data, Configuration)))

    def truncate(self, index: int) -> None:
        """The entries from `index` on are gone."""
        self._keep(lambda position: position < index)

    def compact(self, index: int) -> None:
        """The entries up to `index` are gone; what held there is the base now."""
        base = self.at(index)
        self._history = [(index, base), *(item for item in self._history if item[0] > index)]

    def _keep(self, wanted: Callable[[int], bool]) -> None:
        self._history = [self._history[0], *(item for item in self._history[1:] if wanted(item[0]))]


def is_voter(configuration: Configuration, peer: PeerId) -> bool:
    return peer in quorum.voters(configuration)

"""Who votes, as a pure decision: the coordinator asks again whenever something changed.

Three to five voters, an odd number, on as many hosts as there are. One voter while there are fewer than three nodes:
two would stop when either dies, one stops only when that one does. A voter that dies is replaced once it stayed away
for `grace` seconds and a spare is there; without a spare it keeps its seat (down from five, three are enough), since a
smaller group is not safer. Learners count as spares when they have kept up for a while.

One change at a time: that is what the core takes, and each next decision sees what the last one did.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from mesh.raft.configuration import Change, Demote, Promote, Remove, Replace
from protocols.ids import PeerId
from protocols.presence import Presence
from protocols.raft import LOG_FORMAT_CAPABILITY, LOG_FORMAT_NEWEST, LOG_FORMAT_OLDEST, Configuration

VOTERS_MIN, VOTERS_MAX = 3, 5
"""Wanted; fewer while there are fewer nodes."""

LEARNERS_MAX = 16
"""Nodes beyond that work without a log."""

STABLE_SECONDS = 1.0
"""For which a learner must have kept up, before it votes."""

GRACE_SECONDS = 60.0

LAG_ENTRIES_MAX = 100
"""A learner that is less behind has kept up."""


@dataclass(frozen=True, slots=True)
class Seat:
    """A member of the group as its leader sees it. Times in seconds."""

    peer: PeerId
    host: str
    alive: bool
    draining: bool
    dead_for: float = 0.0
    """Since it counts as dead; 0: it does not."""
    kept_up_for: float = 0.0
    """Since its log is nearly the leader's."""

    @property
    def healthy(self) -> bool:
        return self.alive and not self.draining

    @property
    def ready(self) -> bool:
        return self.healthy and self.kept_up_for >= STABLE_SECONDS


def decide(
    me: PeerId, configuration: Configuration, seats: Mapping[PeerId, Seat], grace: float = GRACE_SECONDS
) -> Change | None:
    """The next change of the group. `seats` has every member, the leader `me` among them."""
    if configuration.outgoing or me not in configuration.voters:
        return None
    voters = [seats[peer] for peer in sorted(configuration.voters)]
    learners = [seats[peer] for peer in sorted(configuration.learners)]
    spare = _best(learners, voters)
    return (
        _replace_gone(voters, spare, grace)
        or _fit_number(me, voters, learners, spare)
        or _spread(me, voters, learners)
        or next((Remove(seat.peer) for seat in learners if seat.dead_for >= grace), None)
    )


def reads_format(presence: Presence) -> int:
    """The newest format of the log that a node reads."""
    told = presence.capabilities.get(LOG_FORMAT_CAPABILITY)
    return told if type(told) is int else LOG_FORMAT_OLDEST


def format_due(in_force: int, members: Collection[PeerId], reads: Mapping[PeerId, int]) -> int | None:
    """The format to be in force from now on, if it is a newer one: every member reads it, and so does this node.
    `reads` lacks those that nobody tells of: they might come back as what they were."""
    common = min([LOG_FORMAT_NEWEST, *(reads.get(peer, LOG_FORMAT_OLDEST) for peer in members)])
    return common if common > in_force else None


def _replace_gone(voters: list[Seat], spare: Seat | None, grace: float) -> Change | None:
    gone = [seat for seat in voters if seat.dead_for >= grace]
    if not gone:
        return None
    if spare is not None:
        return Replace(gone[0].peer, by=spare.peer)
    healthy = sum(seat.healthy for seat in voters)
    return Remove(gone[0].peer) if len(voters) > VOTERS_MIN and healthy >= VOTERS_MIN else None


def _fit_number(me: PeerId, voters: list[Seat], learners: list[Seat], spare: Seat | None) -> Change | None:
    """More voters if they make the next odd number, all at once; one less if the number is even and nobody can fill it
    up."""
    candidates = sum(seat.healthy for seat in voters) + sum(seat.ready for seat in learners)
    wanted = min(VOTERS_MAX, candidates if candidates % 2 else candidates - 1)
    chosen: list[Seat] = []
    while spare is not None and wanted > len(voters) + len(chosen):
        chosen.append(spare)
        spare = _best([seat for seat in learners if seat not in chosen], voters + chosen)
    if chosen:
        return Promote(chosen[0].peer, tuple(seat.peer for seat in chosen[1:]))
    if len(voters) % 2 == 0 and all(seat.healthy for seat in voters):
        return Demote(_most_crowded(me, voters).peer)
    return None


def _spread(me: PeerId, voters: list[Seat], learners: list[Seat]) -> Change | None:
    hosts = [seat.host for seat in voters]
    crowded = [seat for seat in voters if hosts.count(seat.host) > 1 and seat.peer != me]
    fresh = [seat for seat in learners if seat.ready and seat.host not in hosts]
    return Replace(_most_crowded(me, crowded).peer, by=fresh[0].peer) if crowded and fresh else None


def _best(learners: list[Seat], voters: list[Seat]) -> Seat | None:
    """The spare on the host with the fewest voters, then by ID."""
    hosts = [seat.host for seat in voters if seat.healthy]
    return min(
        (seat for seat in learners if seat.ready), key=lambda seat: (hosts.count(seat.host), seat.peer), default=None
    )


def _most_crowded(me: PeerId, voters: list[Seat]) -> Seat:
    hosts = [seat.host for seat in voters]
    return max((seat for seat in voters if seat.peer != me), key=lambda seat: (hosts.count(seat.host), seat.peer))

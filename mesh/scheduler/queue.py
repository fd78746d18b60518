"""`TaskQueue`: which run is served next, for as long as a plan has room to give.

Between bands of ten priorities: the higher band first, strictly. Within a band: max-min fairness by progressive filling
(Bertsekas and Gallager, 1992; over one resource it is dominant resource fairness, Ghodsi et al., 2011), in three
levels: between submitters, between a submitter's projects, between a project's runs. Whoever holds the fewest slots for
its weight is next, so a claim that wants less than its part leaves the rest to the others. What is held is what the
leases in the state hold, so nothing has to be remembered from plan to plan, nor repaired after a failover. Rejected:
fairness by past service (start-time fair queueing, Goyal et al., 1996): who was idle has no claim on the time of those
who were not, and a history in the log is paid by every entry.

Weight: a run's share, times 1 to 2 for its priority within the band; that of a project or a submitter is the
greatest of its runs, so that more runs do not mean more slots.

Ageing: a run rises by a point for each `AGEING_SECONDS` since its submission, at most into the highest band that
anybody with work was submitted in: it joins, it does not overtake. So **nothing starves**: after
`AGEING_SECONDS * (100 - priority)`, 50 minutes at most, a run is in the highest band there is, whatever was submitted
meanwhile, and its submitter has its weight over the sum of the band's weights of all slots as they come free, or that
part of a quarter of them while runs are urgent.

Deadlines: a run that would need more than half of what its workers can do until it is due is urgent. The urgent ones
of a band have three quarters of it between them, the earliest due first. Rejected: all of it (a stream of deadlines
would starve the band).
"""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass

from protocols.ids import PeerId, RunId

BAND_POINTS = 10
BANDS = 10
"""Priority 100 is in the highest one, with 90 to 99."""

AGEING_SECONDS = 30.0
"""Of waiting, for one point of priority."""

URGENT_PARTS = 3.0
"""What urgent runs of a band have together, over what all its others have."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A run with tests to hand out."""

    run: RunId
    submitter: PeerId
    project: str
    priority: int
    share: int = 1
    age: float = 0.0
    """Seconds since the submission."""
    held: float = 0.0
    """Slots that its leases take now."""
    due: float | None = None
    """When it ends at the latest, seconds since the epoch, if it is urgent."""

    def aged(self, top: int = BANDS - 1) -> int:
        """The band that it is in, of those up to `top`."""
        return max(band(self.priority), min(band(self.priority + self.age / AGEING_SECONDS), top))

    @property
    def weight(self) -> float:
        return self.share * (1 + (self.priority - BAND_POINTS * band(self.priority)) / BAND_POINTS)


def band(priority: float) -> int:
    return min(int(priority // BAND_POINTS), BANDS - 1)


@dataclass(frozen=True, slots=True)
class Standing:
    """Where a run is in the queue, for people."""

    run: RunId
    place: int
    """From 1: how many would be served before it, at once, and it."""
    of: int
    band: int
    """The one that it is in, and `own` the one that its priority gave it."""
    own: int
    held: float
    part: float
    """Of its band's slots that are its by right now, 0 to 1."""
    urgent: bool


class _Node:
    """A run, a project, a submitter, or the urgent ones; those inside are in a heap, the next one first."""

    __slots__ = ("claim", "held", "inside", "key", "weight")

    def __init__(self, claim: Claim | None, key: tuple[int, int]) -> None:
        self.claim = claim
        self.key = key
        self.held = claim.held if claim else 0.0
        self.weight = claim.weight if claim else 0.0
        self.inside: list[tuple[float, tuple[int, int], _Node]] = []

    def put(self, node: "_Node") -> None:
        self.inside.append((node.rank(), node.key, node))
        self.held += node.held
        self.weight = max(self.weight, node.weight)
        self.key = min(self.key, node.key)

    def rank(self) -> float:
        if self.claim is not None and self.claim.due is not None:
            return self.claim.due
        return self.held / self.weight


_LAST = (1, 0)
"""A key after every claim's."""


class TaskQueue:
    """Claims, until each has left. Equals are served by priority, then by ID."""

    def __init__(self, claims: Iterable[Claim]) -> None:
        everyone = sorted(claims, key=_key)
        self.top = max((band(claim.priority) for claim in everyone), default=0)
        self._bands: list[_Node] = []
        banded: dict[int, list[Claim]] = {}
        for claim in everyone:
            banded.setdefault(claim.aged(self.top), []).append(claim)
        for _, members in sorted(banded.items()):
            self._bands.append(_band_of(members))

    def next(self) -> Claim | None:
        """Who is to be served now."""
        if not self._bands:
            return None
        node = self._bands[-1]
        while node.claim is None:
            node = node.inside[0][2]
        return node.claim

    def serve(self, claim: Claim, slots: float) -> None:
        """The next one got so many slots' worth, above 0."""
        path = self._path(claim)
        for node in path:
            node.held += slots
        for outer, inner in zip(path[-2::-1], path[:0:-1], strict=True):
            heapq.heapreplace(outer.inside, (inner.rank(), inner.key, inner))

    def leave(self, claim: Claim) -> None:
        """The next one can take no more."""
        path = self._path(claim)
        for outer in path[-2::-1]:
            heapq.heappop(outer.inside)
            if outer.inside:
                return
        self._bands.pop()

    def _path(self, claim: Claim) -> list[_Node]:
        path = [self._bands[-1]]
        while path[-1].claim is None:
            path.append(path[-1].inside[0][2])
        assert path[-1].claim is claim, "only the next one is served, or leaves"
        return path


def standings(claims: Iterable[Claim]) -> tuple[Standing, ...]:
    """All of them, in the order in which they would be served next, were each given one slot in turn."""
    everyone = tuple(claims)
    parts = _parts(everyone)
    queue = TaskQueue(everyone)
    found: list[Standing] = []
    while (claim := queue.next()) is not None:
        found.append(
            Standing(
                run=claim.run,
                place=len(found) + 1,
                of=len(everyone),
                band=claim.aged(queue.top),
                own=band(claim.priority),
                held=claim.held,
                part=parts[claim.run],
                urgent=claim.due is not None,
            )
        )
        queue.leave(claim)
    return tuple(found)


def _key(claim: Claim) -> tuple[int, int]:
    return (-claim.priority, claim.run)


def _band_of(members: list[Claim]) -> _Node:
    """The tree of one band; `members` in the order of their keys."""
    root = _Node(None, _LAST)
    for _, projects in _by_submitter(members).items():
        submitter = _Node(None, _LAST)
        for runs in projects.values():
            project = _Node(None, _LAST)
            for claim in runs:
                project.put(_Node(claim, _key(claim)))
            heapq.heapify(project.inside)
            submitter.put(project)
        heapq.heapify(submitter.inside)
        root.put(submitter)
    hurried = [claim for claim in members if claim.due is not None]
    if hurried:
        urgent = _Node(None, _LAST)
        for claim in hurried:
            urgent.put(_Node(claim, _key(claim)))
        heapq.heapify(urgent.inside)
        urgent.weight = URGENT_PARTS * (sum(node.weight for _, _, node in root.inside) or 1.0)
        root.put(urgent)
    heapq.heapify(root.inside)
    return root


def _by_submitter(members: list[Claim]) -> dict[PeerId, dict[str, list[Claim]]]:
    """Those that are not urgent."""
    found: dict[PeerId, dict[str, list[Claim]]] = {}
    for claim in members:
        if claim.due is None:
            found.setdefault(claim.submitter, {}).setdefault(claim.project, []).append(claim)
    return found


def _parts(claims: tuple[Claim, ...]) -> dict[RunId, float]:
    """What part of its band each run is entitled to, were everybody able to use theirs."""
    queue = TaskQueue(claims)
    parts: dict[RunId, float] = {}
    for root in queue._bands:
        _divide(root, 1.0, parts)
    return parts


def _divide(node: _Node, part: float, parts: dict[RunId, float]) -> None:
    if node.claim is not None:
        parts[node.claim.run] = part
        return
    first = min(node.inside)[2]
    if first.claim is not None and first.claim.due is not None:
        parts.update({inner.claim.run: 0.0 for _, _, inner in node.inside if inner.claim})
        parts[first.claim.run] = part
        return
    total = sum(inner.weight for _, _, inner in node.inside)
    for _, _, inner in node.inside:
        _divide(inner, part * inner.weight / total, parts)

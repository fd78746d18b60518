"""Which test goes to which slot, as a pure queue: keys in, keys to hand out.

A *group* is what is pending of one scope. A slot works through one group at a time and is alone with it while other
groups wait; when none does, it joins the group with the most work left, unless that is an xdist_group, which stays on
one slot for the whole session.

A slot is given so many tests ahead that it is busy for about `AHEAD_SECONDS`, by what its last tests took, but never
more than its share of what is left; it begins with two, so that nothing is committed before anything is known. Tests
given and not begun are taken back (`rich`) when another slot has nothing to do: that undoes wrong guesses.

Invariant: each key added is pending in one group, or given to one slot, or gone (finished, removed, lost).
Rejected: chunks of a fixed size (they strand short tests behind a long one), and one queue for all slots in order of
submission (it imports every module, and sets up its fixtures, in every slot).
"""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

AHEAD_SECONDS = 0.15
AHEAD_MAX = 256
"""Tests given to one slot and not begun."""
AHEAD_FIRST = 2
JOIN_SECONDS_MIN = 0.02
"""Expected work left in a group that makes it worth to import its module in a second slot."""
GUESS_SECONDS = 0.01
"""Expected duration of a test while nothing is known."""
SMOOTHING = 0.2
"""Weight of the newest duration in a slot's mean."""


@dataclass(slots=True)
class _Group:
    scope: str
    shared: bool
    """Whether several slots may work on it."""
    keys: deque[int] = field(default_factory=deque)


@dataclass(slots=True)
class _Lane:
    """One slot, as seen from here."""

    scope: str = ""
    given: deque[int] = field(default_factory=deque)
    """In the order given; the first is running if `running`."""
    running: bool = False
    since: float = 0.0
    mean: float = GUESS_SECONDS
    known: bool = False


class SlotQueue:
    """Not durable, not shared; times are seconds of any one clock."""

    def __init__(self, slots: int) -> None:
        self._lanes = [_Lane() for _ in range(slots)]
        self._groups: dict[str, _Group] = {}
        self._scopes: dict[int, tuple[str, bool]] = {}
        self._homes: dict[str, int] = {}
        """xdist_group -> the slot that has it."""
        self._pending = 0

    @property
    def pending(self) -> int:
        """Keys that no slot has."""
        return self._pending

    def given(self, slot: int) -> Sequence[int]:
        """What the slot has: first the one that runs, if one does."""
        return tuple(self._lanes[slot].given)

    def add(self, key: int, scope: str, shared: bool = True) -> None:
        """Queue a test at the end of its scope's group. `shared`: several slots may work on the scope."""
        self._scopes[key] = (scope, shared)
        self._group(scope, shared).keys.append(key)
        self._pending += 1

    def started(self, slot: int, key: int, now: float) -> None:
        lane = self._lanes[slot]
        lane.running = bool(lane.given) and lane.given[0] == key
        lane.since = now

    def finished(self, slot: int, key: int, seconds: float) -> None:
        lane = self._lanes[slot]
        if key in lane.given:
            lane.given.remove(key)
        lane.running = False
        lane.mean = lane.mean + SMOOTHING * (seconds - lane.mean) if lane.known else seconds
        lane.known = True
        self._scopes.pop(key, None)

    def refill(self, slot: int, now: float) -> list[int]:
        """Tests to give to the slot now, in order; they count as given."""
        lane = self._lanes[slot]
        ahead = len(lane.given) - lane.running
        wanted = AHEAD_FIRST
        if lane.known:
            wanted = max(1, min(AHEAD_MAX, int(AHEAD_SECONDS / max(lane.mean, 1e-6))))
        if ahead > wanted // 2:
            return []
        limit = wanted - ahead
        share = limit if len(self._lanes) == 1 else max(1, self._pending // (2 * len(self._lanes)))
        taken: list[int] = []
        while len(taken) < limit:
            group = self._next_group(slot, now, idle=not lane.given and not taken)
            if group is None:
                break
            room = limit - len(taken)
            if group.shared:
                room = min(room, share - len(taken))
            if room <= 0:
                break
            lane.scope = group.scope
            if not group.shared:
                self._homes.setdefault(group.scope, slot)
            count = min(room, len(group.keys))
            taken += [group.keys.popleft() for _ in range(count)]
            self._pending -= count
            if not group.keys:
                del self._groups[group.scope]
        lane.given.extend(taken)
        return taken

    def rich(self, now: float) -> int | None:
        """A slot from which to take back what it has not begun, because another has nothing to do; or None."""
        if self._pending or all(lane.given for lane in self._lanes):
            return None
        best, most = None, JOIN_SECONDS_MIN
        for slot, lane in enumerate(self._lanes):
            spare = [key for key in list(lane.given)[lane.running :] if self._scopes[key][1]]
            expected = len(spare) * self._pace(lane, now)
            if spare and lane.running and expected > most:
                best, most = slot, expected
        return best

    def returned(self, slot: int, keys: Sequence[int]) -> None:
        """The slot did not begin these, and never will: they are pending again, before others of their scope."""
        lane = self._lanes[slot]
        for key in reversed(keys):
            lane.given.remove(key)
            scope, shared = self._scopes[key]
            self._group(scope, shared).keys.appendleft(key)
            self._pending += 1

    def remove(self, wanted: Callable[[int], bool]) -> list[int]:
        """Forget the pending tests for which `wanted` holds; which those were."""
        removed: list[int] = []
        for scope in list(self._groups):
            group = self._groups[scope]
            gone = [key for key in group.keys if wanted(key)]
            if not gone:
                continue
            removed += gone
            group.keys = deque(key for key in group.keys if not wanted(key))
            if not group.keys:
                del self._groups[scope]
        self._pending -= len(removed)
        for key in removed:
            del self._scopes[key]
        return removed

    def lost(self, slot: int, blamed: Iterable[int]) -> None:
        """The slot's process is gone, and `blamed` with it; call `returned` first for all that it did not take."""
        lane = self._lanes[slot]
        for key in blamed:
            lane.given.remove(key)
            self._scopes.pop(key, None)
        rest = tuple(lane.given)
        lane.running = False
        self.returned(slot, rest)
        self._lanes[slot] = _Lane()

    def _group(self, scope: str, shared: bool) -> _Group:
        group = self._groups.get(scope)
        if group is None:
            group = self._groups[scope] = _Group(scope, shared)
        return group

    def _pace(self, lane: _Lane, now: float) -> float:
        """Seconds that a test of this lane is expected to take, or to wait."""
        return max(lane.mean, now - lane.since if lane.running else 0.0)

    def _next_group(self, slot: int, now: float, idle: bool) -> _Group | None:
        """Its own, else the first that is nobody's, else, for an idle slot, the one with the most work left."""
        own = self._groups.get(self._lanes[slot].scope)
        if own is not None and self._allowed(own, slot):
            return own
        owned = {lane.scope for lane in self._lanes if lane.given or lane.scope in self._groups}
        for group in self._groups.values():
            if group.scope not in owned and self._allowed(group, slot):
                return group
        if not idle:
            return None
        shared = [group for group in self._groups.values() if group.shared]
        if not shared:
            return None
        largest = max(shared, key=lambda group: len(group.keys))
        owners = [lane for lane in self._lanes if lane.scope == largest.scope and lane.given]
        pace = max((self._pace(lane, now) for lane in owners), default=JOIN_SECONDS_MIN)
        return largest if len(largest.keys) * pace >= JOIN_SECONDS_MIN else None

    def _allowed(self, group: _Group, slot: int) -> bool:
        return group.shared or self._homes.get(group.scope, slot) == slot

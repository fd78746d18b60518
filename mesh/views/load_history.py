"""How busy each node was over the last day, and in which state, as one node heard of it. Pure: time is passed in.

Each node has a ring of bytes for each figure, a byte a step: 200 nodes take under 2 MiB. All rings turn together, with
the clock. A step has the mean of what was seen in it, and the state furthest from alive; while nothing is heard of a
node there is a gap. A clock that goes back takes with it what lay ahead of it. Rejected: a sample for each presence
that comes, which makes a quiet node as dear as a busy one, and times that have to be kept.
"""

from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

from protocols.codec import Value
from protocols.ids import PeerId
from protocols.loads import KeptLoads, NodeLoads
from protocols.presence import NodeState, Presence

STEP_SECONDS = 60
STEPS = 1440
"""A day."""

MEET_SECONDS = 60.0
"""For which a node that has just started has not heard of the others yet: they are not away."""

NODES_MAX = 1024
"""Of which something is kept, 9 KiB each: who was heard of longest ago goes first."""

FIGURES = ("cpu", "memory", "slots", "gpu", "gpu_memory")
"""Shares of the whole, 0 to 1: of all threads, of the memory, of the slots; the GPUs' mean use, and their memory."""

UNKNOWN = 255
GAP = bytes([UNKNOWN])
BLANK = GAP * STEPS
SCALE = 250
"""What stands for 1 in a byte."""
KNOWN_SHARES = GAP + bytes(range(SCALE + 1))

STATES = (NodeState.ALIVE, NodeState.DRAINING, NodeState.SUSPECT, NodeState.DEAD)
"""By their bytes, the furthest from alive last."""
KNOWN_STATES = GAP + bytes(range(len(STATES)))
HEARD = (NodeState.ALIVE, NodeState.DRAINING)
"""States in which what a node tells of itself is of now."""

NUMBER_MAX = 2.0**63

NOTHING_KEPT = KeptLoads(0, ())


class LoadHistory:
    """`look` at all nodes several times a step. `kept`: of an earlier life of this node; `ValueError` if it is none of
    ours."""

    def __init__(self, kept: KeptLoads = NOTHING_KEPT) -> None:
        self._rows = {node.peer: _Row(node.heard, node.states, node.figures) for node in kept.nodes[:NODES_MAX]}
        self._step = kept.step
        """The newest, in steps since the epoch."""
        self._unmet = set(self._rows)
        """Nodes of an earlier life that were not heard of in this one; they are given `MEET_SECONDS`."""
        self._began: float | None = None

    def kept(self) -> KeptLoads:
        """All that is known, but what the newest step is the mean of."""
        rows = self._rows.items()
        return KeptLoads(
            self._step,
            tuple(NodeLoads(peer, row.heard, bytes(row.states), tuple(map(bytes, row.figures))) for peer, row in rows),
        )

    def __contains__(self, peer: str) -> bool:
        return peer in self._rows

    def look(self, now: float, seen: Iterable[tuple[Presence, NodeState]]) -> None:
        """What is so at `now`, seconds since the epoch. A node that is known and not among them is away."""
        self._turn(int(now // STEP_SECONDS))
        self._began = now if self._began is None else self._began
        if now - self._began >= MEET_SECONDS:
            self._unmet.clear()
        away = dict(self._rows)
        for presence, state in seen:
            row = away.pop(presence.peer, None) or self._begin(presence.peer)
            self._unmet.discard(presence.peer)
            if state in HEARD:
                row.heard = self._step
                row.take(self._slot, figures_of(presence))
            row.note(self._slot, STATES.index(state))
        for peer, row in away.items():
            if peer not in self._unmet:
                row.note(self._slot, STATES.index(NodeState.DEAD))

    def document(self, peer: PeerId, hours: int) -> dict[str, Any]:
        """The last `hours`, as docs/api.md has it, from the first step of which something is known."""
        row = self._rows.get(peer)
        states = _tail(row.states, self._slot, hours * 3600 // STEP_SECONDS).lstrip(GAP) if row else b""
        first = self._step - len(states) + 1
        return {
            "peer": peer,
            "step_seconds": STEP_SECONDS,
            "start": first * STEP_SECONDS if states else None,
            **{name: row.shares(name, self._slot, len(states)) if row and states else None for name in FIGURES},
            "states": _periods(states, first),
        }

    @property
    def _slot(self) -> int:
        return self._step % STEPS

    def _begin(self, peer: PeerId) -> "_Row":
        if len(self._rows) >= NODES_MAX:
            del self._rows[min(self._rows, key=lambda one: (self._rows[one].heard, one))]
        row = self._rows[peer] = _Row(self._step)
        return row

    def _turn(self, step: int) -> None:
        if step == self._step:
            return
        first, last = min(step, self._step) + 1, max(step, self._step)
        if last - first >= STEPS - 1:
            self._rows.clear()
        for row in self._rows.values():
            row.blank(first % STEPS, last - first + 1)
            row.heard = min(row.heard, step)
        self._step = step
        for peer in [peer for peer, row in self._rows.items() if row.heard <= step - STEPS]:
            del self._rows[peer]


class _Row:
    """One node's rings."""

    __slots__ = ("figures", "heard", "states", "sums", "worst")

    def __init__(self, heard: int, states: bytes = BLANK, figures: Sequence[bytes] = (BLANK,) * len(FIGURES)) -> None:
        if {STEPS} != {len(ring) for ring in (states, *figures)} or len(figures) != len(FIGURES):
            raise ValueError(f"not {len(FIGURES)} figures of {STEPS} steps")
        if states.strip(KNOWN_STATES) or any(ring.strip(KNOWN_SHARES) for ring in figures):
            raise ValueError("an unknown state, or a share over 1")
        self.figures = tuple(map(bytearray, figures))
        self.states = bytearray(states)
        self.heard = heard
        """The last step in which it told of itself; at first the one in which it was heard of."""
        self.sums = [(0.0, 0)] * len(FIGURES)
        """Of the newest step: the sum of what was seen of each figure, and how often."""
        self.worst = 0
        """And the state furthest from alive."""

    def take(self, slot: int, shares: Iterable[float | None]) -> None:
        for place, share in enumerate(shares):
            if share is not None:
                total, count = self.sums[place]
                self.sums[place] = total, count = total + share, count + 1
                self.figures[place][slot] = round(total / count * SCALE)

    def note(self, slot: int, state: int) -> None:
        self.worst = self.states[slot] = max(self.worst, state)

    def blank(self, slot: int, count: int) -> None:
        """So many steps from this one on, and what was summed up."""
        for ring in (*self.figures, self.states):
            end = min(slot + count, STEPS)
            ring[slot:end] = GAP * (end - slot)
            ring[: slot + count - end] = GAP * (slot + count - end)
        self.sums = [(0.0, 0)] * len(FIGURES)
        self.worst = 0

    def shares(self, name: str, slot: int, count: int) -> list[float | None] | None:
        """The last steps of a figure; None: it is not known in any of them."""
        ring = _tail(self.figures[FIGURES.index(name)], slot, count)
        if ring.count(UNKNOWN) == count:
            return None
        return [None if byte == UNKNOWN else byte / SCALE for byte in ring]


def _tail(ring: bytearray, slot: int, count: int) -> bytes:
    """The last `count` steps, up to the one at `slot`."""
    return bytes(ring[slot + 1 :] + ring[: slot + 1])[-count:]


def _periods(states: bytes, first: int) -> list[dict[str, Any]]:
    """Neighbouring steps with the same state as one."""
    periods: list[dict[str, Any]] = []
    step = first
    for state, steps in groupby(states):
        since, step = step, step + len(list(steps))
        name = None if state == UNKNOWN else STATES[state].value
        periods.append({"state": name, "since": since * STEP_SECONDS, "until": step * STEP_SECONDS})
    if periods:
        periods[-1]["until"] = None
    return periods


def figures_of(presence: Presence) -> tuple[float | None, ...]:
    """In the order of `FIGURES`, 0 to 1; None: not told. What a node tells may be anything."""
    load, has = presence.load, presence.capabilities
    percent, free = _number(load.get("cpu.percent")), _number(load.get("memory.available"))
    memory, slots = _number(has.get("memory")), _number(presence.slots)
    return (
        None if percent is None else _share(percent, 100),
        None if free is None or memory is None else _share(memory - free, memory),
        _share(_number(presence.busy) or 0.0, slots or 0.0),
        *_gpus(load.get("gpu"), has.get("gpu")),
    )


def _gpus(used: Value, known: Value) -> tuple[float | None, float | None]:
    """(mean use, part of all their memory that is taken) of a host's GPUs."""
    sizes = {_number(gpu.get("index")): _number(gpu.get("memory")) for gpu in _mappings(known)}
    percents: list[float] = []
    taken = total = 0.0
    for gpu in _mappings(used):
        percent, free = _number(gpu.get("percent")), _number(gpu.get("memory.free"))
        size = sizes.get(_number(gpu.get("index")))
        if percent is not None:
            percents.append(percent)
        if free is not None and size is not None:
            taken, total = taken + size - free, total + size
    return _share(sum(percents), 100 * len(percents)), _share(taken, total)


def _share(part: float, whole: float) -> float | None:
    return min(max(part / whole, 0.0), 1.0) if whole > 0 else None


def _number(value: Value) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if -NUMBER_MAX < value < NUMBER_MAX else None


def _mappings(value: Value) -> list[Mapping[str, Value]]:
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, tuple | list) else []

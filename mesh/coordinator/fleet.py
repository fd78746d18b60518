"""The workers as the coordinator sees them: the log's registrations, presence, and who was heard lately.

A worker is alive while it is connected and heard; lost once it has been silent or disconnected for long enough that
its leases are given to others. Soft state: a new coordinator starts with full timers (`restart`), so that it expires
nothing that it has not itself waited for.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

from mesh.ports import NodeView
from mesh.scheduler.facts import facts
from mesh.scheduler.fleet import WorkerView
from mesh.state.model import CoordinatorState
from protocols.codec import Value
from protocols.ids import LeaseId, PeerId, RunId, TestIndex
from protocols.presence import Presence

DISCONNECTED_SECONDS = 3.0
"""How long a worker's connection may be down before its leases expire (its timeout, if that is shorter)."""

REASONS_SHOWN_MAX = 3
"""Workers' reasons in the sentence of a run that none of them could prepare."""

UNFIT_SECONDS = 30.0
"""How long a worker that could not prepare a run gets nothing of it."""


@dataclass(slots=True)
class _Seen:
    heard: float
    connected: float
    running: dict[tuple[LeaseId, TestIndex], float] = field(default_factory=dict)
    """Tests under way, and since when that is known."""
    unfit: dict[RunId, tuple[float, str, int]] = field(default_factory=dict)
    """Run -> (when it said so, why, and the exit code of the run if nobody can)."""


class Fleet:
    """Timers on trio's clock, passed in."""

    def __init__(self, worker_timeout: float) -> None:
        self._timeout = worker_timeout
        self._seen: dict[PeerId, _Seen] = {}
        self._facts: dict[PeerId, tuple[Presence, Mapping[str, Value]]] = {}
        """What follows from each node's newest presence."""

    def restart(self) -> None:
        """Another coordinator's timers mean nothing here."""
        self._seen.clear()

    def heard(self, peer: PeerId, running: tuple[tuple[LeaseId, TestIndex], ...], now: float) -> None:
        """A heartbeat arrived."""
        seen = self._of(peer, now)
        seen.heard = seen.connected = now
        seen.running = {one: seen.running.get(one, now) for one in running}

    def unfit(self, peer: PeerId, run: RunId, reason: str, exit_code: int, now: float) -> None:
        """The worker says that it can't work on this run, and what the run ends with if nobody can."""
        self._of(peer, now).unfit[run] = (now, reason, exit_code)

    def running(self) -> list[tuple[PeerId, LeaseId, TestIndex]]:
        """Tests under way, as last heard."""
        return [(peer, lease, test) for peer, seen in sorted(self._seen.items()) for lease, test in seen.running]

    def under_way(self, now: float) -> list[tuple[PeerId, LeaseId, TestIndex, float]]:
        """The same, with for how many seconds that is known."""
        seen = sorted(self._seen.items())
        return [(peer, *one, now - since) for peer, known in seen for one, since in known.running.items()]

    def unfit_reasons(self, run: RunId, now: float) -> dict[PeerId, str]:
        """Who said lately that it can't work on the run, and why."""
        return {
            peer: seen.unfit[run][1]
            for peer, seen in sorted(self._seen.items())
            if run in seen.unfit and now - seen.unfit[run][0] < UNFIT_SECONDS
        }

    def unfit_codes(self, run: RunId, now: float) -> set[int]:
        """The exit codes that go with these reasons."""
        return {
            seen.unfit[run][2]
            for seen in self._seen.values()
            if run in seen.unfit and now - seen.unfit[run][0] < UNFIT_SECONDS
        }

    def views(self, state: CoordinatorState, nodes: Mapping[PeerId, NodeView], now: float) -> dict[PeerId, WorkerView]:
        """Every registered worker, in the order of peer IDs."""
        for gone in self._facts.keys() - nodes.keys():
            del self._facts[gone]
        return {peer: self._view(state, peer, nodes.get(peer), now) for peer in sorted(state.workers)}

    def _facts_of(self, peer: PeerId, presence: Presence) -> Mapping[str, Value]:
        known = self._facts.get(peer)
        if known is None or known[0] is not presence:
            known = self._facts[peer] = (presence, facts(presence))
        return known[1]

    def _of(self, peer: PeerId, now: float) -> _Seen:
        return self._seen.setdefault(peer, _Seen(heard=now, connected=now))

    def _view(self, state: CoordinatorState, peer: PeerId, node: NodeView | None, now: float) -> WorkerView:
        worker = state.workers[peer]
        seen = self._of(peer, now)
        if node is not None and node.connected:
            seen.connected = now
        grace = min(DISCONNECTED_SECONDS, self._timeout)
        lost = now - seen.heard > self._timeout or now - seen.connected > grace
        view = WorkerView(peer, worker.incarnation, alive=False, lost=lost, slots=worker.slots, name=worker.name)
        if node is None:
            return view
        presence = node.presence
        return dataclasses.replace(
            view,
            alive=not lost and node.connected and presence.incarnation == worker.incarnation,
            draining=presence.draining,
            capabilities=self._facts_of(peer, presence),
            load=_share_busy(presence),
            bundles=frozenset(presence.bundles),
            unfit=frozenset(run for run, (at, _, _) in seen.unfit.items() if now - at < UNFIT_SECONDS),
            running=tuple((lease, test, now - since) for (lease, test), since in seen.running.items()),
        )


def told_alike(reasons: Mapping[PeerId, str], names: Mapping[PeerId, str]) -> str:
    """What workers said, in one sentence: those who said the same together."""
    alike: dict[str, list[str]] = {}
    for peer, reason in reasons.items():
        alike.setdefault(reason, []).append(names.get(peer) or peer)
    return "; ".join(f"{', '.join(who)}: {reason}" for reason, who in list(alike.items())[:REASONS_SHOWN_MAX])


def _share_busy(presence: Presence) -> float:
    percent = presence.load.get("cpu.percent", 0.0)
    return min(1.0, percent / 100) if isinstance(percent, int | float) else 0.0

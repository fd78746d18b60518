"""The feed: what the entries of the log tell those who watch the mesh, mostly one event each, or none. Pure.

An event's ID is the index of its entry: the same on every member, and the same again when a member that restarts
applies its log anew, so that whoever watches goes on anywhere by the last ID seen. What is replicated is the log;
events are made of it where it is applied, from the state before and after, and nothing of them is kept on a disk.

Invariants: IDs rise; of what lies after `Ring.floor`, every event is there or was never one; the events of one entry
are told together, or not at all.
"""

import bisect
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mesh.state import ranges
from mesh.state.alerts import active, alert_document
from mesh.state.model import Alert, CoordinatorState, Run
from mesh.state.report import counts, finished_event
from mesh.state.results import Applied, Result
from protocols.alerts import AcknowledgeAlert, ClearAlerts, RaiseAlerts
from protocols.client import FeedEvent
from protocols.commands import (
    Abandon,
    Cancel,
    Collected,
    CollectFailed,
    Command,
    Complete,
    Expire,
    Finish,
    Grant,
    Hedge,
    PinRoot,
    Placed,
    Preempt,
    Register,
    Return,
    Reuse,
    Skip,
    Submit,
    Unpin,
)
from protocols.ids import NO_RUN, PeerId, RunId
from protocols.manifests import Outcome

EVENTS_MAX = 10_000
EVENT_BYTES_MAX = 8 * 1024 * 1024
"""Of the newest events that a member keeps in memory; whichever is reached first."""
BAD_SHOWN_MAX = 20
"""Tests that went wrong, in one event."""
TEXT_CHARACTERS_MAX = 300
"""Of a name or a reason in an event; the run's own document has all of it."""

FOUNDING = 1
"""The first entry of a log, which tells nothing: who knows all after it knows all."""

PROGRESS = "run-progress"

_BAD = tuple(outcome.code for outcome in Outcome if outcome.bad)


@dataclass(frozen=True, slots=True)
class Held:
    """What a command's lease was before the command: it may be closed after it."""

    run: RunId
    worker: PeerId
    tests: int


def held(state: CoordinatorState, command: Command | None) -> Held | None:
    """To be asked before the command is applied."""
    if isinstance(command, Return | Preempt | Expire):
        lease = state.leases.get(command.lease)
        if lease is not None:
            return Held(lease.run, lease.worker, ranges.size(lease.open))
    return None


class Feed:
    """The events of one member's log, as it is applied."""

    def __init__(self) -> None:
        self.ring = Ring()
        self.at = 0.0
        """As of when the newest entry was committed, seconds since the epoch, about; 0: not known."""
        self.led_until = 0.0
        """When the last leader that this member followed was lost, seconds since the epoch; 0: there was none yet."""

    def applied(
        self,
        index: int,
        command: Command | None,
        result: Result | None,
        state: CoordinatorState,
        before: Held | None,
        now: float,
    ) -> None:
        """An entry was applied. `now`: seconds since the epoch; 0 where it is not known when the entry was committed,
        and the newest time that the log tells stands for it."""
        told: Sequence[Told] = ()
        if command is not None and isinstance(result, Applied):
            stamp = command.at if isinstance(command, Submit | Finish) else now
            self.at = stamp or self.at
            maker = _MAKERS.get(type(command))
            found = maker(state, index, command, result, before) if maker is not None else None
            told = found if isinstance(found, list) else [found] if found is not None else ()
        at = round(self.at, 3)
        self.ring.enter(index, [FeedEvent(index, name, run, _json({"at": at, **fields})) for name, run, fields in told])


class Ring:
    """The newest events, and the stretch of the log, `floor` < index <= `head`, that they are all the events of."""

    def __init__(self, floor: int = 0) -> None:
        self._events: list[FeedEvent] = []
        self._begin(floor)

    def _begin(self, floor: int) -> None:
        self.floor = self.head = floor
        self._events.clear()
        self._first = 0
        """Of `_events`, those before it are gone."""
        self._bytes = 0

    def enter(self, index: int, events: Sequence[FeedEvent] = ()) -> None:
        """The entry at `index`, above every earlier one, made these events."""
        assert index > self.head, "events come in the log's order"
        self.head = index
        self._events += events
        self._bytes += sum(len(event.json) for event in events)
        while len(self._events) - self._first > EVENTS_MAX or self._bytes > EVENT_BYTES_MAX:
            gone = self._events[self._first]
            self._bytes -= len(gone.json)
            self.floor = gone.index
            self._first += 1
        if self._first > EVENTS_MAX // 4:
            del self._events[: self._first]
            self._first = 0

    def advance(self, head: int) -> None:
        """Up to `head` there are no others."""
        self.head = max(self.head, head)

    def restart(self, floor: int) -> None:
        """The log goes on after `floor`, and what was before it is not known here."""
        self._begin(floor)
        if floor == FOUNDING:
            self.floor = 0

    def since(self, after: int, events_max: int, bytes_max: int) -> tuple[FeedEvent, ...] | None:
        """The events after that index, the oldest first, as many as the bounds allow, or an entry's. None: not all of
        them are known here."""
        if after < self.floor:
            return None
        first = bisect.bisect_right(self._events, after, self._first, key=lambda event: event.index)
        size = 0
        for end in range(first, len(self._events)):
            size += len(self._events[end].json)
            begins = end == first or self._events[end].index != self._events[end - 1].index
            if end > first and begins and (end - first >= events_max or size > bytes_max):
                return tuple(self._events[first:end])
        return tuple(self._events[first:])


def merged(events: Iterable[FeedEvent]) -> list[FeedEvent]:
    """Of a burst, each run's progress once: the newest, with all the tests that went wrong meanwhile."""
    found: list[FeedEvent] = []
    newest: dict[RunId, FeedEvent] = {}
    bad: dict[RunId, list[Any]] = {}
    for event in events:
        if event.name == PROGRESS:
            if event.run in newest:
                bad.setdefault(event.run, []).extend(json.loads(newest[event.run].json)["bad"])
            newest[event.run] = event
        found.append(event)
    return [
        _with_bad(event, bad[event.run]) if event.run in bad and event.name == PROGRESS else event
        for event in found
        if event.name != PROGRESS or newest[event.run] is event
    ]


def _with_bad(event: FeedEvent, earlier: list[Any]) -> FeedEvent:
    document = json.loads(event.json)
    document["bad"] = (earlier + document["bad"])[-BAD_SHOWN_MAX:]
    return FeedEvent(event.index, event.name, event.run, _json(document))


def _json(document: Mapping[str, Any]) -> bytes:
    return _ENCODER.encode(document).encode()


_ENCODER = json.JSONEncoder(separators=(",", ":"))
"""Every entry of the log passes here, on every member: a new encoder each time would cost a third more."""


def _short(text: str) -> str:
    return text if len(text) <= TEXT_CHARACTERS_MAX else f"{text[: TEXT_CHARACTERS_MAX - 1]}…"


Told = tuple[str, RunId, dict[str, Any]]
"""An event's name, its run if it has one, and its fields."""


def _submitted(
    state: CoordinatorState, index: int, command: Submit, result: Applied, before: Held | None
) -> Told | None:
    if result.run != index:  # the same nonce again
        return None
    spec = command.spec
    return "run-submitted", RunId(index), {
        "run": str(index),
        "name": _short(spec.name),
        "project": _short(spec.project),
        "priority": spec.priority,
        "submitter": spec.submitter,
    }  # fmt: skip


def _collected(
    state: CoordinatorState, index: int, command: Collected, result: Applied, before: Held | None
) -> Told | None:
    assert result.run is not None
    return "run-collected", result.run, {"run": str(result.run), "tests": command.tests}


def _leased(
    state: CoordinatorState, index: int, command: Grant | Hedge, result: Applied, before: Held | None
) -> Told | None:
    assert result.run is not None
    tests = ranges.size(list(command.tasks)) if isinstance(command, Grant) else 1
    return "run-leased", result.run, {
        "run": str(result.run),
        "lease": str(index),
        "worker": command.worker,
        "tests": tests,
        "collects": not tests,
        "hedge": isinstance(command, Hedge),
    }  # fmt: skip


def _ended(
    state: CoordinatorState, index: int, command: Return | Preempt | Expire, result: Applied, before: Held | None
) -> Told | None:
    assert before is not None, "a command that held had an open lease"
    whole = command.lease not in state.leases
    why = {Return: "given back", Preempt: "preempted", Expire: "lost"}[type(command)]
    return "lease-ended", before.run, {
        "run": str(before.run),
        "lease": str(command.lease),
        "worker": command.companion or before.worker if isinstance(command, Expire) else before.worker,
        "tests": len(result.tests) if isinstance(command, Return) else before.tests,
        "why": why,
        "closed": whole,
    }  # fmt: skip


def _progress(
    state: CoordinatorState, index: int, command: Command, result: Applied, before: Held | None
) -> Told | None:
    run = state.runs.get(result.run) if result.run is not None else None
    return None if run is None else (PROGRESS, run.id, _progress_of(run, ()))


def _completed(
    state: CoordinatorState, index: int, command: Complete, result: Applied, before: Held | None
) -> Told | None:
    run = state.runs[result.run] if result.run is not None else None
    if run is None or not result.tests:
        return None
    bad: list[dict[str, Any]] = []
    last = run.chunks[-1] if run.chunks else None
    fresh = last is not None and (last.lease, last.chunk) == (command.lease, command.chunk)
    if last is not None and fresh and any(code in last.outcomes for code in _BAD):
        bad = [
            {"index": test, "outcome": Outcome.of_code(code).value, "worker": last.worker, "attempt": attempt}
            for test, code, attempt in zip(last.tests, last.outcomes, last.attempts, strict=True)
            if code in _BAD
        ]
    return PROGRESS, run.id, _progress_of(run, bad[:BAD_SHOWN_MAX])


def _progress_of(run: Run, bad: Iterable[dict[str, Any]]) -> dict[str, Any]:
    return {
        "run": str(run.id),
        "state": run.state,
        "done": run.done,
        "tests": run.tests,
        "pending": run.pending_tests,
        "leased": run.leased,
        "counts": counts(run),
        "bad": list(bad),
    }


def _finished(
    state: CoordinatorState, index: int, command: Finish, result: Applied, before: Held | None
) -> Told | None:
    run = state.runs.get(command.run) or state.archive.get(command.run)
    if run is None:
        return None
    told = finished_event(run)
    fields = ("run", "state", "exit_code", "counts", "tests", "report", "wall_seconds")
    return "run-finished", run.id, {**{field: told[field] for field in fields}, "reason": _short(told["reason"])}


def _registered(
    state: CoordinatorState, index: int, command: Register, result: Applied, before: Held | None
) -> Told | None:
    if state.workers[command.worker].registered != index:  # it only told anew what it is
        return None
    return "worker-joined", NO_RUN, {"worker": command.worker, "name": _short(command.name), "slots": command.slots}


def _pins(state: CoordinatorState, index: int, command: Command, result: Applied, before: Held | None) -> Told | None:
    return "pins-changed", NO_RUN, {}


def _alerts(alerts: Iterable[Alert | None]) -> list[Told]:
    return [("alert", NO_RUN, {"alert": alert_document(alert)}) for alert in alerts if alert is not None]


def _alerts_raised(
    state: CoordinatorState, index: int, command: RaiseAlerts, result: Applied, before: Held | None
) -> list[Told]:
    known = active(state)
    return _alerts(known.get((finding.kind, finding.subject)) for finding in command.findings)


def _alerts_cleared(
    state: CoordinatorState, index: int, command: ClearAlerts, result: Applied, before: Held | None
) -> list[Told]:
    return _alerts(state.alerts.get(alert) for alert in command.alerts)


def _alert_known(
    state: CoordinatorState, index: int, command: AcknowledgeAlert, result: Applied, before: Held | None
) -> list[Told]:
    return _alerts([state.alerts.get(command.alert)])


_MAKERS: dict[type[Any], Callable[[CoordinatorState, int, Any, Applied, Held | None], Told | list[Told] | None]] = {
    Submit: _submitted,
    Collected: _collected,
    CollectFailed: _progress,
    Grant: _leased,
    Hedge: _leased,
    Complete: _completed,
    Return: _ended,
    Preempt: _ended,
    Expire: _ended,
    Abandon: _progress,
    Skip: _progress,
    Reuse: _progress,
    Cancel: _progress,
    Finish: _finished,
    Register: _registered,
    PinRoot: _pins,
    Unpin: _pins,
    Placed: _pins,
    RaiseAlerts: _alerts_raised,
    ClearAlerts: _alerts_cleared,
    AcknowledgeAlert: _alert_known,
}
"""Whatever else a log holds makes no event."""

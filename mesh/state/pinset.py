"""The pinset: which roots the mesh keeps, why, on how many nodes, and on which. Only the log's commands write it.

What runs name is pinned by the commands that name it, so that no run exists without its bundle's pin and none ends
without its report's; what users pin has a command of its own. Chunks, artifacts and shared values are not here: there
may be thousands of each run, and its report has what is in them. They are held where they are while the run is open
(`named`).

Rejected: pins as proposals of the coordinator alone (a run without its pins could exist for a moment, and one whose
coordinator died for longer), and an entry for each chunk (the log holds decisions, not bookkeeping).
"""

from dataclasses import replace

from mesh.state.model import (
    HOLDERS_MAX,
    PINS_MAX,
    USER_PINS_MAX,
    CoordinatorState,
    Pin,
    PinReason,
    Run,
    RunPhase,
    RunSummary,
)
from mesh.state.results import Applied, Rejected, Result
from protocols.commands import REPLICAS_DEFAULT, REPLICAS_MAX, PinKind, PinRoot, Placed, Unpin
from protocols.ids import NO_RUN, Cid

LOG_FORMAT_MIN = 4

REASON_CHARACTERS_MAX = 200


def is_open(run: Run) -> bool:
    return run.phase is not RunPhase.FINISHED


def needed(state: CoordinatorState) -> frozenset[Cid]:
    """Roots whose pins stay because an open run names them."""
    return frozenset(root for run in state.runs.values() if is_open(run) for root, _ in _named_by(run))


def named(state: CoordinatorState) -> frozenset[Cid]:
    """What no collection may remove: all that is pinned, and what open runs have produced so far. The artifacts of
    their tests are named in their chunks."""
    found = set(state.pins)
    for run in state.runs.values():
        if is_open(run):
            found.update(root for root, _ in _named_by(run))
            found.update(done.chunk for done in (*run.chunks, *run.tries))
            found.update(run.values.values())
            if run.failure is not None and run.failure.record is not None:
                found.add(run.failure.record)
    return frozenset(found)


def _named_by(run: Run) -> tuple[tuple[Cid, PinKind], ...]:
    """What a run is made of and has come to, as far as it is known by now."""
    roots = (
        (run.spec.bundle, PinKind.BUNDLE),
        (run.spec.selection, PinKind.SELECTION),
        (run.manifest, PinKind.MANIFEST),
        (run.report, PinKind.REPORT),
    )
    return tuple((root, kind) for root, kind in roots if root is not None)


def enter(state: CoordinatorState, run: Run) -> None:
    """Pin what a run names now."""
    if state.format < LOG_FORMAT_MIN:
        return
    for root, kind in _named_by(run):
        since = run.finished_at if kind is PinKind.REPORT and run.finished_at is not None else run.submitted_at
        text = f"{kind} of run {run.id}"
        _add(state, root, PinReason(kind, run.id, text, since, REPLICAS_DEFAULT))


def adopt(state: CoordinatorState) -> None:
    """Pin what the runs of a log that had no pinset name; who holds it is found out by and by."""
    for run in state.runs.values():
        enter(state, run)
    for summary in state.archive.values():
        _enter_report(state, summary)


def _enter_report(state: CoordinatorState, run: RunSummary) -> None:
    if run.report is not None and state.format >= LOG_FORMAT_MIN:
        reason = PinReason(PinKind.REPORT, run.id, f"report of run {run.id}", run.finished_at, REPLICAS_DEFAULT)
        _add(state, run.report, reason)


def _add(state: CoordinatorState, root: Cid, reason: PinReason) -> None:
    """The newest reason of a kind is kept: what was submitted first may be collected last."""
    pin = state.pins.get(root)
    if pin is not None and any(one.kind is reason.kind and one.run > reason.run for one in pin.reasons):
        return
    if pin is None and len(state.pins) >= PINS_MAX:
        _let_go_of_oldest(state)
    others = [one for one in pin.reasons if one.kind is not reason.kind] if pin is not None else []
    reasons = tuple(sorted([*others, reason], key=lambda one: one.kind))
    state.pins[root] = Pin(root, reasons) if pin is None else replace(pin, reasons=reasons)
    state.pin_changes += 1


def _let_go_of_oldest(state: CoordinatorState) -> None:
    """Of what is pinned for finished runs alone: reports last."""
    kept = needed(state)

    def rank(pin: Pin) -> tuple[bool, float, Cid]:
        return (
            any(reason.kind is PinKind.REPORT for reason in pin.reasons),
            max(reason.since for reason in pin.reasons),
            pin.root,
        )

    old = [pin for pin in state.pins.values() if pin.root not in kept and not is_users(pin)]
    assert old, "users and open runs leave room"
    del state.pins[min(old, key=rank).root]


def is_users(pin: Pin) -> bool:
    return any(reason.kind is PinKind.USER for reason in pin.reasons)


def pin_root(state: CoordinatorState, index: int, command: PinRoot) -> Result:
    if state.format < LOG_FORMAT_MIN:
        return Rejected("nodes of an older version are in the mesh, which can't keep pins together")
    if state.yielded:
        return Rejected(f"this mesh gave way to {state.yielded}")
    if not 1 <= command.replicas <= REPLICAS_MAX:
        return Rejected(f"content is kept on 1 to {REPLICAS_MAX} nodes, not {command.replicas}")
    if len(command.reason) > REASON_CHARACTERS_MAX:
        return Rejected(f"a pin's reason has at most {REASON_CHARACTERS_MAX} characters")
    known = state.pins.get(command.root)
    users = sum(map(is_users, state.pins.values()))
    if users >= USER_PINS_MAX and not (known is not None and is_users(known)):
        return Rejected(f"users have pinned {users} roots already, the most that the mesh keeps for them", limit=True)
    reason = PinReason(PinKind.USER, NO_RUN, command.reason, command.at, command.replicas)
    _add(state, command.root, reason)
    return Applied()


def unpin(state: CoordinatorState, index: int, command: Unpin) -> Result:
    kept = needed(state)
    gone = 0
    for one in command.references:
        pin = state.pins.get(one.root)
        if pin is None or (one.kind is not PinKind.USER and one.root in kept):
            continue
        rest = tuple(reason for reason in pin.reasons if (reason.kind, reason.since) != (one.kind, one.since))
        gone += len(pin.reasons) - len(rest)
        if rest:
            state.pins[one.root] = replace(pin, reasons=rest)
        else:
            del state.pins[one.root]
    state.pin_changes += gone
    return Applied() if gone else Rejected("none of these pins is there, or an open run needs them")


def placed(state: CoordinatorState, index: int, command: Placed) -> Result:
    known = [one for one in command.placements if one.root in state.pins]
    for one in known:
        pin = state.pins[one.root]
        holders = tuple(sorted({*pin.holders, *one.held} - set(one.lost)))[:HOLDERS_MAX]
        state.pins[one.root] = replace(pin, holders=holders, size=max(0, one.size) or pin.size)
    state.pin_changes += len(known)
    return Applied() if known else Rejected("none of these roots is pinned")

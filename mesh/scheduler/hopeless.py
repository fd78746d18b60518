"""Work that nobody here can do, and nobody who was here could: such a run is ended with a sentence, not left to hang.

A worker that is only silent, or draining, may come back, so its capabilities still count; one that is only busy, or has
too little free of what it has, may be idle again; while there is no worker at all, a lab may be starting: so runs wait.
"""

from collections.abc import Mapping

from mesh.scheduler import feasibility
from mesh.scheduler.fleet import WorkerView
from mesh.scheduler.waiting import Waiting, short_of
from protocols.errors import MeshFailed, NoCapableWorker
from protocols.ids import PeerId

PROBING = "probing"
"""A capability that a worker has until it has looked what it has: no judgement yet."""

HOPELESS_SECONDS = 10.0
"""How long a run may have been without hope before it is ended; meanwhile another worker may join."""


def hopeless(waiting: Waiting, fleet: Mapping[PeerId, WorkerView]) -> tuple[int, str] | None:
    """The exit code and the sentence of work that can't be done here; None if it may yet be."""
    alive = [view for view in fleet.values() if view.alive]
    if not alive:
        return None
    if all(waiting.run in view.unfit for view in alive):
        return MeshFailed.exit_code, f"none of {len(alive)} workers could prepare the run"
    wanted = waiting.wanted
    if wanted is None:
        return None
    many = wanted.takes.hosts > 1  # a worker that left long ago, of which nothing is known any more, is not counted
    known = [view for view in fleet.values() if view.alive or view.capabilities or not many]
    able = sum(feasibility.may_come(wanted, view) for view in known)
    if able >= wanted.takes.hosts:
        return None
    if any(PROBING in view.capabilities for view in alive):
        return None
    reasons = "; ".join(f"{reason.name or reason.peer} {reason.text}" for reason in waiting.reasons[:5])
    short = short_of(waiting.tests, wanted, able)
    if short:
        return NoCapableWorker.exit_code, f"{short}: {reasons}" if reasons else short
    what = f"{waiting.tests} tests" if waiting.tests else "the run"
    return NoCapableWorker.exit_code, f"no worker can take {what}, which need {waiting.requirement}: {reasons}"

"""Names that tests of the whole mesh share: who holds one, and the values that were computed under one.

A name is claimed by one process of one worker (`holder` tells its processes apart), until it settles: with a value,
which then stays for the run (`mesh_once`), or without (the end of a `mesh_lock`, or a computation that failed).
Invariant: who holds a name has an open lease of the run that it claimed it for; when the last of those closes, for
whatever reason, the claim ends, so that nobody waits for the dead. A late settlement of such a claim changes nothing.
"""

from mesh.state.model import Claimed, CoordinatorState, RunPhase
from mesh.state.results import Applied, Rejected, Result
from protocols.commands import Claim, Settle
from protocols.ids import PeerId, RunId

NAMES_MAX = 1_000
"""Values of one run, and names that are held at once."""


def claim(state: CoordinatorState, index: int, command: Claim) -> Result:
    run = state.runs.get(command.run)
    worker = state.workers.get(command.worker)
    wanted = Claimed(command.run, command.worker, command.holder)
    held = state.claims.get(command.name)
    if run is None or run.phase is not RunPhase.RUNNING:
        return Rejected(f"run {command.run} does not run", command.run)
    if worker is None or worker.incarnation != command.incarnation or not _works(state, command.run, command.worker):
        return Rejected(f"worker {command.worker} holds no test of run {command.run}", command.run)
    if command.name in run.values or (held is not None and held != wanted):
        return Rejected(f"{command.name} is taken", command.run)
    if held is None and full(state, command.run):
        return Rejected(f"{NAMES_MAX} names are in use already", command.run)
    state.claims[command.name] = wanted
    return Applied(run=command.run)


def full(state: CoordinatorState, run: RunId) -> bool:
    """Whether no new name can be claimed for a run."""
    return len(state.claims) >= NAMES_MAX or len(state.runs[run].values) >= NAMES_MAX


def settle(state: CoordinatorState, index: int, command: Settle) -> Result:
    if state.claims.get(command.name) != Claimed(command.run, command.worker, command.holder):
        return Rejected(f"{command.name} is not held by that process", command.run)
    del state.claims[command.name]
    if command.value is not None:
        state.runs[command.run].values[command.name] = command.value
    return Applied(run=command.run)


def release(state: CoordinatorState, run: RunId, worker: PeerId) -> None:
    """A lease of this worker was closed: without another of the run, its claims end."""
    if state.claims and not _works(state, run, worker):
        for name in [name for name, held in state.claims.items() if (held.run, held.worker) == (run, worker)]:
            del state.claims[name]


def _works(state: CoordinatorState, run: RunId, worker: PeerId) -> bool:
    return any(state.leases[lease].run == run for lease in state.workers[worker].leases)

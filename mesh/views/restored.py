"""A run of long ago, as its report tells it: what its details are shown from once the log has forgotten them. Pure."""

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mesh.state.model import NO_LEASE, NO_WORKER, Completion, CoordinatorState, Run, RunPhase, Worker
from mesh.state.verdicts import enter_completion, enter_tries, open_book
from protocols.ids import Cid, LeaseId, PeerId, RunId
from protocols.manifests import Record, RunSpec


@dataclass(frozen=True, slots=True)
class Told:
    """What a chunk's record says of one attempt."""

    test: int
    attempt: int
    outcome: int
    """Its code."""
    micros: int
    reused: bool


@dataclass(frozen=True, slots=True)
class Step:
    """One chunk: `cid` is how its block is found in the report."""

    cid: Cid
    worker: PeerId
    lease: LeaseId
    told: Sequence[Told]


def told(test: int, record: Record) -> Told:
    micros = round(record.duration * 1e6)
    return Told(test, max(record.attempt, 1), record.outcome.code, micros, record.reused is not None)


def restored(run: Mapping[str, Any], steps: Iterable[Step], names: Mapping[PeerId, str]) -> CoordinatorState:
    """A state with that run alone. `run`: its document; of a test the last attempt has the verdict."""
    submitter, bundle = PeerId(run["submitter"]), Cid(run["bundle"])
    made = Run(
        RunId(int(run["run"])),
        b"",
        RunSpec(bundle, run["name"], run["project"], submitter, priority=run["priority"]),
        run["submitted_at"],
        RunPhase.FINISHED,
        Cid(run["manifest"]),
    )
    made.report = Cid(run["report"])
    made.exit_code, made.reason = run["exit_code"], run["reason"]
    made.finished_at = run["submitted_at"] + run["wall_seconds"]
    open_book(made, run["tests"])
    steps = list(steps)
    last: dict[int, tuple[int, int]] = {}
    """By test: the attempt with its verdict, and the step that it is in."""
    for place, step in enumerate(steps):
        for one in step.told:
            if one.test < made.tests and one.attempt >= last.get(one.test, (0, 0))[0]:
                last[one.test] = (one.attempt, place)
    for place, step in enumerate(steps):
        verdicts = [one for one in step.told if last.get(one.test) == (one.attempt, place)]
        tries = [one for one in step.told if one.test in last and last[one.test] != (one.attempt, place)]
        ran = step.worker if step.lease != NO_LEASE else NO_WORKER
        for one in verdicts:
            made.attempts[one.test] = min(one.attempt - 1, 254)
        unique = {one.test: one for one in verdicts}
        for worker, some in _by_worker(ran, unique.values()):
            enter_completion(made, _completion(step, worker, some))
        if tries and ran != NO_WORKER:
            enter_tries(made, _completion(step, ran, tries))
    made.workers = list(dict.fromkeys(step.worker for step in steps if step.lease != NO_LEASE))
    state = CoordinatorState(runs={made.id: made}, finished=[made.id])
    state.workers = {peer: Worker(peer, name, 1, 1, registered=0) for peer, name in sorted(names.items())}
    return state


def _by_worker(ran: PeerId, told: Iterable[Told]) -> Iterable[tuple[PeerId, list[Told]]]:
    """What nobody ran (a reused verdict) apart from the rest."""
    every = list(told)
    for worker, some in ((ran, [one for one in every if not one.reused]), (NO_WORKER, [o for o in every if o.reused])):
        if some:
            yield worker, some


def _completion(step: Step, worker: PeerId, told: Sequence[Told]) -> Completion:
    ordered = sorted(told, key=lambda one: one.test)
    return Completion(
        chunk=step.cid,
        worker=worker,
        lease=step.lease if worker != NO_WORKER else NO_LEASE,
        tests=array("I", [one.test for one in ordered]),
        outcomes=bytes(one.outcome for one in ordered),
        durations=array("q", [max(one.micros, 0) for one in ordered]),
        attempts=bytes(min(one.attempt, 255) for one in ordered),
    )

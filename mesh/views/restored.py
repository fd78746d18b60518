"""A run of long ago, as its report tells it: what its details are shown from once the log has forgotten them. Pure."""

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mesh.state.model import (
    NO_LEASE,
    NO_VERDICT,
    NO_WORKER,
    Completion,
    CoordinatorState,
    Run,
    RunPhase,
    Worker,
)
from mesh.state.verdicts import ATTEMPTS_MAX, enter_completion, enter_tries, open_book
from protocols.ids import Cid, LeaseId, PeerId, RunId
from protocols.manifests import Record, RunSpec


@dataclass(frozen=True, slots=True)
class Told:
    """What a chunk's record says of one attempt."""

    test: int
    started: float
    outcome: int
    """Its code."""
    micros: int
    reused: bool
    verdict: int
    """Which attempt it was, if the report has it as the test's verdict; else 0."""


@dataclass(frozen=True, slots=True)
class Step:
    """One chunk: `cid` is how its block is found in the report."""

    cid: Cid
    worker: PeerId
    lease: LeaseId
    told: Sequence[Told]


def told(test: int, record: Record, verdict: int) -> Told:
    micros = round(record.duration * 1e6)
    return Told(test, record.started, record.outcome.code, micros, record.reused is not None, verdict)


def restored(run: Mapping[str, Any], steps: Iterable[Step], names: Mapping[PeerId, str]) -> CoordinatorState:
    """A state with that run alone. `run`: its document."""
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
    tries: dict[int, list[tuple[float, Step, Told]]] = {}
    for step in steps:
        ran = step.worker if step.lease != NO_LEASE else NO_WORKER
        verdicts = {one.test: one for one in step.told if one.verdict and _is_new(made, one)}
        for one in verdicts.values():
            made.attempts[one.test] = min(one.verdict - 1, ATTEMPTS_MAX)
        for worker, some in _by_worker(ran, verdicts.values()):
            enter_completion(made, _completion(step, worker, [(one, one.verdict) for one in some]))
        for one in step.told:
            if not one.verdict and one.test < made.tests and ran != NO_WORKER:
                tries.setdefault(one.test, []).append((one.started, step, one))
    for test, found in sorted(tries.items()):
        found.sort(key=lambda each: each[0])
        for place, (_, step, one) in enumerate(found):
            number = max(1, made.attempts[test] + 1 - len(found) + place)
            enter_tries(made, _completion(step, step.worker, [(one, number)]))
    made.workers = list(dict.fromkeys(done.worker for done in (*made.chunks, *made.tries) if done.worker != NO_WORKER))
    state = CoordinatorState(runs={made.id: made}, finished=[made.id])
    state.workers = {peer: Worker(peer, name, 1, 1, registered=0) for peer, name in sorted(names.items())}
    return state


def _is_new(run: Run, one: Told) -> bool:
    return one.test < run.tests and run.outcomes[one.test] == NO_VERDICT


def _by_worker(ran: PeerId, told: Iterable[Told]) -> Iterable[tuple[PeerId, list[Told]]]:
    """What nobody ran (a reused verdict) apart from the rest."""
    every = list(told)
    for worker, some in ((ran, [one for one in every if not one.reused]), (NO_WORKER, [o for o in every if o.reused])):
        if some:
            yield worker, some


def _completion(step: Step, worker: PeerId, told: Iterable[tuple[Told, int]]) -> Completion:
    """`told`: each with its number among the test's attempts."""
    ordered = sorted(told, key=lambda each: each[0].test)
    return Completion(
        chunk=step.cid,
        worker=worker,
        lease=step.lease if worker != NO_WORKER else NO_LEASE,
        tests=array("I", [one.test for one, _ in ordered]),
        outcomes=bytes(one.outcome for one, _ in ordered),
        durations=array("q", [max(one.micros, 0) for one, _ in ordered]),
        attempts=bytes(min(number, 255) for _, number in ordered),
    )

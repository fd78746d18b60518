"""The JSON documents of runs, from the replicated state: interface.md's fields, for people and scripts. Pure."""

import dataclasses
import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from mesh.scheduler.queue import BAND_POINTS, Standing
from mesh.scheduler.waiting import Waiting
from mesh.state.model import Run, RunPhase, RunSummary
from mesh.state.report import counts
from mesh.views.human import plural
from protocols.ids import PeerId
from protocols.manifests import Manifest, Outcome, Record, RunSpec
from protocols.presence import NodeState, Presence

OVERVIEW_VERDICTS_MAX = 20_000
"""Verdicts of the newest runs in one picture."""

REASONS_MAX = 100
"""Workers of one kind of waiting tests in a document, which has to fit a message."""
REASON_LINES_MAX = 12
"""And of these in its explanation."""


def record_document(record: Record) -> dict[str, Any]:
    document = dataclasses.asdict(record)
    del document["reports"]  # pytest's, told with a run's events to those who ask
    return document


def run_document(
    run: Run | RunSummary, now: float, standing: Standing | None = None, eta: float | None = None
) -> dict[str, Any]:
    """One run: where it stands, what it is, what came of it. `standing`: in the queue, if it waits there; `eta`: in how
    many seconds it will have ended, about."""
    if isinstance(run, Run):
        spec = run.spec
        what = (spec.name, spec.project, spec.submitter, spec.priority, spec.bundle)
        where = (run.pending_tests, run.leased, run.done)
    else:
        what = (run.name, run.project, run.submitter, run.priority, run.bundle)
        where = (0, 0, sum(run.counts))
    until = run.finished_at if run.finished_at is not None else now
    return {
        "run": str(run.id),
        "state": run.state,
        **dict(zip(("name", "project", "submitter", "priority", "bundle"), what, strict=True)),
        **dict(zip(("pending", "leased", "done"), where, strict=True)),
        "tests": run.tests,
        "counts": counts(run),
        "submitted_at": run.submitted_at,
        "wall_seconds": round(until - run.submitted_at, 3),
        "busy_seconds": round(run.microseconds / 1e6, 6),
        "exit_code": run.exit_code,
        "report": run.report,
        "manifest": run.manifest,
        "reason": reason_of(run),
        "queue": queue_document(standing) if standing else None,
        "eta_seconds": eta,
    }


def run_details(run: Run | RunSummary, names: Mapping[PeerId, str]) -> dict[str, Any]:
    """What the document of one run has beside that of many: how it was asked for, and what each host did of it. None:
    that is no longer known."""
    if not isinstance(run, Run):
        return {"spec": None, "hosts": None}
    bad = [outcome.code for outcome in Outcome if outcome.bad]
    hosts: dict[PeerId, dict[str, Any]] = {
        peer: {"peer": peer, "name": names.get(peer, ""), "tests": 0, "bad": 0, "retried": 0, "seconds": 0.0}
        for peer in run.workers
    }
    for step in run.chunks:
        if step.worker in hosts:
            host = hosts[step.worker]
            host["tests"] += len(step.tests)
            host["bad"] += sum(map(step.outcomes.count, bad))
            host["seconds"] += sum(step.durations) / 1e6
    for step in run.tries:
        if step.worker in hosts:
            hosts[step.worker]["retried"] += len(step.tests)
            hosts[step.worker]["seconds"] += sum(step.durations) / 1e6
    told = [{**host, "seconds": round(host["seconds"], 6)} for host in hosts.values()]
    return {"spec": spec_document(run.spec), "hosts": told}


def queue_document(standing: Standing) -> dict[str, Any]:
    """A run's place in the queue, from 1, and what it has of the slots and is entitled to (a part of its band's)."""
    return {
        "place": standing.place,
        "of": standing.of,
        "slots": round(standing.held, 1),
        "part": round(standing.part, 4),
        "urgent": standing.urgent,
    }


def spec_document(spec: RunSpec) -> dict[str, Any]:
    """What was asked for, as `POST /api/runs` takes it: the same again is a run of the same."""
    asked: dict[str, Any] = {}
    for field in dataclasses.fields(spec):
        value = getattr(spec, field.name)
        if field.name == "variables":
            asked[field.name] = dict(value)
        elif field.name != "submitter" and value != field.default:
            asked[field.name] = list(value) if isinstance(value, tuple) else value
    return asked


def reason_of(run: Run | RunSummary) -> str:
    """Why it ended as it did, where the counts do not say it."""
    if isinstance(run, Run) and not run.reason:
        return run.cancelled or (run.failure.reason if run.failure else "")
    return run.reason


def node_document(presence: Presence, state: NodeState, coordinates: bool) -> dict[str, Any]:
    """One node: interface.md's fields, its place in the group, and its load."""
    return {
        "peer": presence.peer,
        "name": presence.name,
        "role": presence.role.value,
        "state": state.value,
        "coordinator": coordinates,
        "raft": presence.raft,
        "addresses": list(presence.addresses),
        "slots": presence.slots,
        "busy": presence.busy,
        "capabilities": presence.capabilities,
        "load": presence.load,
    }


def overview_document(
    status: Mapping[str, Any], verdicts: Sequence[Mapping[str, Any]], generated: float
) -> dict[str, Any]:
    """What the sheet of pictures is drawn from. `status`: mesh, coordinator, term, nodes and runs; `generated`: seconds
    since the epoch; `verdicts`: run, test, outcome, duration and worker of each."""
    tests = Counter(verdict["worker"] for verdict in verdicts)
    return {
        "generated": generated,
        **{field: status[field] for field in ("mesh", "coordinator", "term", "runs")},
        "nodes": [{**node, "tests": tests[node["peer"]]} for node in status["nodes"]],
        "verdicts": verdicts,
    }


def verdict_rows(run: Run, manifest: Manifest, limit: int) -> list[dict[str, Any]]:
    """The first `limit` verdicts of a run, in the order in which they were recorded."""
    rows = (
        {
            "run": str(run.id),
            "test": manifest.tests[test].id,
            "outcome": Outcome.of_code(code).value,
            "duration": duration / 1e6,
            "worker": done.worker,
        }
        for done in run.chunks
        for test, code, duration in zip(done.tests, done.outcomes, done.durations, strict=True)
    )
    return list(itertools.islice(rows, limit))


def waiting_document(waiting: Waiting) -> dict[str, Any]:
    """Work that nobody can take now, why not, worker by worker, and what would help."""
    return {
        "requirement": waiting.requirement,
        "tests": waiting.tests,
        "workers": [
            {"peer": reason.peer, "name": reason.name, "reason": reason.text}
            for reason in waiting.reasons[:REASONS_MAX]
        ],
        "more_workers": max(0, len(waiting.reasons) - REASONS_MAX),
        "helps": [dataclasses.asdict(help) for help in waiting.helps],
        "shortage": waiting.shortage,
    }


def why_run(
    run: Run | RunSummary,
    waiting: Sequence[Waiting],
    unfit: Mapping[PeerId, str],
    now: float,
    standing: Standing | None = None,
) -> dict[str, Any]:
    """Why a run waits, or how it ended."""
    document = run_document(run, now, standing)
    lines = [f"run {run.id} is {run.state}: {document['done']} of {document['tests']} tests have their verdict"]
    if isinstance(run, Run) and run.phase in (RunPhase.COLLECTING, RunPhase.RUNNING):
        lines += _why_open(run, waiting, unfit, standing)
    if document["reason"]:
        lines.append(document["reason"])
    bad = document["counts"]["failed"] + document["counts"]["error"]
    if bad:
        lines.append(f"{bad} tests did not pass: `mesh results {run.id} -o DIR` has their records")
    return {
        "target": str(run.id),
        "run": str(run.id),
        "state": run.state,
        "explanation": lines,
        "waiting": [waiting_document(one) for one in waiting],
    }


def _why_open(
    run: Run, waiting: Sequence[Waiting], unfit: Mapping[PeerId, str], standing: Standing | None
) -> list[str]:
    lines = []
    if run.leased:
        lines.append(f"{run.leased} tests are with workers now, {run.pending_tests} wait for a free slot")
    if standing is not None and standing.of > 1:
        lines.append(_why_queued(run, standing))
    if run.preempted:
        lines.append(f"{len(run.preempted)} tests were taken back from workers for a run of higher priority")
    for one in waiting:
        lines += _why_waiting(one)
    lines += [f"  {peer} can't work on it: {reason}" for peer, reason in unfit.items()]
    return lines


def _why_waiting(waiting: Waiting) -> list[str]:
    what = f"{plural(waiting.tests, 'test')} wait{'s' * (waiting.tests == 1)}" if waiting.tests else "the run waits"
    need = f" with {waiting.requirement}" if waiting.requirement else ""
    if not waiting.tests:
        what += " to be collected"
    if waiting.is_busy:
        lines = [f"{what} for a free slot of a worker{need}"]
    elif waiting.shortage:
        lines = [f"{what}: {waiting.shortage}"]
    elif waiting.wanted is not None:
        lines = [f"{what} for a worker{need}"]
    else:
        lines = [f"{what} for what others hold ({waiting.requirement})" if need else f"{what} for others"]
    lines += [f"  {reason.name or reason.peer}: {reason.text}" for reason in waiting.reasons[:REASON_LINES_MAX]]
    if len(waiting.reasons) > REASON_LINES_MAX:
        lines.append(f"  and {len(waiting.reasons) - REASON_LINES_MAX} more workers")
    if not waiting.reasons:
        lines.append("  no worker has joined the mesh")
    if waiting.helps:
        lines.append("what would help:")
        lines += [f"  {help.text}" for help in waiting.helps]
    return lines


def _why_queued(run: Run, standing: Standing) -> str:
    """Where it is in the queue, what is its by right, and why."""
    low = standing.band * BAND_POINTS
    band = f"priorities {low} to {low + BAND_POINTS - 1 if low < 90 else 100}"
    if standing.band > standing.own:
        band = f"{band}, into which it has risen by waiting"
    text = (
        f"it is number {standing.place} of {standing.of} in the queue: of what is free for {band}, "
        f"{standing.part:.0%} is its by right, and it has {standing.held:.0f} slots"
    )
    return f"{text}; it is urgent, for its deadline of {run.spec.deadline:g} s" if standing.urgent else text


def why_test(
    run: Run, test: str, index: int, waiting: Sequence[Waiting], holder: str, standing: Standing | None = None
) -> dict[str, Any]:
    """Why a test waits, where it runs, or how it ended. `holder`: the worker that has it now, or ""."""
    code = run.outcomes[index]
    lines: list[str] = []
    if code < len(Outcome):
        state = Outcome.of_code(code).value
        lines.append(f"{test} of run {run.id} {_ENDED[state]} after {run.durations[index] / 1e6:.3f} s")
        lines.append(f"it took {run.attempts[index] + 1} attempt(s)")
    elif holder:
        state = "leased"
        lines.append(f"{test} of run {run.id} is with worker {holder}")
    else:
        state = "pending"
        lines.append(f"{test} of run {run.id} waits")
        lines += _why_open(run, waiting, {}, standing)
    return {
        "target": test,
        "run": str(run.id),
        "test": test,
        "state": state,
        "explanation": lines,
        "waiting": [waiting_document(one) for one in waiting],
    }


_ENDED = {
    "passed": "passed",
    "failed": "failed",
    "error": "ended in an error",
    "skipped": "was skipped",
    "xfailed": "failed as expected",
    "xpassed": "passed although a failure was expected",
}

"""A run as a trace: what log and records tell, once it has ended, as spans. Pure; `mesh/monitoring/` exports them.

The IDs follow from the mesh, the run and the place in it, so that a trace that is told twice is the same trace. A run
that was submitted under a W3C trace context (`RunSpec.trace`) is a part of that trace, else one of its own. Names and
attributes are those of OpenTelemetry's semantic conventions for tests and code; what has none is under `mesh.`.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mesh.state.model import NO_VERDICT, Run
from mesh.views import human
from protocols.ids import LeaseId, PeerId, TestIndex
from protocols.manifests import Outcome, Record
from protocols.traceparent import parse_traceparent

TESTS_TOLD_MAX = 1_000
"""Tests of a run that get a span of their own, beside those that went wrong."""
BAD_TOLD_MAX = 5_000
TEXT_CHARACTERS_MAX = 8_192
"""Of a traceback: its end."""

Value = str | int | float | bool


@dataclass(frozen=True, slots=True)
class Span:
    """Times in seconds since the epoch. `key` tells it from the run's others; `parent` is another's key, or empty."""

    key: str
    parent: str
    name: str
    start: float
    end: float
    attributes: Mapping[str, Value]
    bad: bool = False
    message: str = ""
    traceback: str = ""


@dataclass(frozen=True, slots=True)
class Ran:
    """One attempt at a test, and the lease that it was made under."""

    test: TestIndex
    lease: LeaseId
    record: Record


@dataclass(frozen=True, slots=True)
class Moments:
    """When what happened that no record tells; where that is not known any more, it is left out."""

    collecting: float | None = None
    collected: float | None = None
    leased: Mapping[LeaseId, float] = field(default_factory=dict)


def trace_id(mesh: str, run: Run) -> int:
    parent = parse_traceparent(run.spec.trace)
    return parent.trace if parent is not None else _digest(f"{mesh}/{run.id}", 16)


def span_id(mesh: str, run: Run, key: str) -> int:
    """Of the span with that key; of the submitter's for the empty one, 0 without one."""
    parent = parse_traceparent(run.spec.trace)
    if not key:
        return parent.span if parent is not None else 0
    return _digest(f"{mesh}/{run.id}/{key}", 8)


def _digest(text: str, size: int) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:size], "big") or 1


def chosen(run: Run) -> frozenset[TestIndex]:
    """The tests that get a span: those that went wrong, and the first ones."""
    bad = [index for index, code in enumerate(run.outcomes) if code != NO_VERDICT and Outcome.of_code(code).bad]
    first = [index for index in range(min(run.tests, TESTS_TOLD_MAX)) if run.outcomes[index] != NO_VERDICT]
    return frozenset(TestIndex(index) for index in (*bad[:BAD_TOLD_MAX], *first))


def run_spans(run: Run, ran: Sequence[Ran], moments: Moments, names: Mapping[PeerId, str]) -> list[Span]:
    """Of a finished run, parents first. `ran`: attempts whose records were read; `names`: of workers."""
    assert run.finished_at is not None, "a trace is of a run that has ended"
    wanted = chosen(run)
    ends = [one.record.started + one.record.duration for one in ran]
    told = [one for one in ran if one.test in wanted]
    spans = [_root(run, run.finished_at, len(told))]
    began = min([one.record.started for one in ran], default=None)
    collecting = moments.collecting if moments.collecting is not None else moments.collected or began
    if collecting is not None:
        spans.append(Span("queue", "run", "queue", run.submitted_at, max(run.submitted_at, collecting), {}))
    if moments.collecting is not None and moments.collected is not None:
        tests = {"mesh.tests": run.tests}
        spans.append(Span("collection", "run", "collection", moments.collecting, moments.collected, tests))
    spans += _leases(ran, moments, names)
    spans += [_test(one, names) for one in told]
    if ends:
        spans.append(Span("report", "run", "report", min(max(ends), run.finished_at), run.finished_at, {}))
    return spans


_STATUS = {"passed": "success", "failed": "failure", "error": "failure", "cancelled": "aborted"}


def _root(run: Run, finished_at: float, told: int) -> Span:
    counts = {f"mesh.tests.{one.value}": run.counts[one.code] for one in Outcome if run.counts[one.code]}
    attributes: dict[str, Value] = {
        "test.suite.name": run.spec.name,
        "test.suite.run.status": _STATUS.get(run.state, "aborted"),
        "mesh.run": str(run.id),
        "mesh.project": run.spec.project,
        "mesh.submitter": run.spec.submitter,
        "mesh.priority": run.spec.priority,
        "mesh.exit_code": run.exit_code or 0,
        "mesh.tests": run.tests,
        "mesh.tests.told": told,
        **counts,
    }
    if run.report is not None:
        attributes["mesh.report"] = run.report
    name, bad = f"run {run.spec.name}", run.state in ("failed", "error")
    return Span("run", "", name, run.submitted_at, finished_at, attributes, bad, human.short(run.reason, 300))


def _leases(ran: Sequence[Ran], moments: Moments, names: Mapping[PeerId, str]) -> list[Span]:
    found: dict[LeaseId, list[Record]] = {}
    for one in ran:
        if one.lease:
            found.setdefault(one.lease, []).append(one.record)
    spans = []
    for lease, records in sorted(found.items()):
        first = min(record.started for record in records)
        end = max(record.started + record.duration for record in records)
        worker = records[0].worker
        attributes: dict[str, Value] = {"mesh.lease": lease, "mesh.tests": len(records), **_worker(worker, names)}
        name = f"lease on {names.get(worker) or human.peer(worker)}"
        start = min(moments.leased.get(lease, first), first)
        spans.append(Span(f"lease {lease}", "run", name, start, end, attributes))
    return spans


def _test(one: Ran, names: Mapping[PeerId, str]) -> Span:
    record = one.record
    path, _, case = record.test.partition("::")
    attributes: dict[str, Value] = {
        "test.suite.name": path,
        "test.case.name": case or path,
        "mesh.outcome": record.outcome.value,
        "mesh.attempt": record.attempt,
        "mesh.slot": record.slot,
        **_worker(record.worker, names),
    }
    if record.outcome is Outcome.PASSED or record.outcome.bad:
        attributes["test.case.result.status"] = "fail" if record.outcome.bad else "pass"
    if case:
        attributes["code.file.path"] = path
        attributes["code.function.name"] = case.partition("[")[0].rpartition("::")[2]
    if record.artifacts is not None:
        attributes["mesh.artifacts"] = record.artifacts
    if record.reused is not None:
        attributes["mesh.reused"] = record.reused
    parent = f"lease {one.lease}" if one.lease else "run"
    end = record.started + record.duration
    text = record.longrepr[-TEXT_CHARACTERS_MAX:] if record.outcome.bad else ""
    message = human.short(record.message, 300) if record.outcome.bad else ""
    key = f"test {one.test} {record.attempt} {one.lease}"
    return Span(key, parent, record.test, record.started, end, attributes, record.outcome.bad, message, text)


def _worker(worker: PeerId, names: Mapping[PeerId, str]) -> dict[str, Value]:
    return {"mesh.worker": worker, "mesh.worker.name": names.get(worker, "")} if worker else {}

"""What a run comes to: its counts, its exit code, and the documents of its report (interface.md).

Pure and piecemeal: long documents come as iterators of pieces, so that the caller can let others run in between.
"""

import dataclasses
import json
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from mesh.state.model import NO_VERDICT, Run, RunSummary, final_state
from mesh.state.truth import Told, Try, host_name
from protocols.ids import Cid, PeerId, TestIndex
from protocols.manifests import EnvironmentInfo, Manifest, Outcome, Record

TESTS_PER_PIECE = 1_000

EXIT_PASSED = 0
EXIT_FAILED = 1


def counts(run: Run | RunSummary) -> dict[str, int]:
    """Verdicts by outcome, in interface.md's order and names."""
    return {name: run.counts[code] for name, code in _NAMES}


_OUTCOMES = (Outcome.PASSED, Outcome.FAILED, Outcome.ERROR, Outcome.SKIPPED, Outcome.XFAILED, Outcome.XPASSED)
_NAMES = tuple((outcome.value, outcome.code) for outcome in _OUTCOMES)


Endings = Mapping[PeerId, Sequence[str]]
"""Worker -> what fixtures of its sessions raised when all verdicts were out."""
NO_ENDINGS: Endings = MappingProxyType({})


def exit_code(run: Run, endings: Endings = NO_ENDINGS) -> int:
    """The exit code that the run's verdicts, or its failure to have any, amount to; and how its processes ended."""
    if run.cancelled is not None:
        return run.cancel_code
    if run.failure is not None:
        return run.failure.exit_code
    bad = sum(run.counts[outcome.code] for outcome in _OUTCOMES if outcome.bad)
    return EXIT_FAILED if bad or any(endings.values()) else EXIT_PASSED


def reason(run: Run, endings: Endings, names: Mapping[PeerId, str]) -> str:
    """Why the run ended as it did, where its verdicts do not say so."""
    if run.cancelled or run.failure:
        return run.cancelled or (run.failure.reason if run.failure else "")
    count = sum(len(errors) for errors in endings.values())
    where = ", ".join(names.get(peer, peer) for peer, errors in endings.items() if errors)
    plural = "s" if count > 1 else ""
    return f"{count} error{plural} in fixtures torn down after the last test, on {where}" if count else ""


def finished_event(run: Run | RunSummary) -> dict[str, Any]:
    """The `finished` event of a finished run."""
    assert run.exit_code is not None, "only a finished run has this event"
    assert run.finished_at is not None, "a finished run has its time"
    return {
        "event": "finished",
        "run": str(run.id),
        "state": run.state,
        "exit_code": run.exit_code,
        "counts": counts(run),
        "reused": run.reused,
        "tests": run.tests,
        "wall_seconds": round(max(0.0, run.finished_at - run.submitted_at), 3),
        "report": run.report,
        "bundle": run.spec.bundle if isinstance(run, Run) else run.bundle,
        "manifest": run.manifest,
        "reason": run.reason,
    }


def report_json(
    run: Run,
    manifest: Manifest | None,
    record: Callable[[TestIndex], Cid | None],
    finished_at: float,
    tried: Mapping[int, Told] = MappingProxyType({}),
    names: Mapping[PeerId, str] = MappingProxyType({}),
    endings: Endings = NO_ENDINGS,
    sources: Mapping[int, tuple[Cid, PeerId]] = MappingProxyType({}),
) -> Iterator[bytes]:
    """`report.json` in pieces. `record`: the CID of a test's. Tests without a verdict (of a
    cancelled run) have no entry; the others are sorted by their IDs; those that were `tried` more than once tell it.
    `finished_at`: what `Finish` will say. `names`: of workers. `sources`: of reused verdicts, the record and the worker
    that they came from."""
    code = exit_code(run, endings)
    head = {
        "run": str(run.id),
        "name": run.spec.name,
        "project": run.spec.project,
        "command": run.spec.command,
        "submitted_at": run.submitted_at,
        "state": final_state(code, run.cancelled is not None),
        "exit_code": code,
        "reason": reason(run, endings, names),
        "counts": counts(run),
        "teardowns": sum(map(len, endings.values())),
        "wall_seconds": round(max(0.0, finished_at - run.submitted_at), 3),
        "bundle": run.spec.bundle,
        "manifest": run.manifest,
        "workers": list(run.workers),
        "names": {peer: names[peer] for peer in run.workers if peer in names},
        "environment": environment_document(manifest.environment if manifest else None),
    }
    yield _json(head)[:-1] + b',\n"tests": ['
    workers, attempts = who_ran(run)
    tests = manifest.tests if manifest else ()
    done = (index for index in range(len(tests)) if run.outcomes[index] != NO_VERDICT)
    order = sorted(done, key=lambda index: tests[index].id)
    for start in range(0, len(order), TESTS_PER_PIECE):
        entries = [
            _json(
                {
                    "test": tests[index].id,
                    "outcome": Outcome.of_code(run.outcomes[index]).value,
                    "duration": run.durations[index] / 1e6,
                    "worker": sources[index][1] if index in sources else workers[index],
                    "attempt": attempts[index],
                    "record": record(TestIndex(index)),
                    "flaky": index in tried and tried[index].flaky,
                    **(tried[index].document(names) if index in tried else {}),
                    **({"reused": True, "source": sources[index][0]} if index in sources else {}),
                }
            )
            for index in order[start : start + TESTS_PER_PIECE]
        ]
        yield (b",\n" if start else b"\n") + b",\n".join(entries)
    yield b"\n]}\n"


def teardowns(endings: Endings, names: Mapping[PeerId, str]) -> list[dict[str, str]]:
    """`teardowns.json`: each error with the worker that had it."""
    return [
        {"worker": peer, "name": names.get(peer, ""), "error": error}
        for peer, errors in endings.items()
        for error in errors
    ]


def environment_document(environment: EnvironmentInfo | None) -> dict[str, Any] | None:
    """What the suite was collected in; None where that is not known."""
    return None if environment is None else dataclasses.asdict(environment)


def who_ran(run: Run) -> tuple[list[PeerId | None], "array[int]"]:
    """For each test the worker of its verdict (None: abandoned, or no verdict), and which attempt that was."""
    workers: list[PeerId | None] = [None] * run.tests
    attempts = array("B", bytes(run.tests))
    for done in run.chunks:
        for test, attempt in zip(done.tests, done.attempts, strict=True):
            workers[test] = done.worker or None
            attempts[test] = attempt
    return workers, attempts


def properties(record: Record, last: Try, told: Told | None, names: Mapping[PeerId, str]) -> Iterator[tuple[str, str]]:
    """What junit.xml says of a test beside its record's own properties: who had it, at which try, what it left."""
    worker = record.worker if record.reused is not None else last.worker
    if worker:
        yield "mesh.host", host_name(worker, names)
    if last.number:
        yield "mesh.attempt", str(last.number)
    if told is not None:
        yield from told.properties(names)
    if record.artifacts is not None:
        yield "mesh.artifacts", record.artifacts
    if record.reused is not None:
        yield "mesh.reused", record.reused


def record_line(index: TestIndex, record: Record, cid: Cid) -> bytes:
    """One record as a line of JSON."""
    return (
        _json(
            {
                "index": index,
                "test": record.test,
                "outcome": record.outcome.value,
                "duration": record.duration,
                "started": record.started,
                "worker": record.worker,
                "slot": record.slot,
                "attempt": record.attempt,
                "phases": [{"name": p.name, "outcome": p.outcome, "duration": p.duration} for p in record.phases],
                "message": record.message,
                "longrepr": record.longrepr,
                "stdout": record.stdout,
                "stderr": record.stderr,
                "log": record.log,
                "dropped": record.dropped,
                "signal": record.signal,
                "properties": dict(record.properties),
                "artifacts": record.artifacts,
                "warnings": list(record.warnings),
                "reruns": record.reruns,
                "flaky": record.flaky,
                "subtests": [{"name": p.name, "outcome": p.outcome, "duration": p.duration} for p in record.subtests],
                "record": cid,
                **({"reused": record.reused} if record.reused is not None else {}),
            }
        )
        + b"\n"
    )


def _json(document: dict[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False).encode("utf-8", "backslashreplace")

"""From a report's documents back to what `mesh.state.junit` writes."""

from collections.abc import Mapping, Sequence
from typing import Any

from mesh.reporters.model import Report
from mesh.state import junit
from protocols.ids import PeerId
from protocols.manifests import Outcome, Phase, Record


def record_of(told: Mapping[str, Any]) -> Record:
    """A line of `records/`, or of `tries.jsonl`."""
    return Record(
        test=told["test"],
        outcome=Outcome(told["outcome"]),
        duration=told["duration"],
        started=told["started"],
        worker=PeerId(told["worker"] or ""),
        slot=told["slot"],
        attempt=told["attempt"],
        phases=tuple(Phase(phase["name"], phase["outcome"], phase["duration"]) for phase in told["phases"]),
        message=told["message"],
        longrepr=told["longrepr"],
        stdout=told["stdout"],
        stderr=told["stderr"],
        log=told["log"],
        signal=told["signal"],
        properties=tuple(told["properties"].items()),
        reruns=told.get("reruns", 0),
    )


def head(report: Report) -> bytes:
    """The beginning of a document with one suite."""
    document = report.document
    counts = [report.counts.get(outcome.value, 0) for outcome in Outcome]
    return junit.head(
        counts, document["wall_seconds"], document.get("submitted_at", 0.0), "mesh", document.get("teardowns", 0)
    )


def opening(report: Report, name: str, counts: Sequence[int], seconds: float) -> bytes:
    """The beginning of one of several suites; `counts` by `Outcome.code`."""
    return junit.suite(name, counts, seconds, report.document.get("submitted_at", 0.0), "mesh")

"""What `mesh plan` shows: a rehearsal as a JSON document, and that as lines. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from mesh.scheduler.rehearsal import Outcome
from mesh.state.model import Run
from mesh.views.documents import REASON_LINES_MAX, waiting_document
from mesh.views.human import duration, number, plural, table
from protocols.manifests import RunSpec

NODES_SHOWN_MAX = 40
"""Of those that would do something; the JSON has all."""
WAITING_MAX = 32
"""Kinds of waiting tests, of all runs: a document has to fit a message."""


def run_document(
    *,
    spec: RunSpec,
    source: str,
    tests: int,
    seconds: float,
    known: bool,
    before: Run | None,
    error: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """One run that was asked for: its tests, where they are known from, and how well their durations are (`error`)."""
    last = None
    if before is not None and before.finished_at is not None:
        wall = round(before.finished_at - before.submitted_at, 3)
        last = {"run": str(before.id), "tests": before.tests, "wall_seconds": wall}
    return {
        "project": spec.project,
        "python": spec.python,
        "tests": tests,
        "source": source,
        "durations": "history" if known else "guessed",
        "expected_seconds": round(seconds, 3),
        "last_run": last,
        "prediction_error": error,
    }


def plan_document(outcome: Outcome, runs: Sequence[Mapping[str, Any]], others: int) -> dict[str, Any]:
    """Where they would go, and how long it would take; times in seconds from now."""
    return {
        "runs": list(runs),
        "tests": outcome.tests,
        "placed": outcome.done,
        "makespan_seconds": round(outcome.makespan, 3),
        "lower_bound_seconds": round(outcome.bound, 3),
        "cut": outcome.is_cut,
        "other_runs": others,
        "nodes": [
            {
                "peer": share.peer,
                "name": share.name,
                "slots": share.slots,
                "tests": share.tests,
                "busy_seconds": round(share.seconds, 3),
                "first_seconds": round(share.first, 3),
                "last_seconds": round(share.last, 3),
            }
            for share in outcome.shares
        ],
        "waiting": [{**waiting_document(one), "capable": one.wanted is None} for one in outcome.waiting[:WAITING_MAX]],
    }


def plan_lines(document: Mapping[str, Any]) -> list[str]:
    """The same for a terminal."""
    lines = [line for run in document["runs"] for line in _run_lines(run)]
    working = sorted((node for node in document["nodes"] if node["tests"]), key=lambda node: -node["busy_seconds"])
    rows = [
        [
            node["name"],
            str(node["slots"]),
            number(node["tests"]),
            duration(node["busy_seconds"]),
            duration(node["first_seconds"]),
            duration(node["last_seconds"]),
        ]
        for node in working[:NODES_SHOWN_MAX]
    ]
    if rows:
        lines.append(table(("node", "slots", "tests", "busy", "from", "to"), rows, right=(1, 2, 3, 4, 5)))
    if len(working) > NODES_SHOWN_MAX:
        lines.append(f"and {len(working) - NODES_SHOWN_MAX} more (--json has all)")
    idle = len(document["nodes"]) - len(working)
    if idle and document["tests"]:
        lines.append(f"{plural(idle, 'node')} would get nothing of it")
    if document["placed"]:
        lines.append(_time_line(document))
    if document["other_runs"]:
        lines.append(f"{plural(document['other_runs'], 'run')} of others or before it are reckoned with")
    for one in document["waiting"]:
        lines += _waiting_lines(one)
    return lines


def _time_line(document: Mapping[str, Any]) -> str:
    bound = duration(document["lower_bound_seconds"])
    about = "at least about " if document["cut"] else "about "
    what = (
        "the tests"
        if document["placed"] == document["tests"]
        else f"the {number(document['placed'])} that find a place"
    )
    text = f"{about}{duration(document['makespan_seconds'])} for {what}; no schedule on these nodes is under {bound}"
    return f"{text}; collection, a first fetch of the files and the report come on top"


def _run_lines(run: Mapping[str, Any]) -> list[str]:
    what = run["project"] + (f" with Python {run['python']}" if run["python"] else "")
    last = run["last_run"]
    if run["source"] == "unknown":
        return [f"{what}: its tests are unknown, so nothing can be said but who could collect it"]
    where = {"run": f"as in run {last['run']}" if last else "", "collected": "collected here", "files": "by its files"}
    known = "by earlier runs" if run["durations"] == "history" else "guessed, as nothing is known of them"
    tests = f"{plural(run['tests'], 'test')} {where[run['source']]}"
    lines = [f"{what}: {tests}, {duration(run['expected_seconds'])} of work, {known}"]
    if last:
        lines.append(f"  its last run, {last['run']}, took {duration(last['wall_seconds'])}")
    error = run["prediction_error"]
    if error:
        line = f"  half of run {error['run']}'s tests took within {error['median_relative']:.0%} of what was expected"
        if "pace" in error:  # a coordinator of the version before does not tell it
            line += f" ({error['median_relative_at_pace']:.0%} at its own pace, {error['pace']:.2f} of the expected)"
            line += f", and {error['under_upper_estimate']:.0%} at most the upper estimate"
        lines.append(line)
    return lines


def _waiting_lines(waiting: Mapping[str, Any]) -> list[str]:
    what = plural(waiting["tests"], "test") if waiting["tests"] else "the run"
    need = f" with {waiting['requirement']}" if waiting["requirement"] else ""
    lines = [waiting.get("shortage") or f"{what} would wait for a worker{need}"]
    shown = waiting["workers"][:REASON_LINES_MAX]
    lines += [f"  {one['name'] or one['peer']}: {one['reason']}" for one in shown]
    more = len(waiting["workers"]) - len(shown) + waiting["more_workers"]
    lines += [f"  and {more} more workers"] if more else []
    return lines + (["what would help:"] if waiting["helps"] else []) + [f"  {one['text']}" for one in waiting["helps"]]

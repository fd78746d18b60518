"""The end of a run on the screen, in the manner of pytest: failures with their output, a short summary, one last line.

What failed is told by the records, which the report names; so a summary is as good on any node as on the submitter's.
"""

import json
import shutil
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from mesh.cli.client import Client
from mesh.cli.output import note, painted
from mesh.cli.progress import painted_failure
from mesh.cli.tally import OUTCOMES, Tally
from mesh.views import human
from protocols.errors import MeshError, UsageError

FAILURES_SHOWN_MAX = 100
"""In full; more are in the report."""

COLUMNS_MAX = 120

EXIT_COLLECTION = 2
"""pytest's, for errors while collecting (and ours, for a run that was cancelled)."""

_WORDS = {"error": "errors"}
_UNSURE = {"flaky": "flaky", "host": "flaky by host"}
"""Of tests that are among the passed ones."""


def print_summary(client: Client, tally: Tally) -> None:
    """Everything after the last verdict. Needs `tally.finished`."""
    finished = tally.finished
    assert finished is not None
    records = _records(client, finished, tally) if tally.bad else {}
    shown = [event for event in tally.bad if event["test"] in records][:FAILURES_SHOWN_MAX]
    if shown:
        print(_rule("FAILURES"))
        for event in shown:
            print_record(records[event["test"]])
    if tally.bad:
        print(painted(_rule("short test summary info"), "bold"))
        for event in tally.bad:
            message = records.get(event["test"], {}).get("message", "")
            print(painted_failure(event, f" - {human.short(message, COLUMNS_MAX)}" if message else ""))
    if finished["exit_code"] in (EXIT_COLLECTION, UsageError.exit_code) and finished.get("report"):
        output = collection_output(client, finished["report"])
        if output and output != finished.get("reason"):
            print(output)
    if finished.get("reason") and finished["exit_code"] == 1:
        for told in teardowns(client, finished):
            print(
                painted(
                    _rule(f"ERROR after the last test on {human.clean(told['name'] or told['worker'])}", "_"), "red"
                )
            )
            print(told["error"])
    if finished.get("reason") and finished["state"] != "error":  # an error's is said on stderr
        print(f"{finished['state']}: {finished['reason']}")
    warnings = _document(client, finished, "warnings.json")
    _print_warnings(warnings)
    again = retried(client, finished)
    if again:
        print(painted(_rule("tried again"), "yellow"))
        for word, line in again["lines"]:
            print(f"{painted(word, 'yellow')} {line}")
    for line in untrusted(client, finished):
        print(line)
    print(last_line(finished, warnings.get("total", 0), again.get("counts", {})))
    if finished.get("report"):
        print(f"report {finished['report']}")


def print_record(record: dict[str, Any]) -> None:
    """One failed attempt with all that it printed."""
    print(painted(_rule(human.clean(record["test"]), "_"), "red", "bold"))
    text = record["longrepr"] or record["message"]
    if text:
        print(text.rstrip("\n"))
    if record.get("reruns"):
        print(f"{record['reruns']} earlier tries in the same process failed too")
    if record["signal"]:
        print(f"the test's process was killed by signal {record['signal']}")
    for name, title in (("stdout", "Captured stdout"), ("stderr", "Captured stderr"), ("log", "Captured log")):
        if record[name]:
            print(_rule(title, "-"))
            print(record[name].rstrip("\n"))
    if record["dropped"]:
        print(f"({human.size(record['dropped'])} of output left out)")


def _document(client: Client, finished: dict[str, Any], name: str) -> Any:
    """A document of the report; {} if it has none of that name, as when nothing warned, or was tried again."""
    if not finished.get("report"):
        return {}
    try:
        return json.loads(b"".join(client.read(finished["report"], name)))
    except MeshError:
        return {}


def teardowns(client: Client, finished: dict[str, Any]) -> list[dict[str, str]]:
    """What fixtures raised after the last test: "worker", "name" and "error" of each."""
    return list(_document(client, finished, "teardowns.json"))


def _print_warnings(document: dict[str, Any]) -> None:
    """pytest's warnings summary: who gave it, and the warning."""
    told = document.get("warnings", [])
    if not told:
        return
    print(painted(_rule("warnings summary"), "yellow"))
    for warning in told:
        for test in warning["tests"]:
            print(human.clean(test))
        if warning["count"] > len(warning["tests"]):
            print(f"... {warning['count']} warnings like this")
        print("\n".join(f"  {human.clean(line)}" for line in warning["text"].splitlines()))
        print()


def retried(client: Client, finished: dict[str, Any]) -> dict[str, Any]:
    """Of the tests that were tried more than once: "counts" by their truth, and "lines" that tell of each: a green one
    among them is no proof that all is well. Empty if there was none."""
    document = _document(client, finished, "retried.json")
    if not document:
        return {}
    lines = [(told["truth"].upper(), f"{human.clean(told['test'])} - {_tries(told)}") for told in document["tests"]]
    more = sum(document["counts"].values()) - len(lines)
    if more:
        lines.append(("...", f"and {human.plural(more, 'other')}: see report.json"))
    return {"counts": document["counts"], "lines": lines}


def untrusted(client: Client, finished: dict[str, Any]) -> list[str]:
    """What there is to say of tests whose verdicts could have been reused, and that did not pass when they ran."""
    told = _document(client, finished, "cached.json") if finished["exit_code"] else {}
    return [
        f"{human.clean(lie['test'])} {lie['outcome']}, though nothing that it was seen to read has changed: "
        "its verdicts are not reused until its file is another"
        for lie in told.get("lies", [])
    ]


def _tries(told: dict[str, Any]) -> str:
    """ "failed on one, passed on other: blame one"."""
    parts = []
    for attempt in told["attempts"]:
        before = f"{attempt['reruns']} bad in the same process, then " if attempt["reruns"] else ""
        parts.append(f"{before}{attempt['outcome']} on {human.clean(attempt['name'])}")
    blamed = " and ".join(human.clean(name) for name in told["blamed_hosts"])
    return ", ".join(parts) + (f": bad on {blamed} only" if blamed else "")


def last_line(finished: dict[str, Any], warnings: int = 0, again: Mapping[str, int] = MappingProxyType({})) -> str:
    """ "==== 1 failed, 2 passed in 1.50s ===="."""
    return painted(_rule(result(finished, warnings, again)), "red" if finished["exit_code"] != 0 else "green", "bold")


def result(finished: dict[str, Any], warnings: int = 0, again: Mapping[str, int] = MappingProxyType({})) -> str:
    """ "1 failed, 2 passed, 1 flaky in 1.50s". `again`: by their truth, tests that were tried again."""
    counts = finished["counts"]
    parts = []
    for outcome in OUTCOMES:
        count = counts.get(outcome, 0)
        if count:
            word = _WORDS.get(outcome, outcome) if count > 1 else outcome
            parts.append(f"{count} {word}")
    parts += [f"{again[name]} {words}" for name, words in _UNSURE.items() if again.get(name)]
    if finished.get("reused"):
        parts.append(f"{finished['reused']} reused")
    if warnings:
        parts.append(f"{warnings} warning{'s' if warnings > 1 else ''}")
    text = ", ".join(parts) or "no tests ran"
    if finished["state"] in ("cancelled", "error"):
        text = f"{finished['state']}: {text}"
    return f"{text} in {_seconds(finished['wall_seconds'])}"


def collection_output(client: Client, cid: str) -> str:
    """What pytest printed when it could collect nothing; empty if the report has none of that."""
    try:
        return b"".join(client.read(cid, "collection.txt")).decode(errors="replace").rstrip("\n")
    except UsageError:
        return ""


def read_report(client: Client, cid: str) -> dict[str, Any]:
    """report.json of a report."""
    document: dict[str, Any] = json.loads(b"".join(client.read(cid, "report.json")))
    return document


def _records(client: Client, finished: dict[str, Any], tally: Tally) -> dict[str, dict[str, Any]]:
    """Test -> record, of those failures that are shown. A verdict may lack its record's CID: the report has all."""
    wanted = tally.bad[:FAILURES_SHOWN_MAX]
    cids = {event["test"]: event["record"] for event in wanted if event.get("record")}
    records: dict[str, dict[str, Any]] = {}
    try:
        if len(cids) < len(wanted) and finished.get("report"):
            cids = {entry["test"]: entry["record"] for entry in read_report(client, finished["report"])["tests"]}
        for event in wanted:
            if event["test"] in cids:
                records[event["test"]] = client.get(f"/api/records/{cids[event['test']]}")
    except MeshError as error:
        note(f"not all failures' records can be had: {error}")
    return records


def _rule(title: str, fill: str = "=") -> str:
    width = min(shutil.get_terminal_size((80, 24)).columns, COLUMNS_MAX)
    return f" {title} ".center(width, fill)


def _seconds(seconds: float) -> str:
    return f"{seconds:.2f}s" if seconds < 60 else f"{seconds:.2f}s ({human.duration(seconds)})"

"""`jsonl`: one object a line, in the shape of pytest-reportlog (`--report-log`), for tools that read that.

The session, then a report for each phase of each test, then the session's end. Tracebacks are text, since nothing more
is kept of them in every case; pytest itself reads them back (`TestReport._from_json`).
"""

import json
from collections.abc import Iterable, Iterator
from typing import Any

from mesh.reporters.model import Output, Report, Written

_TOLD = {"xfailed": "skipped", "xpassed": "passed", "error": "failed"}
"""Our outcomes that are none of a phase."""


class ReportLog:
    target = "report.jsonl"

    def outputs(self, report: Report) -> Iterable[Output]:
        yield Written(_line(one) for one in _objects(report))


def _objects(report: Report) -> Iterator[dict[str, Any]]:
    yield {"pytest_version": _pytest(report), "$report_type": "SessionStart"}
    for record in report.records():
        yield from _phases(record, report.host(record["worker"]))
    yield {"exitstatus": report.document["exit_code"], "$report_type": "SessionFinish"}


def _phases(record: dict[str, Any], host: str) -> Iterator[dict[str, Any]]:
    whole = {"name": "call", "outcome": record["outcome"], "duration": record["duration"]}
    phases = record["phases"] or [whole]
    worst = next((place for place, phase in enumerate(phases) if phase["outcome"] != "passed"), len(phases) - 1)
    start = record["started"]
    for place, phase in enumerate(phases):
        last = place == len(phases) - 1
        yield {
            "nodeid": record["test"],
            "location": [record["test"].partition("::")[0], None, record["test"].partition("::")[2].replace("::", ".")],
            "keywords": {},
            "outcome": _TOLD.get(phase["outcome"], phase["outcome"]),
            "longrepr": _longrepr(record) if place == worst and record["outcome"] != "passed" else None,
            "when": phase["name"],
            "user_properties": list(map(list, record["properties"].items())) if last else [],
            "sections": _sections(record) if last else [],
            "duration": phase["duration"],
            "start": start,
            "stop": start + phase["duration"],
            **_expected(record, place == worst),
            "worker_id": f"{host}/gw{record['slot']}",
            "item_index": record["index"],
            "$report_type": "TestReport",
        }
        start += phase["duration"]


def _pytest(report: Report) -> str:
    """The version that the suite was collected by; empty if the report does not tell."""
    names = (line.decode().split() for line in report.files.lines("distributions.txt"))
    return next((words[1] for words in names if len(words) == 2 and words[0].lower() == "pytest"), "")


def _longrepr(record: dict[str, Any]) -> Any:
    if record["outcome"] == "skipped":
        return [record["test"].partition("::")[0], 0, f"Skipped: {record['message']}"]
    return record["longrepr"] or record["message"]


def _expected(record: dict[str, Any], here: bool) -> dict[str, str]:
    return {"wasxfail": record["message"]} if here and record["outcome"] in ("xfailed", "xpassed") else {}


def _sections(record: dict[str, Any]) -> list[list[str]]:
    titles = (("stdout", "Captured stdout call"), ("stderr", "Captured stderr call"), ("log", "Captured log call"))
    return [[title, record[name]] for name, title in titles if record[name]]


def _line(one: dict[str, Any]) -> str:
    return json.dumps(one) + "\n"


REPORTLOG = ReportLog()

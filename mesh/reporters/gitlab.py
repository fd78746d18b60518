"""`gitlab`: `junit.xml` with the file of each test, by which GitLab links it, and `codequality.json`, by which it marks
lines of a merge request.

GitLab's reader wants `file` at a `testcase`, which stricter ones refuse; so it is a file of its own.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Any

from mesh.reporters.model import Output, Report, Written, line_of, place
from mesh.reporters.records import head, record_of
from mesh.state import junit
from mesh.views import human

DESCRIPTION_CHARACTERS_MAX = 1_000


class GitLab:
    target = "gitlab/"

    def outputs(self, report: Report) -> Iterable[Output]:
        yield Written(_suite(report), "junit.xml")
        yield Written([json.dumps(list(_faults(report)), indent=1)], "codequality.json")


def _suite(report: Report) -> Iterator[bytes]:
    below = report.variables.get("CI_PROJECT_DIR", "")
    yield head(report)
    for told in report.records():
        record = record_of(told)
        file = {} if report.shell else {"file": place(report, record.test, below)}
        properties = (("mesh.host", report.host(told["worker"])), ("mesh.attempt", str(record.attempt)))
        yield junit.case(record, properties, shell=report.shell, attributes=file)
    for one in report.told("teardowns.json") or ():
        yield junit.teardown(one["name"] or one["worker"], one["error"])
    yield junit.tail()


def _faults(report: Report) -> Iterator[dict[str, Any]]:
    below = report.variables.get("CI_PROJECT_DIR", "")
    for record in report.bad():
        said = f"{record['test']} {record['outcome']}: {record['message']}"
        path, line = place(report, record["test"], below), line_of(record)
        yield _fault(said, record["outcome"], record["test"], "major", path, line or 1)
    for entry in report.tests:
        if entry.get("flaky"):
            said = f"{entry['test']} passed only when it was tried again"
            yield _fault(said, "flaky", entry["test"], "minor", place(report, entry["test"], below), 1)


def _fault(said: str, kind: str, test: str, severity: str, path: str, line: int) -> dict[str, Any]:
    return {
        "description": human.short(said, DESCRIPTION_CHARACTERS_MAX),
        "check_name": f"mesh.{kind}",
        "fingerprint": hashlib.sha256(f"{kind} {test}".encode("utf-8", "backslashreplace")).hexdigest(),
        "severity": severity,
        "location": {"path": path, "lines": {"begin": line}},
    }


GITLAB = GitLab()

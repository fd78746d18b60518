"""`jenkins`: JUnit's XML to the letter of Jenkins' schema (junit-10.xsd), a suite for each file of tests.

A `testcase` of that schema has no properties; what other tools read there is told in the test's output, in the form
`[[PROPERTY|name=value]]`. Tries before the verdict are Surefire's `flakyFailure`, `rerunFailure` and the like, by which
Jenkins' plugins tell a flaky test from a broken one.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

from mesh.reporters.model import Output, Report, Written
from mesh.reporters.records import opening, record_of
from mesh.state import junit
from protocols.manifests import Outcome, Record


class Jenkins:
    target = "jenkins.xml"

    def outputs(self, report: Report) -> Iterable[Output]:
        yield Written(_document(report))


def _document(report: Report) -> Iterator[bytes]:
    tries: dict[str, list[dict[str, Any]]] = {}
    for told in report.tries():
        tries.setdefault(told["test"], []).append(told)
    yield junit.OPENING
    for path, group in groupby(report.records(), lambda told: "" if report.shell else told["test"].partition("::")[0]):
        yield from _suite(report, path, list(group), tries)
    ends = report.told("teardowns.json") or ()
    if ends:
        yield opening(report, "after the last test", [0, 0, len(ends), 0, 0, 0], 0.0)
        yield from (junit.teardown(one["name"] or one["worker"], one["error"]) for one in ends)
        yield junit.CLOSING
    yield junit.ENDING


def _suite(
    report: Report, path: str, group: Sequence[dict[str, Any]], tries: dict[str, list[dict[str, Any]]]
) -> Iterator[bytes]:
    records = [record_of(told) for told in group]
    counts = [sum(record.outcome.code == outcome.code for record in records) for outcome in Outcome]
    name = path.removesuffix(".py").replace("/", ".") or str(report.document.get("name", "commands"))
    yield opening(report, name, counts, sum(record.duration for record in records))
    for record, told in zip(records, group, strict=True):
        plain = dataclasses.replace(record, properties=(), stdout=_with_properties(report, record, told))
        again = "".join(_tried(record, one) for one in tries.get(record.test, ()))
        yield junit.case(plain, shell=report.shell, children=again)
    yield junit.CLOSING


def _with_properties(report: Report, record: Record, told: dict[str, Any]) -> str:
    entry = report.entries.get(record.test, {})
    properties = [
        *record.properties,
        ("mesh.host", report.host(entry.get("worker"))),
        ("mesh.attempt", str(record.attempt)),
        *([("mesh.artifacts", told["artifacts"])] if told["artifacts"] else []),
    ]
    lines = "\n".join(f"[[PROPERTY|{name}={value}]]" for name, value in properties)
    return f"{record.stdout.rstrip()}\n{lines}\n" if record.stdout else f"{lines}\n"


def _tried(record: Record, tried: dict[str, Any]) -> str:
    """A bad try, by what came of the test in the end."""
    end = "Error" if tried["outcome"] == Outcome.ERROR.value else "Failure"
    return junit.rerun(("rerun" if record.outcome.bad else "flaky") + end, record_of(tried))


JENKINS = Jenkins()

"""`mesh run --report tap:run.tap`: a reporter of one's own, as a package that is installed beside mesh.

A reporter has a `target` (where it writes unless told otherwise) and `outputs`, which gets a `Report` and gives back
what is to be written. docs/reports.md tells what a report holds.
"""

from collections.abc import Iterable, Iterator

from mesh.reporters.model import Output, Report, Written

GOOD = ("passed", "xfailed", "xpassed", "skipped")


class Tap:
    """The Test Anything Protocol, version 13."""

    target = "run.tap"

    def outputs(self, report: Report) -> Iterable[Output]:
        yield Written(self._lines(report))

    def _lines(self, report: Report) -> Iterator[str]:
        yield f"TAP version 13\n1..{len(report.tests)}\n"
        for number, record in enumerate(report.records(), start=1):
            outcome = record["outcome"]
            name = record["test"].replace("#", "\\#").replace("\n", " ")
            directive = f" # SKIP {record['message']}" if outcome == "skipped" else ""
            directive = f" # TODO {record['message']}" if outcome in ("xfailed", "xpassed") else directive
            yield f"{'ok' if outcome in GOOD else 'not ok'} {number} - {name}{directive}\n"
            if outcome not in GOOD:
                yield f"# on {report.host(record['worker'])}: {record['message']}\n"

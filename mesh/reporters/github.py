"""`github`: annotations of failures on the commit's lines, and the step's summary, for GitHub Actions.

Annotations are workflow commands (`::error file=…`) on the step's output; GitHub shows ten of each kind of a step, so
no more are printed. The summary is that of `markdown`, added to the file that `$GITHUB_STEP_SUMMARY` names, and written
to the one that was asked for.
"""

from collections.abc import Iterable

from mesh.reporters.markdown import summary
from mesh.reporters.model import Appended, Output, Printed, Report, Written, line_of, place
from mesh.views import human

ANNOTATIONS_MAX = 10
MESSAGE_CHARACTERS_MAX = 4_000


class GitHub:
    target = ""

    def outputs(self, report: Report) -> Iterable[Output]:
        text = summary(report)
        yield Printed("\n".join(annotations(report)))
        if report.variables.get("GITHUB_STEP_SUMMARY"):
            yield Appended(report.variables["GITHUB_STEP_SUMMARY"], [text, "\n"])
        yield Written([text])


def annotations(report: Report) -> Iterable[str]:
    """A workflow command for each failure, and for each test that passed only when it was tried again."""
    below = report.variables.get("GITHUB_WORKSPACE", "")
    told = 0
    for record in report.bad():
        told += 1
        if told > ANNOTATIONS_MAX:
            continue
        lines = "\n\n".join(filter(None, (record["message"], record["longrepr"].strip())))
        where = {"file": place(report, record["test"], below), "line": line_of(record), "title": record["test"]}
        yield _command("error", where, lines[:MESSAGE_CHARACTERS_MAX])
    if told > ANNOTATIONS_MAX:
        yield f"{human.plural(told - ANNOTATIONS_MAX, 'more failure')}: GitHub shows no more annotations of a step"
    unsure = [entry for entry in report.tests if entry.get("flaky")]
    for entry in unsure[:ANNOTATIONS_MAX]:
        blamed = " and ".join(entry.get("blamed_hosts", ()))
        said = f"bad on {blamed} only" if blamed else "flaky: it passed only when it was tried again"
        yield _command("warning", {"file": place(report, entry["test"], below), "title": entry["test"]}, said)
    for one in report.told("teardowns.json") or ():
        yield _command("error", {"title": f"after the last test on {one['name'] or one['worker']}"}, one["error"])
    if report.document["state"] == "error":
        yield _command("error", {"title": f"run {report.document['run']}"}, report.document["reason"] or "it failed")


def _command(kind: str, properties: dict[str, str | int | None], message: str) -> str:
    told = ",".join(f"{name}={_property(str(value))}" for name, value in properties.items() if value is not None)
    return f"::{kind} {told}::{_data(message)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


GITHUB = GitHub()

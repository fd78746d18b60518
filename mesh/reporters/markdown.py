"""`markdown`: a summary for a pull request's comment, a chat or a CI's page: what failed first, then what was odd.

All that comes from a suite stands in code, where Markdown has no meaning of its own; how much is shown is bounded
(`BYTES_MAX`, below what GitHub takes as a step's summary), failures first.
"""

import html
import re
from collections.abc import Iterable, Iterator
from typing import Any

from mesh.reporters.figures import by_worker, slowest
from mesh.reporters.model import OUTCOMES, Output, Report, Written, headline, output_of
from mesh.views import human

BYTES_MAX = 900_000
FAILURES_MAX = 50
"""Shown with their output; more are only named."""
NAMED_MAX = 500
OUTPUT_CHARACTERS_MAX = 8_000
"""Of each text that a test left: its last ones, where the error stands."""
LISTED_MAX = 10

SIGNS = {"failed": "❌", "error": "💥", "passed": "✅", "skipped": "⏭️", "xfailed": "☑️", "xpassed": "❗"}


class Markdown:
    target = "summary.md"

    def outputs(self, report: Report) -> Iterable[Output]:
        yield Written([summary(report)])


def summary(report: Report) -> str:
    """The whole document."""
    parts: list[str] = []
    left = BYTES_MAX
    for part in _parts(report):
        left -= len(part.encode())
        if left < 0:
            parts.append("\nMore is left out here: the report has all.\n")
            break
        parts.append(part)
    return "".join(parts)


def code(text: str, cell: bool = False) -> str:
    """In a line: a code span that ends where the text does. `cell`: of a table, in which a bar has a meaning."""
    shown = human.clean(text) or " "
    shown = shown.replace("|", "\\|") if cell else shown
    fence = "`" * (max(map(len, re.findall("`+", shown)), default=0) + 1)
    space = " " if "`" in shown else ""
    return f"{fence}{space}{shown}{space}{fence}"


def block(text: str) -> str:
    """As lines of their own."""
    text = text.rstrip("\n")
    if len(text) > OUTPUT_CHARACTERS_MAX:
        more = human.number(len(text) - OUTPUT_CHARACTERS_MAX)
        text = f"… {more} characters before this\n{text[-OUTPUT_CHARACTERS_MAX:]}"
    shown = "\n".join(map(human.clean, text.splitlines()))
    fence = "`" * max(3, max(map(len, re.findall("`+", shown)), default=0) + 1)
    return f"{fence}text\n{shown}\n{fence}\n"


def _parts(report: Report) -> Iterator[str]:
    document = report.document
    sign = SIGNS["passed"] if document["exit_code"] == 0 else SIGNS["failed"]
    name = code(document.get("name") or "tests")
    yield f"## {sign} {name}: {headline(report)} in {human.duration(document['wall_seconds'])}\n\n"
    if document.get("reason"):
        yield f"{code(document['state'])}: {code(document['reason'])}\n\n"
    counts = [name for name in OUTCOMES if report.counts.get(name)]
    if counts:
        yield "| " + " | ".join(f"{SIGNS[name]} {name}" for name in counts) + " | workers |\n"
        yield "|" + " ---: |" * (len(counts) + 1) + "\n"
        numbers = [human.number(report.counts[name]) for name in counts]
        yield "| " + " | ".join([*numbers, str(len(document.get("workers", ())))]) + " |\n\n"
    said = report.files.read("collection.txt")
    if said and document["exit_code"]:
        yield "### What pytest said\n\n" + block(said.decode(errors="replace")) + "\n"
    yield from _failures(report)
    yield from _others(report)
    yield f"Run {code(str(document['run']))} · report {code(report.cid)}\n"


def _failures(report: Report) -> Iterator[str]:
    """What went wrong, with its output as long as that is not too much."""
    bad = sum(report.counts.get(name, 0) for name in ("failed", "error"))
    if bad:
        yield f"### {human.plural(bad, 'failure')}\n\n"
    for number, record in enumerate(report.bad()):
        if number >= NAMED_MAX:
            yield f"\n… and {human.number(bad - number)} more\n"
            break
        entry = report.entries.get(record["test"], {})
        said = f" — {code(human.short(record['message'], 200))}" if record["message"] else ""
        line = f"{SIGNS[record['outcome']]} {code(record['test'])} on {code(report.host(entry.get('worker')))}{said}"
        if number >= FAILURES_MAX:
            yield f"- {line}\n"
            continue
        yield f"<details><summary>{_html(record)}</summary>\n\n{line}\n\n"
        for title, text in output_of(record):
            yield (f"{title}\n\n" if title else "") + block(text) + "\n"
        yield "</details>\n\n"
    for told in report.told("teardowns.json") or ():
        host = told["name"] or report.host(told["worker"])
        yield f"{SIGNS['error']} after the last test on {code(host)}\n\n{block(told['error'])}\n"
    if bad > FAILURES_MAX:
        yield "\n"


def _html(record: dict[str, Any]) -> str:
    """A test's name where Markdown is not read."""
    text = html.escape(human.clean(human.short(record["test"], 200)), quote=False)
    return f"{SIGNS[record['outcome']]} <code>{text}</code>"


def _others(report: Report) -> Iterator[str]:
    """Tests that were tried again, the slowest, and who did how much."""
    again = [entry for entry in report.tests if entry.get("flaky")]
    if again:
        yield f"### {human.plural(len(again), 'test')} passed only when tried again\n\n"
        for entry in again[:LISTED_MAX]:
            blamed = ", ".join(map(code, entry.get("blamed_hosts", ())))
            yield f"- {code(entry['test'])}" + (f": bad on {blamed} only" if blamed else "") + "\n"
        yield _more(len(again))
    slow = slowest(report, LISTED_MAX)
    if slow:
        yield "<details><summary>Slowest tests</summary>\n\n| seconds | test |\n| ---: | --- |\n"
        yield "".join(f"| {entry['duration']:.2f} | {code(entry['test'], cell=True)} |\n" for entry in slow)
        yield "\n</details>\n\n"
    workers = by_worker(report)
    if len(workers) > 1:
        yield "<details><summary>Workers</summary>\n\n| worker | tests | bad | seconds of tests |\n"
        yield "| --- | ---: | ---: | ---: |\n"
        for worker in workers:
            numbers = f"{human.number(worker.tests)} | {worker.bad} | {worker.seconds:.1f}"
            yield f"| {code(worker.name, cell=True)} | {numbers} |\n"
        yield "\n</details>\n\n"
    warned = report.told("warnings.json")
    if warned:
        yield f"{human.plural(warned['total'], 'warning')}, {len(warned['warnings'])} of them different.\n\n"


def _more(count: int) -> str:
    return f"- … and {human.number(count - LISTED_MAX)} more\n\n" if count > LISTED_MAX else "\n"


MARKDOWN = Markdown()

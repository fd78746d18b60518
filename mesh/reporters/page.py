"""`html`: one file that shows a run, for a browser with no network: failures first, then all else.

Everything but the table of all tests is plain HTML, and can be read where scripts are off (as on a CI's page of
artifacts). Nothing of a suite is markup: it is escaped, or stands in a block of JSON; the page's own policy lets no
script run but ours, and asks nothing of anybody. What is shown of output is bounded, failures first; the report has
all.
"""

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from importlib.resources import files
from itertools import islice
from typing import Any

from mesh.reporters.figures import by_worker, slowest
from mesh.reporters.model import BAD, OUTCOMES, Output, Report, Written, headline, output_of
from mesh.reporters.timeline import timeline
from mesh.views import human

FAILURES_MAX = 300
"""Shown with their output above the table; more are in the table."""
OPEN_MAX = 3
"""Of those, unfolded."""
TEXT_CHARACTERS_MAX = 60_000
"""Of each text that a test left: its beginning and its end."""
BAD_CHARACTERS_MAX, GOOD_CHARACTERS_MAX = 10_000_000, 4_000_000
"""Of all of them in the table's details, of tests that were bad and of others."""
SLOWEST_MAX, LISTED_MAX = 20, 100

_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff]")


class Page:
    target = "report.html"

    def outputs(self, report: Report) -> Iterable[Output]:
        yield Written(_document(report))


def shown(text: str) -> str:
    """What a test left, without colours and control characters, its middle left out if it is long."""
    text = _CONTROL.sub("\N{REPLACEMENT CHARACTER}", _ANSI.sub("", text.replace("\r\n", "\n").replace("\r", "\n")))
    if len(text) > TEXT_CHARACTERS_MAX:
        half = TEXT_CHARACTERS_MAX // 2
        text = f"{text[:half]}\n… {human.number(len(text) - 2 * half)} characters left out …\n{text[-half:]}"
    return text.rstrip("\n")


def _document(report: Report) -> Iterator[str]:
    folder = files("mesh.reporters") / "assets"
    style, script = ((folder / name).read_text(encoding="utf-8") for name in ("report.css", "report.js"))
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    name = _text(human.clean(report.document.get("name") or "tests"))
    yield (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="referrer" content="no-referrer">\n'
        f'<title>{name}: {headline(report)}</title>\n<link rel="icon" href="data:,">\n<style>\n{style}</style>\n'
        "</head>\n<body>\n"
    )
    yield from _head(report, name)
    yield "<main>\n"
    yield from _failures(report)
    yield from _odd(report)
    yield from _tests(report)
    yield from _slowest(report)
    yield from timeline(report)
    yield from _workers(report)
    yield from _about(report)
    yield "</main>\n"
    yield (
        "<footer>Made from the run's records alone; "
        f"<code>mesh verify {_text(report.cid)}</code> checks them.</footer>\n"
    )
    yield from _data(report)
    yield f"<script>{script}</script>\n</body>\n</html>\n"


def _head(report: Report, name: str) -> Iterator[str]:
    document = report.document
    good = document["exit_code"] == 0
    began = document.get("submitted_at")
    facts = [
        f"run {_text(str(document['run']))}",
        *([human.moment(began)] if began else []),
        human.duration(document["wall_seconds"]),
        human.plural(len(document.get("workers", ())), "worker"),
    ]
    state = "passed" if good else "failed" if document["state"] == "failed" else "error"
    badge = f'<span class="badge big {state}">{_text(document["state"])}</span>'
    yield f'<header>\n<div class="title"><h1>{name}</h1>{badge}</div>\n'
    yield '<ul class="facts">' + "".join(f"<li>{fact}</li>" for fact in facts) + "</ul>\n"
    counts = [(outcome, int(report.counts[outcome])) for outcome in OUTCOMES if report.counts.get(outcome)]
    parts = "".join(f'<span class="{outcome}" style="flex:{count}"></span>' for outcome, count in counts)
    yield f'<div class="bar" role="img" aria-label="{headline(report)}">{parts}</div>\n<ul class="counts">'
    for outcome, count in counts:
        yield f'<li><span class="dot {outcome}"></span><b>{human.number(count)}</b> {outcome}</li>'
    yield "</ul>\n"
    if document.get("reason"):
        yield f"<p>{_text(shown(document['reason']))}</p>\n"
    yield '</header>\n<nav aria-label="Parts of the report"><div>'
    for part, title in (("failures", "Failures"), ("tests", "Tests"), ("slowest", "Slowest"), ("timeline", "Timeline")):
        yield f'<a href="#{part}">{title}</a>'
    yield '<a href="#workers">Workers</a><a href="#about">About</a></div></nav>\n'


def _failures(report: Report) -> Iterator[str]:
    bad = sum(report.counts.get(outcome, 0) for outcome in BAD)
    title = human.plural(bad, "failure") if bad else "No failures"
    yield f'<section aria-labelledby="failures"><h2 id="failures">{title}</h2>\n'
    said = report.files.read("collection.txt")
    if said and report.document["exit_code"]:
        yield "<p>What pytest said:</p>" + _block("What pytest said", said.decode(errors="replace"))
    for place, record in enumerate(islice(report.bad(), min(bad, FAILURES_MAX))):
        yield _failure(report, record, place < OPEN_MAX)
    if bad > FAILURES_MAX:
        yield f"<p>And {human.number(bad - FAILURES_MAX)} more, in the table below.</p>\n"
    for told in report.told("teardowns.json") or ():
        title = f"after the last test on {told['name'] or report.host(told['worker'])}"
        yield (
            f'<details class="test is-error" open><summary>{_badge("error")} {_text(title)}</summary>'
            f'<div class="body">{_block(title, told["error"])}</div></details>\n'
        )
    yield "</section>\n"


def _failure(report: Report, record: Mapping[str, Any], unfolded: bool) -> str:
    entry = report.entries.get(record["test"], {})
    outcome = record["outcome"]
    message = f'<span class="said">{_text(human.short(record["message"], 300))}</span>' if record["message"] else ""
    parts = [
        f'<details class="test is-{outcome}"{" open" if unfolded else ""}><summary>{_badge(outcome)} '
        f'<code>{_text(human.clean(record["test"]))}</code>{message}</summary><div class="body">\n'
    ]
    facts = [
        f"on {report.host(entry.get('worker'))}",
        human.duration(record["duration"]),
        f"attempt {record['attempt']}",
    ]
    facts += [f"{name} {value}" for name, value in record["properties"].items()]
    facts += [f"artifacts {record['artifacts']}"] if record["artifacts"] else []
    parts.append(f'<p class="dim">{_text(human.clean(" · ".join(facts)))}</p>')
    for title, text in output_of(record):
        parts.append((f"<h3>{title}</h3>" if title else "") + _block(title or "What went wrong", text))
    for tried in entry.get("attempts", ())[:-1]:
        said = f"attempt {tried['attempt']}: {tried['outcome']} on {tried['name']}"
        parts.append(f'<p class="dim">{_text(human.clean(said))}</p>\n')
    return "".join([*parts, "</div></details>\n"])


def _odd(report: Report) -> Iterator[str]:
    """Tests that passed only when tried again, and warnings."""
    again = [entry for entry in report.tests if entry.get("flaky")]
    if again:
        yield f"<h2>{human.plural(len(again), 'test')} passed only when tried again</h2>\n<ul>"
        for entry in again[:LISTED_MAX]:
            blamed = " and ".join(entry.get("blamed_hosts", ()))
            said = f" — bad on {_text(human.clean(blamed))} only" if blamed else ""
            yield f"<li><code>{_text(human.clean(entry['test']))}</code>{said}</li>\n"
        yield "</ul>\n" + (f"<p>And {len(again) - LISTED_MAX} more.</p>" if len(again) > LISTED_MAX else "")
    warned = report.told("warnings.json")
    if warned:
        yield f"<details><summary>{human.plural(warned['total'], 'warning')}</summary>"
        for warning in warned["warnings"][:LISTED_MAX]:
            where = f"{human.clean(', '.join(warning['tests']))} ({warning['count']} times)"
            yield f'<p class="dim">{_text(where)}</p>' + _block("A warning", warning["text"])
        yield "</details>\n"


def _tests(report: Report) -> Iterator[str]:
    yield '<section aria-labelledby="tests"><h2 id="tests">All tests</h2>\n'
    yield "<noscript><p>Searching and sorting all tests needs scripts; all else on this page does not.</p></noscript>\n"
    yield '<div id="all" hidden><div class="controls"><input id="search" type="search" placeholder="Search by name" '
    yield 'aria-label="Search tests by name"><div class="chips" role="group" aria-label="Show only">'
    for code, outcome in enumerate(OUTCOMES):
        if report.counts.get(outcome):
            yield f'<button type="button" aria-pressed="false" data-outcome="{code}">{outcome}</button>'
    for mark in ("flaky", "reused"):
        if any(entry.get(mark) for entry in report.tests):
            yield f'<button type="button" aria-pressed="false" data-mark="{mark}">{mark}</button>'
    yield '</div><span id="found" class="dim" role="status"></span></div>\n<table><thead><tr>'
    heads = (
        ("outcome", "Outcome", ""),
        ("name", "Test", ""),
        ("seconds", "Time", "number"),
        ("worker", "Worker", "wide"),
    )
    for sort, title, kind in heads:
        yield f'<th scope="col" class="{kind}" data-sort="{sort}"><button type="button">{title}</button></th>'
    yield '</tr></thead><tbody id="rows"></tbody></table>\n'
    yield '<button id="more" type="button" class="more" hidden>Show more</button></div></section>\n'


def _slowest(report: Report) -> Iterator[str]:
    slow = slowest(report, SLOWEST_MAX)
    yield '<section aria-labelledby="slowest"><h2 id="slowest">Slowest tests</h2>\n'
    if slow:
        longest = max(slow[0]["duration"], 1e-9)
        yield '<table><thead><tr><th scope="col">Test</th><th scope="col" class="number">Time</th></tr></thead>'
        yield "<tbody>\n"
        for entry in slow:
            meter = f'<span class="meter" style="width:{100 * entry["duration"] / longest:.1f}%"></span>'
            yield f'<tr><td class="name"><code>{_text(human.clean(entry["test"]))}</code>{meter}</td>'
            yield f'<td class="number">{human.duration(entry["duration"])}</td></tr>\n'
        yield "</tbody></table>\n"
    else:
        yield '<p class="dim">No test ran.</p>'
    yield "</section>\n"


def _workers(report: Report) -> Iterator[str]:
    yield '<section aria-labelledby="workers"><h2 id="workers">Workers</h2>\n'
    yield '<div class="scroll" tabindex="0" role="group" aria-label="Table of workers"><table>'
    yield '<thead><tr><th scope="col">Worker</th>'
    yield "".join(f'<th scope="col" class="number">{title}</th>' for title in ("Tests", "Bad", "Time of tests", "Mean"))
    yield "</tr></thead><tbody>\n"
    for share in by_worker(report):
        mean = human.duration(share.seconds / share.tests)
        numbers = (human.number(share.tests), human.number(share.bad), human.duration(share.seconds), mean)
        yield f'<tr><th scope="row">{_text(share.name)}</th>'
        yield "".join(f'<td class="number">{number}</td>' for number in numbers) + "</tr>\n"
    yield "</tbody></table></div></section>\n"


def _about(report: Report) -> Iterator[str]:
    document = report.document
    environment = document.get("environment") or {}
    python = (
        f"{environment.get('implementation', '')} {environment.get('python', '')}, {environment.get('platform', '')}"
    )
    facts = [
        ("Report", report.cid),
        ("Bundle", document.get("bundle")),
        ("Manifest", document.get("manifest")),
        ("Project", document.get("project")),
        ("Python", python if environment else None),
    ]
    yield '<section aria-labelledby="about"><h2 id="about">About this run</h2>\n<dl>'
    for name, value in facts:
        if value:
            yield f"<dt>{name}</dt><dd><code>{_text(human.clean(str(value)))}</code></dd>"
    yield "</dl></section>\n"


def _data(report: Report) -> Iterator[str]:
    """What the script reads: rows of all tests, and what those left."""
    workers = {worker: place for place, worker in enumerate(dict.fromkeys(entry["worker"] for entry in report.tests))}
    codes = {outcome: code for code, outcome in enumerate(OUTCOMES)}
    places = {entry["test"]: place for place, entry in enumerate(report.tests)}
    rows = [
        [
            human.clean(entry["test"]),
            codes[entry["outcome"]],
            round(entry["duration"], 4),
            workers[entry["worker"]],
            entry["attempt"],
            "flaky" if entry.get("flaky") else "reused" if entry.get("reused") else "",
        ]
        for entry in report.tests
    ]
    details = _details(report, places)
    names = [report.host(worker) for worker in workers]
    data = {"outcomes": OUTCOMES, "workers": names, "tests": rows, "details": details}
    text = (
        json.dumps(data, separators=(",", ":")).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    )
    yield f'<script type="application/json" id="data">{text}</script>\n'


def _details(report: Report, places: Mapping[str, int]) -> dict[int, list[tuple[str, str]]]:
    """By the places of tests, as far as there is room."""
    found: dict[int, list[tuple[str, str]]] = {}
    left = {True: BAD_CHARACTERS_MAX, False: GOOD_CHARACTERS_MAX}
    for record in report.records():
        bad = record["outcome"] in BAD
        told = [(title, shown(text)) for title, text in _all_of(record)] if left[bad] > 0 else []
        if told and record["test"] in places:
            left[bad] -= sum(len(text) for _, text in told)
            found[places[record["test"]]] = told
    return found


def _all_of(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield from output_of(record)
    if record["properties"]:
        yield "Properties", "\n".join(f"{name}: {value}" for name, value in record["properties"].items())
    if record["artifacts"]:
        yield "Artifacts", f"mesh get {record['artifacts']} -o DIR"


def _badge(outcome: str) -> str:
    return f'<span class="badge {outcome}">{outcome}</span>'


def _block(title: str, text: str) -> str:
    lines = (
        f'<span class="e">{_text(line)}</span>' if line.startswith("E  ") else _text(line)
        for line in shown(text).split("\n")
    )
    return f'<pre tabindex="0" role="group" aria-label="{_text(human.clean(title))}">' + "\n".join(lines) + "</pre>\n"


def _text(text: str) -> str:
    return escape(text, quote=True)


HTML = Page()

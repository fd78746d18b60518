"""What a reporter is given and what it gives back: the contract of the entry point group `mesh.reporters`.

A reporter looks at a `Report` and says what is to be written, printed or appended; whoever called it does that. So it
needs no mesh, no network and no clock, and is tested with plain data. docs/reports.md has the fields of `report.json`
and of the lines of `records/`. All that tests printed or are called is theirs, not ours: a reporter escapes it for its
format.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from mesh.views import human
from protocols.errors import MeshError

OUTCOMES = ("failed", "error", "passed", "skipped", "xfailed", "xpassed")
"""Bad ones first."""
BAD = ("failed", "error")

Pieces = Iterable[str | bytes]
"""A file's content, so that a long one need not stand in memory."""


@dataclass(frozen=True, slots=True)
class Written:
    """A file: the one that was asked for, or `name` ("a/b.xml") below the directory that was."""

    pieces: Pieces
    name: str = ""


@dataclass(frozen=True, slots=True)
class Appended:
    """Added to the end of the file at `path`, which others write to as well."""

    path: str
    pieces: Pieces


@dataclass(frozen=True, slots=True)
class Printed:
    """Lines for the screen, or for whoever reads the command's output."""

    text: str


Output = Written | Appended | Printed


class NothingToReport(MeshError):
    """A reporter has nothing to make of this run, and says why: that is no failure."""


class Files(Protocol):
    """A report's files, as `mesh results` writes them."""

    def read(self, name: str) -> bytes | None:
        """A file at the report's root; None if it has none of that name."""
        ...

    def lines(self, name: str) -> Iterator[bytes]:
        """Of a file, or of all files of a directory in their order; none if there is neither."""
        ...

    def artifacts(self, beginning: str) -> list[Path]:
        """Those that tests left and whose names begin so, for as long as the report is being made."""
        ...

    def tree(self, bundle: str, name: str) -> Path | None:
        """What was tested, in a directory of that `name`, as long; None if nobody is there to give it."""
        ...


@dataclass(frozen=True)
class Report:
    """A finished run."""

    cid: str
    files: Files
    variables: Mapping[str, str] = field(default_factory=dict)
    """The environment of whoever asked for it: what CI it is, and where that wants things."""
    root: str = ""
    """The tree that was tested, if it is on this host: an absolute path."""

    @cached_property
    def document(self) -> Mapping[str, Any]:
        """`report.json`."""
        found: dict[str, Any] = json.loads(self.files.read("report.json") or b"{}")
        return found

    @property
    def counts(self) -> Mapping[str, int]:
        counts: Mapping[str, int] = self.document["counts"]
        return counts

    @property
    def tests(self) -> list[dict[str, Any]]:
        """One entry for each test that has a verdict, sorted by ID."""
        tests: list[dict[str, Any]] = self.document["tests"]
        return tests

    @cached_property
    def entries(self) -> Mapping[str, dict[str, Any]]:
        """The same by their IDs."""
        return {entry["test"]: entry for entry in self.tests}

    @property
    def shell(self) -> bool:
        """Whether its tests are shell commands, whose IDs are no pytest node IDs."""
        return self.document.get("command") is not None

    def records(self) -> Iterator[dict[str, Any]]:
        """What is kept of each test's verdict, in the order of collection: outcome, phases, output. Read anew each
        time: they may be many."""
        return map(json.loads, self.files.lines("records"))

    def tries(self) -> Iterator[dict[str, Any]]:
        """The same of bad tries before the verdict (`--retries`)."""
        return map(json.loads, self.files.lines("tries.jsonl"))

    def bad(self) -> Iterator[dict[str, Any]]:
        """Records of tests that failed or ended with an error."""
        return (record for record in self.records() if record["outcome"] in BAD)

    def told(self, name: str) -> Any:
        """A smaller document of the report, such as "warnings.json"; None if it has none of that name."""
        data = self.files.read(name)
        return None if data is None else json.loads(data)

    def host(self, worker: str | None) -> str:
        """The name of a worker's node; of one that is not known by name the end of its ID."""
        if not worker:
            return "no worker"
        return human.clean(self.document.get("names", {}).get(worker) or f"…{worker[-human.PEER_CHARS :]}")


@runtime_checkable
class Reporter(Protocol):
    """What an entry point of `mesh.reporters` names: such an object, or a class that makes one without arguments."""

    target: str
    """Where it writes unless told otherwise: "junit.xml", "coverage/" (a directory), or "" (a file only if told)."""

    def outputs(self, report: Report) -> Iterable[Output]:
        """What there is to write. Whatever it raises costs a warning, never the run."""
        ...


def headline(report: Report) -> str:
    """ "2 failed, 10 passed"."""
    counts = report.counts
    return ", ".join(f"{human.number(counts[name])} {name}" for name in OUTCOMES if counts.get(name)) or "no tests"


def place(report: Report, test: str, below: str) -> str:
    """The path of a test's file as CI knows it: relative to the checkout at `below`, in which the tree lies."""
    path = test.partition("::")[0]
    root = report.root.rstrip("/")
    below = below.rstrip("/")
    inside = root.removeprefix(below).strip("/") if below and (root + "/").startswith(below + "/") else ""
    return f"{inside}/{path}" if inside else path


def line_of(record: Mapping[str, Any]) -> int | None:
    """The line of the test's own file at which it went wrong, as its traceback says last; None if it does not."""
    path = record["test"].partition("::")[0]
    found = None
    for line in record["longrepr"].splitlines():
        number = line[len(path) + 1 :].partition(":")[0] if line.startswith(f"{path}:") else ""
        if number.isascii() and number.isdigit() and len(number) < 8:
            found = int(number)
    return found


def output_of(record: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(title, text) of all that a record has to show."""
    text = record["longrepr"] or record["message"]
    if text:
        yield "", text
    for name, title in (("stdout", "Captured stdout"), ("stderr", "Captured stderr"), ("log", "Captured log")):
        if record.get(name):
            yield title, record[name]

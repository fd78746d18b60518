"""From a run's events back to what pytest's hooks take: reports, warnings, places.

Most tests passed without a word, and their reports are made of a few numbers; what pytest said of the others comes
packed (`worker/pytest_side/telling.py`) and is unpacked by pytest itself. A test whose process died left no reports:
they are made of its record, so that it counts as the mesh counts it. Paths of a worker's tree become paths here.
"""

import base64
import contextlib
import types
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from _pytest._code.code import TerminalRepr
from _pytest.reports import CollectErrorRepr

from mesh.worker.pytest_side import telling
from protocols.manifests import Manifest

PHASES = ("setup", "call", "teardown")

TITLES = {"stdout": "Captured stdout call", "stderr": "Captured stderr call", "log": "Captured log call"}


class Worker:
    """Stands where pytest-xdist's users expect a worker: `report.node.gateway.id` is its name."""

    def __init__(self, name: str) -> None:
        self.gateway = types.SimpleNamespace(id=name)
        self.workerinput = {"workerid": name}
        self._workerinfocache = f"[{name}]" if "/" in name else ""
        """What pytest writes above a failure's traceback."""


class Told(TerminalRepr):
    """A failure of which only text is known."""

    def __init__(self, text: str, message: str, path: str) -> None:
        self._text = text or message
        self.reprcrash = types.SimpleNamespace(path=path, lineno=0, message=message)

    def toterminal(self, tw: Any) -> None:
        tw.line(self._text)


def crash(text: str) -> str:
    """What a failure that pytest printed as `text` is called in its short summary: the first of its "E" lines."""
    lines = text.splitlines()
    return next((line[1:].strip() for line in lines if line.startswith("E  ")), lines[0] if lines else "")


class Places:
    """Node IDs and paths of the bundle, as this session names them: relative to pytest's root directory."""

    def __init__(self, root: Path, below: str) -> None:
        """`below`: pytest's root directory under the bundle's `root`, with a slash at its end; "" if it is the same."""
        self.root = root
        self._below = below

    def node_id(self, name: str) -> str:
        return name[len(self._below) :] if self._below and name.startswith(self._below) else name

    def in_bundle(self, node_id: str) -> str:
        return self._below + node_id

    def here(self, value: Any, there: str) -> Any:
        """`value` with paths below `there`, a worker's tree, as paths of the tree here."""
        if isinstance(value, str):
            return value.replace(there + "/", f"{self.root}/") if there else value
        if isinstance(value, list | tuple):
            return [self.here(item, there) for item in value]
        if isinstance(value, dict):
            return {key: self.here(item, there) for key, item in value.items()}
        return value


class Replay:
    """One run's reports."""

    def __init__(self, config: pytest.Config, places: Places, name_of: Callable[[str, int], str]) -> None:
        """`name_of`: a worker's name, by peer and slot."""
        self._config = config
        self._places = places
        self._name_of = name_of
        self._workers: dict[tuple[str, int], Worker] = {}
        self._lines: list[Any] = []
        self._index: dict[str, int] = {}

    def collected(self, manifest: Manifest, notes: Mapping[str, Any]) -> None:
        """Where the tests stand is known from here on."""
        self._lines = notes["lines"]
        self._index = {test.id: index for index, test in enumerate(manifest.tests)}

    def location(self, test: str) -> tuple[str, int | None, str]:
        """pytest's (file, line, name) of a test."""
        index = self._index.get(test, len(self._lines))
        line = self._lines[index] if index < len(self._lines) else None
        path, domain = test.partition("::")[0], telling.domain(test)
        if isinstance(line, list):
            path, line, domain = line
        return self._places.node_id(path), line, domain

    def collect_reports(self, notes: Mapping[str, Any]) -> list[pytest.CollectReport]:
        """Of what could not be collected, or skipped itself as a whole."""
        made = [self._unpacked(data, notes["root"]) for data in notes["reports"]]
        for report in made:
            if report.failed and isinstance(report.longrepr, str):
                report.longrepr = CollectErrorRepr(report.longrepr)
        return made

    def reports(self, event: Mapping[str, Any]) -> list[Any]:
        """Everything that pytest reported of the test of a `verdict` event, in its order."""
        told = event.get("told", {})
        packed = self._packed(event)
        if packed is not None and packed["reports"]:
            made = [self._unpacked(data, packed["root"]) for data in packed["reports"]]
            if packed.get("failed_subtests"):
                self._count_subtests(made[0], packed["failed_subtests"])
        elif event["outcome"] == "passed":
            made = self._passed(event, told)
        else:
            made = self._told(event, told)
        place = event["worker"] or "", told.get("slot", 0)
        worker = self._workers.get(place)
        if worker is None:
            worker = self._workers[place] = Worker(self._name_of(*place))
        for report in made:
            report.node = worker
            report.worker_id = worker.gateway.id
        return made

    def warnings(self, event: Mapping[str, Any]) -> None:
        """Tells the hook of the warnings of a `verdict` event's test."""
        packed = self._packed(event)
        if packed is not None:
            self.warn(packed["warnings"], packed["root"], "runtest")

    def warn(self, recorded: list[dict[str, Any]], there: str, when: str) -> None:
        for warning in recorded:
            kind = type(warning["category"], (Warning,), {"__module__": warning["module"]})
            message = warnings.WarningMessage(
                kind(warning["text"]), kind, self._places.here(warning["file"], there), warning["line"]
            )
            place = {"nodeid": self._places.node_id(warning["nodeid"]), "location": warning["location"]}
            self._config.hook.pytest_warning_recorded.call_historic(
                kwargs={"warning_message": message, "when": when, **place}
            )

    def _packed(self, event: Mapping[str, Any]) -> dict[str, Any] | None:
        data = event.get("told", {}).get("reports")
        return telling.unpack(base64.b64decode(data)) if data else None

    def _unpacked(self, data: dict[str, Any], there: str) -> Any:
        sections = data.pop("sections", ())
        data = self._places.here(data, there)
        data["sections"] = [tuple(section) for section in sections]
        data["nodeid"] = self._places.node_id(data["nodeid"])
        if isinstance(data.get("longrepr"), list):
            data["longrepr"] = tuple(data["longrepr"])
        if data.get("location"):
            path, line, domain = data["location"]
            data["location"] = (self._places.node_id(path), line, domain)
        if "user_properties" in data:
            data["user_properties"] = [tuple(pair) for pair in data["user_properties"]]
        report = self._config.hook.pytest_report_from_serializable(config=self._config, data=data)
        if "_subtest.context" in data:
            object.__setattr__(report.context, "kwargs", data["_subtest.context"]["kwargs"])  # else quoted twice
        return report

    def _count_subtests(self, report: Any, failed: int) -> None:
        """pytest remembers in the process where a test runs how many of its sub-tests failed."""
        with contextlib.suppress(ImportError, KeyError):
            from _pytest.subtests import failed_subtests_key

            self._config.stash[failed_subtests_key][report.id] = failed

    def _report(self, test: str, when: Any, outcome: Any, seconds: float, start: float, **more: Any) -> Any:
        node_id = self._places.node_id(test)
        values: dict[str, Any] = {"longrepr": None, "sections": [], **more}
        keywords = dict.fromkeys([*node_id.partition("[")[0].split("::"), node_id.rpartition("::")[2]], 1)
        return pytest.TestReport(
            nodeid=node_id,
            location=self.location(test),
            keywords=keywords,  # type: ignore[arg-type]
            outcome=outcome,
            when=when,
            duration=seconds,
            start=start,
            stop=start + seconds,
            **values,
        )

    def _passed(self, event: Mapping[str, Any], told: Mapping[str, Any]) -> list[Any]:
        seconds = {name: duration for name, _, duration in told.get("phases", (("call", "", event["duration"]),))}
        start = told.get("started", 0.0)
        made = []
        for name in PHASES:
            made.append(self._report(event["test"], name, "passed", seconds.get(name, 0.0), start))
            start += seconds.get(name, 0.0)
        return made

    def _told(self, event: Mapping[str, Any], told: Mapping[str, Any]) -> list[Any]:
        """A failure is one of the call; an error one of the set-up, where pytest looks for errors."""
        test, seconds, start = event["test"], event["duration"], told.get("started", 0.0)
        message = told.get("message") or f"{event['outcome']}: the record of this test is lost"
        path = self._places.node_id(test).partition("::")[0]
        if event["outcome"] in ("skipped", "xfailed"):
            more = {"wasxfail": message} if event["outcome"] == "xfailed" else {}
            skip = self._report(test, "setup", "skipped", seconds, start, longrepr=(path, 0, message), **more)
            return [skip, self._report(test, "teardown", "passed", 0.0, start + seconds)]
        if event["outcome"] == "xpassed":
            call = self._report(test, "call", "passed", seconds, start, wasxfail=message)
            return [call, self._report(test, "teardown", "passed", 0.0, start + seconds)]
        sections = [(title, told[name]) for name, title in TITLES.items() if told.get(name)]
        when = "call" if event["outcome"] == "failed" else "setup"
        failure = Told(told.get("longrepr", ""), message, path)
        failed = self._report(test, when, "failed", seconds, start, longrepr=failure, sections=sections)
        before = [self._report(test, "setup", "passed", 0.0, start)] if when == "call" else []
        return [*before, failed, self._report(test, "teardown", "passed", 0.0, start + seconds, sections=sections)]

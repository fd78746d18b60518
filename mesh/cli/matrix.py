"""`mesh run` with several Pythons: a run for each version, all at work at once, followed together.

As in tox and nox: each version has its own summary, a table tells all of them at the end, and the exit code is the
worst (the highest). Events of all runs come in one stream, each with its `run`; files of reports have the version in
their names.
"""

import argparse
import queue
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mesh.cli.client import Client
from mesh.cli.output import note, painted
from mesh.cli.progress import PlainView, view
from mesh.cli.summary import print_summary, result
from mesh.cli.tally import Tally
from protocols.errors import UsageError

PYTHONS_MAX = 16
EVENTS_QUEUED_MAX = 1000
"""Events of all runs that wait to be shown; more make their streams wait."""

Told = tuple[str, dict[str, Any] | BaseException]
"""A run, and its next event or what ended its stream."""


class LabelledView(PlainView):
    """Lines of one run among others."""

    def __init__(self, tally: Tally, label: str) -> None:
        super().__init__(tally)
        self._label = label

    def say(self, line: str) -> None:
        print(f"{self._label}: {line}", flush=True)


def check_pythons(pythons: list[str]) -> list[str]:
    """Those of `--python`, each once, in their order."""
    found = list(dict.fromkeys(pythons))
    if len(found) > PYTHONS_MAX:
        raise UsageError(f"--python is given {len(found)} times, and {PYTHONS_MAX} is the limit")
    return found


def follow_all(args: argparse.Namespace, client: Client, runs: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """The `finished` event of each run, by its Python; `runs`: run -> Python. Ctrl-C cancels all of them."""
    tallies = {run: Tally(run) for run in runs}
    views = {
        run: view("off", True, tally) if args.json else LabelledView(tally, label(runs[run]))
        for run, tally in tallies.items()
        if args.json or args.progress != "off"
    }
    told: queue.Queue[Told] = queue.Queue(EVENTS_QUEUED_MAX)
    for run in runs:
        threading.Thread(target=_listen, args=(client, run, told), daemon=True).start()
        _show(views, run, {"event": "submitted", "run": run})
    try:
        _take_all(told, tallies, views)
    except KeyboardInterrupt:
        note("interrupted: cancelling the runs (again to leave at once)")
        for run, tally in tallies.items():
            if tally.finished is None:
                client.post(f"/api/runs/{run}/cancel", {})
        _take_all(told, tallies, views)
    if not args.json:
        _print_summaries(client, tallies, runs)
    for run, tally in tallies.items():
        assert tally.finished is not None
        if tally.finished["state"] == "error":
            note(f"mesh: {label(runs[run])}: run {run}: {tally.finished.get('reason') or 'it failed'}")
    return {runs[run]: tally.finished for run, tally in tallies.items() if tally.finished is not None}


def worst(finished: Mapping[str, dict[str, Any]]) -> int:
    """The exit code of all runs together."""
    return max(int(event["exit_code"]) for event in finished.values())


def label(python: str) -> str:
    return f"python {python}" if not python.startswith("/") else python


def in_name(path: Path, python: str) -> Path:
    """`path` for one version of several: "junit.xml" becomes "junit-3.12.xml", a directory "report-3.12"."""
    return path.with_name(f"{path.stem}-{python.strip('/').replace('/', '-')}{path.suffix}")


def _listen(client: Client, run: str, told: "queue.Queue[Told]") -> None:
    """In a thread: the events of one run, to its end."""
    try:
        for event in client.events(run):
            told.put((run, event))
    except BaseException as error:
        told.put((run, error))


def _take_all(told: "queue.Queue[Told]", tallies: Mapping[str, Tally], views: Mapping[str, Any]) -> None:
    while any(tally.finished is None for tally in tallies.values()):
        run, event = told.get()
        if isinstance(event, BaseException):
            raise event
        if not tallies[run].knows(event):
            tallies[run].feed(event)
            _show(views, run, event)


def _show(views: Mapping[str, Any], run: str, event: dict[str, Any]) -> None:
    if run in views:
        views[run].event(event)


def _print_summaries(client: Client, tallies: Mapping[str, Tally], runs: Mapping[str, str]) -> None:
    for run, tally in tallies.items():
        print(painted(f"\n{label(runs[run])} (run {run})", "bold"))
        print_summary(client, tally)
    print()
    width = max(len(label(python)) for python in runs.values())
    for run, tally in tallies.items():
        assert tally.finished is not None
        style = "red" if tally.finished["exit_code"] else "green"
        print(painted(f"{label(runs[run]):<{width}}  {result(tally.finished)}", style))

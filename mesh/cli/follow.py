"""Follow one run to its end: events into the tally and the view, then the summary. Shared by `run` and `watch`."""

import argparse
from pathlib import Path
from typing import Any

from mesh.cli.client import Client
from mesh.cli.output import note
from mesh.cli.progress import View, view
from mesh.cli.summary import print_summary
from mesh.cli.tally import Tally


def follow(args: argparse.Namespace, client: Client, run: str, cancel: bool, already: float = 0.0) -> dict[str, Any]:
    """The `finished` event. Ctrl-C cancels the run if `cancel`; if not, it only stops looking, and on a terminal the
    whole screen is the run's until then. `already`: seconds since the run's submission."""
    tally = Tally(run)
    shown = view(args.progress, args.json, tally, client, whole=not cancel, already=already)
    try:
        shown.event({"event": "submitted", "run": run})
        try:
            _until_finished(client, tally, shown)
        except KeyboardInterrupt:
            if not cancel:
                raise
            note(f"interrupted: cancelling run {run} (again to leave at once)")
            client.post(f"/api/runs/{run}/cancel", {})
            _until_finished(client, tally, shown)
    finally:
        shown.close()
    assert tally.finished is not None
    if not args.json:
        print_summary(client, tally)
    if tally.finished["state"] == "error":
        note(f"mesh: run {run}: {tally.finished.get('reason') or 'it failed'}")
    return tally.finished


def _until_finished(client: Client, tally: Tally, shown: View) -> None:
    """Takes up where the tally stands; what a stream that was taken up tells again is shown once."""
    for event in client.events(tally.run, tally.done):
        if not tally.knows(event):
            tally.feed(event)
            shown.event(event)


def save_report(client: Client, finished: dict[str, Any], junitxml: Path | None, directory: Path | None) -> None:
    """What `--junitxml` and `--report-dir` asked for."""
    report = finished.get("report")
    if not report:
        if junitxml or directory:
            note(f"run {finished['run']} ended without a report: nothing to write")
        return
    if junitxml is not None:
        partial = junitxml.with_name(junitxml.name + ".partial")
        with partial.open("wb") as file:
            file.writelines(client.read(report, "junit.xml"))
        partial.replace(junitxml)
    if directory is not None:
        client.post("/api/checkout", {"cid": report, "target": str(directory)})

"""`mesh results RUN|CID`: a report, from whichever nodes hold its blocks, as files, and as pages for people."""

import argparse
import json
import os
from pathlib import Path

from mesh.api.checks import parse_cid
from mesh.cli.arguments import vacant_directory
from mesh.cli.client import Client
from mesh.cli.output import print_document
from mesh.cli.reporting import choose, make_reports_of
from mesh.cli.session import connect
from protocols.errors import MeshFailed, UsageError

PAGES = ("html", "markdown")
"""Made beside what the report itself holds, for people to open."""

HELP = "Fetch the report of a run, or one by its CID, verify every block, and write it to DIR."


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("report", metavar="RUN|CID")
    parser.add_argument("-o", "--output", type=Path, metavar="DIR", help="default: mesh-report-RUN, here")
    parser.add_argument(
        "--report", dest="reports", action="append", default=[], metavar="KIND[:PATH]", help="as in mesh run"
    )


def run(args: argparse.Namespace) -> int:
    if not args.report.isdigit():
        try:
            parse_cid(args.report)
        except UsageError:
            raise UsageError(f"{args.report[:80]!r} is neither a run (a number) nor a report's CID (bafy…)") from None
    target = vacant_directory(args.output or Path(f"mesh-report-{args.report}"))
    wanted = choose(args.reports, (), target, os.environ)
    pages = choose((), PAGES, target, os.environ)
    client = connect(args)
    cid = report_of(client, args.report) if args.report.isdigit() else args.report
    client.post("/api/checkout", {"cid": cid, "target": str(target)})
    try:
        report = json.loads((target / "report.json").read_bytes())
    except (OSError, ValueError):
        raise UsageError(f"{cid} is content, now in {target}, but not a report: it has no report.json") from None
    make_reports_of(target, cid, pages, client, args.json, tell=False)
    code = make_reports_of(target, cid, wanted, client, args.json)
    if args.json:
        print_document({"report": cid, "directory": str(target), "counts": report["counts"]})
    else:
        counts = ", ".join(f"{count} {outcome}" for outcome, count in report["counts"].items() if count)
        print(f"{target}: {counts or 'no tests'}")
        for entry in sorted(target.iterdir()):
            print(f"  {entry.name}{'/' if entry.is_dir() else ''}")
    return code


def report_of(client: Client, run: str) -> str:
    """The CID of a finished run's report."""
    document = client.get(f"/api/runs/{run}")
    if not document.get("report"):
        raise MeshFailed(f"run {run} is {document['state']} and has no report (one comes with a run's end)")
    return str(document["report"])

"""`mesh logs RUN [TEST]`: what a run's tests printed, from their records; with -f, what they print while they run."""

import argparse
import sys
from typing import Any

from mesh.api.checks import parse_run
from mesh.cli.arguments import checked
from mesh.cli.client import Client
from mesh.cli.output import print_json
from mesh.cli.results import report_of
from mesh.cli.session import connect
from mesh.cli.summary import collection_output, print_record, read_report
from mesh.views import human
from protocols.errors import UsageError

HELP = """Print the captured output of TEST, or of all that failed. TEST is a test's ID, or a part of IDs.
With -f, follow what TEST, or any test, prints while it runs, on whatever node."""

FINAL = ("passed", "failed", "cancelled", "error")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=checked(parse_run), metavar="RUN")
    parser.add_argument("test", nargs="?", metavar="TEST")
    parser.add_argument("-f", "--follow", action="store_true", help="live, until the test or the run ends")


def run(args: argparse.Namespace) -> int:
    client = connect(args)
    if args.follow and client.get(f"/api/runs/{args.run}")["state"] not in FINAL:
        _follow(client, args)
        return 0
    cid = report_of(client, str(args.run))
    report = read_report(client, cid)
    if args.test is None and not report["tests"] and not args.json:
        print(collection_output(client, cid))
    for entry in _chosen(report["tests"], args.test, args.run):
        record = client.get(f"/api/records/{entry['record']}")
        if args.json:
            print_json(record)
        else:
            print_record(record)
    return 0


def _follow(client: Client, args: argparse.Namespace) -> None:
    """Each stream to its own; a line in the manner of `tail -f` says from which test, where that changes."""
    last = args.test
    for event in client.output(str(args.run), args.test or ""):
        if args.json:
            print_json(event)
            continue
        if event["test"] != last:
            last = event["test"]
            print(f"==> {human.clean(last)} <==", flush=True)
        if event["event"] == "output":
            stream = sys.stderr if event["stream"] == "stderr" else sys.stdout
            stream.write(event["text"].encode("utf-8", "backslashreplace").decode())
            stream.flush()
        else:
            print(f"{event['outcome']} in {event['duration']:.2f}s", flush=True)


def _chosen(tests: list[dict[str, Any]], wanted: str | None, run: int) -> list[dict[str, Any]]:
    if wanted is None:
        return [entry for entry in tests if entry["outcome"] in ("failed", "error")]
    exact = [entry for entry in tests if entry["test"] == wanted]
    found = exact or [entry for entry in tests if wanted in entry["test"]]
    if not found:
        raise UsageError(f"run {run} has no test {wanted!r}")
    return found

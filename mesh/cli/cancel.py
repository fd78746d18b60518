"""`mesh cancel RUN`."""

import argparse

from mesh.api.checks import parse_run
from mesh.cli.arguments import checked
from mesh.cli.output import print_document
from mesh.cli.session import connect

HELP = "Stop a run: its tests that are not done get no verdict."

ENDED = ("passed", "failed", "cancelled", "error")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=checked(parse_run), metavar="RUN")


def run(args: argparse.Namespace) -> int:
    client = connect(args)
    before = client.get(f"/api/runs/{args.run}")["state"]
    ended = before in ENDED
    if not ended:
        client.post(f"/api/runs/{args.run}/cancel", {})
    if args.json:
        print_document({"run": str(args.run), "cancelled": not ended, "state": before if ended else "cancelled"})
    else:
        print(f"run {args.run} had ended: {before}" if ended else f"run {args.run} is cancelled")
    return 0

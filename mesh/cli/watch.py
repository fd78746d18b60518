"""`mesh watch RUN`: follow a run from its first event on, whoever submitted it. Ctrl-C leaves the run alone."""

import argparse

from mesh.api.checks import parse_run
from mesh.cli.arguments import checked
from mesh.cli.follow import follow
from mesh.cli.progress import MODES
from mesh.cli.session import connect

HELP = "Follow a run to its end, with its exit code."


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=checked(parse_run), metavar="RUN")
    parser.add_argument("--progress", choices=MODES, default="auto", help="how to show progress")


def run(args: argparse.Namespace) -> int:
    client = connect(args)
    client.get(f"/api/runs/{args.run}")  # an unknown run is answered before anything is shown
    finished = follow(args, client, str(args.run), cancel=False)
    return int(finished["exit_code"])

"""`mesh watch [RUN]`: follow a run from its first event on, whoever submitted it; without one, the whole mesh. Ctrl-C
leaves the run alone."""

import argparse
import os
from pathlib import Path

from mesh.api.checks import parse_run
from mesh.cli.arguments import checked
from mesh.cli.progress import MODES
from mesh.cli.reporting import add_flag, choose, make_reports
from mesh.cli.session import connect
from mesh.cli.signals import termination_interrupts
from protocols.errors import UsageError

HELP = "Follow a run to its end, with its exit code; without RUN, watch the whole mesh until Ctrl-C."


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", nargs="?", type=checked(parse_run), metavar="RUN")
    parser.add_argument("--progress", choices=MODES, default="auto", help="how to show progress of a run")
    add_flag(parser)


def run(args: argparse.Namespace) -> int:
    if args.run is None:
        if args.report:
            raise UsageError("--report is made of a run: name the one to watch")
        from mesh.cli.mesh_watch import watch_mesh

        return watch_mesh(args)
    from mesh.cli.follow import follow

    wanted = choose(args.report, (), Path.cwd(), os.environ)
    client = connect(args)
    known = client.get(f"/api/runs/{args.run}")  # an unknown run is answered before anything is shown
    already = float(known.get("wall_seconds") or 0.0)
    with termination_interrupts():
        finished = follow(args, client, str(args.run), cancel=False, already=already)
    code = make_reports(client, finished, wanted, None, args.json)
    return int(finished["exit_code"]) or code

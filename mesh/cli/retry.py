"""`mesh retry RUN`: what went wrong, or has no verdict, runs again: a new run of the same bundle and options.

The tests are named by their IDs in a selection, which is content like the rest; so it works on any node, however many
they are. They are those of the run's own manifest: a test that collection has no more is simply not there.
"""

import argparse
import os
from pathlib import Path
from typing import Any

from mesh.api.checks import parse_run
from mesh.cli.arguments import checked
from mesh.cli.client import Client
from mesh.cli.companion import home_for_once
from mesh.cli.follow import follow
from mesh.cli.output import print_json
from mesh.cli.progress import MODES
from mesh.cli.reporting import add_flag, choose, make_reports
from mesh.cli.run import LATER, NONCE_BYTES
from mesh.cli.session import connect
from mesh.cli.signals import termination_interrupts
from mesh.cli.summary import read_report
from protocols.codec import decode, encode
from protocols.errors import UsageError
from protocols.manifests import Manifest, Selection

HELP = "Run again what failed, ended with an error, or has no verdict of a finished run: a new run."

GOOD = ("passed", "skipped", "xfailed", "xpassed")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=checked(parse_run), metavar="RUN")
    parser.add_argument("--detach", action="store_true", help="submit and leave; `mesh watch` follows")
    parser.add_argument("--progress", choices=MODES, default="auto", help="how to show progress")
    add_flag(parser)


def run(args: argparse.Namespace) -> int:
    if args.detach and args.report:
        raise UsageError(LATER)
    wanted = choose(args.report, (), Path.cwd(), os.environ)
    client = connect(args)
    before = client.get(f"/api/runs/{args.run}")
    spec = _spec(before)
    tests = _to_repeat(client, before)
    if tests is not None:
        if not tests:
            raise UsageError(f"nothing of run {args.run} failed or lacks a verdict: there is nothing to run again")
        with home_for_once(client.home) as folder:
            (folder / "selection").write_bytes(encode(Selection(tests)))
            spec["selection"] = client.add(folder / "selection")
    submitted = client.submit(os.urandom(NONCE_BYTES), spec)
    if args.detach:
        if args.json:
            print_json({"event": "submitted", "run": submitted})
        else:
            print(f"run {submitted} is submitted; `mesh watch {submitted}` follows it")
        return 0
    with termination_interrupts():
        finished = follow(args, client, submitted, cancel=True)
        code = make_reports(client, finished, wanted, None, args.json)
    return int(finished["exit_code"]) or code


def _spec(before: dict[str, Any]) -> dict[str, Any]:
    """The options of a run that is over."""
    if before["exit_code"] is None:
        raise UsageError(f"run {before['run']} is {before['state']}: it can be run again once it has ended")
    if not before.get("spec"):
        raise UsageError(f"run {before['run']} ended too long ago: only its report is kept, not its options")
    spec: dict[str, Any] = {name: value for name, value in before["spec"].items() if name != "trace"}
    return spec


def _to_repeat(client: Client, before: dict[str, Any]) -> tuple[str, ...] | None:
    """In the manifest's order; None for all of a run that was never collected, or that has no report."""
    if not (before["manifest"] and before["report"]):
        return None
    manifest = decode(b"".join(client.read(before["manifest"])), Manifest)
    report = read_report(client, before["report"])
    good = {entry["test"] for entry in report["tests"] if entry["outcome"] in GOOD}
    return tuple(test.id for test in manifest.tests if test.id not in good)

"""`mesh run`: submit, follow, summarise. Without a running node, on one that lives as long as this command."""

import argparse
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mesh.cli import reporting
from mesh.cli.arguments import checked, checked_home, output_path, seconds, slots, vacant_directory, whole
from mesh.cli.client import Client
from mesh.cli.coverage import report_coverage, wanted
from mesh.cli.follow import follow, save_report
from mesh.cli.matrix import check_pythons, follow_all, in_name, worst
from mesh.cli.output import note, print_json
from mesh.cli.progress import MODES
from mesh.cli.session import Joining, find, home_of, with_node
from mesh.cli.signals import termination_interrupts
from mesh.cli.submission import allowed_unseen, named_python, prepare
from mesh.scheduler.environments import ENVIRONMENTS
from protocols.errors import NodeUnavailable, UsageError
from protocols.manifests import PREEMPT_MODES, SHARE_MAX

HELP = """Run a suite on the mesh: PATH is a directory, a file or a test, pytest's arguments follow after '--'.
With --exec, run a shell command instead, once for each of the --each files where there are any."""

NONCE_BYTES = 16

LATER = "--report is made at a run's end, which --detach does not wait for: `mesh watch RUN --report` does"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.usage = "mesh run [PATH] [options] [-- PYTEST_ARGS]"
    parser.add_argument("path", nargs="?", metavar="PATH", help="what to run; default: the current directory")
    parser.add_argument("--exec", metavar="COMMAND", help="a shell command instead of pytest")
    parser.add_argument("--each", nargs="+", action="extend", metavar="FILE", help="files that {} of --exec stands for")
    parser.add_argument("--priority", type=whole(0, 100), default=50, metavar="N", help="0 to 100, default 50")
    parser.add_argument(
        "--share", type=whole(1, SHARE_MAX), default=1, metavar="N",
        help="parts of the slots, beside the other runs of its priority; default 1",
    )  # fmt: skip
    parser.add_argument(
        "--deadline", type=seconds, default=0.0, metavar="S",
        help="end the run, with what it has and exit code 12, S seconds after its submission; urgent before that",
    )  # fmt: skip
    parser.add_argument(
        "--preempt", choices=PREEMPT_MODES, default="grace",
        help="what it may take from runs of much lower priority: nothing; tests that wait; running ones after a grace; "
        "these at once",
    )  # fmt: skip
    parser.add_argument(
        "--after", type=whole(1, 2**31 - 1), action="append", default=[], metavar="RUN",
        help="start when that run has passed, with its report's CID in MESH_UPSTREAM_REPORT; may be repeated",
    )  # fmt: skip
    parser.add_argument("--test-type", default="", metavar="TYPE", help="such as model, hardware, api")
    parser.add_argument("--requires", default="", metavar="EXPR", help="such as 'gpu.memory >= 8GiB'")
    parser.add_argument("--prefers", default="", metavar="EXPR", help="the same, where there is a choice")
    parser.add_argument("--worker-count", type=whole(1, 2**31 - 1), default=0, metavar="N", help="at most N workers")
    parser.add_argument(
        "--retries",
        type=whole(0, 1000),
        default=0,
        metavar="N",
        help="more tries for a failed test, on other workers first",
    )
    parser.add_argument(
        "--hedge", action=argparse.BooleanOptionalAction, default=False,
        help="have a second worker run a test that takes far longer than expected, too; the first verdict counts",
    )  # fmt: skip
    parser.add_argument(
        "--cached", action=argparse.BooleanOptionalAction, default=False,
        help="tests that passed before take that verdict again while nothing that they read has changed; a sample runs",
    )  # fmt: skip
    parser.add_argument(
        "--cached-allow", type=checked(allowed_unseen), default=[], metavar="WHAT",
        help="reuse verdicts of tests that used these, too: network, files (outside of the tree), processes",
    )  # fmt: skip
    parser.add_argument("--timeout", dest="test_timeout", type=seconds, default=0.0, metavar="S", help="per test")
    parser.add_argument("--detach", action="store_true", help="submit and leave; `mesh watch` follows")
    parser.add_argument("--junitxml", type=Path, metavar="FILE", help="write the report's junit.xml there")
    parser.add_argument("--report-dir", type=Path, metavar="DIR", help="write the whole report there")
    reporting.add_flag(parser)
    parser.add_argument("-n", type=slots, default=None, metavar="N", help="slots, when no node runs here; or auto")
    parser.add_argument("--env", choices=ENVIRONMENTS, default="ambient", help="where the suite's packages come from")
    parser.add_argument(
        "--python",
        type=checked(named_python),
        action="append",
        metavar="3.12|PATH",
        help="the suite's Python; given more than once, a run for each",
    )
    parser.add_argument("--progress", choices=MODES, default="auto", help="how to show progress")
    parser.set_defaults(each=[], pytest_args=[], python=[])


def run(args: argparse.Namespace) -> int:
    return run_on(args, find(args))


def run_on(args: argparse.Namespace, running: Client | None, joining: Joining | None = None) -> int:
    """On the node that runs; without one, on one inside the command, alone or as a client of another mesh."""
    args.python = check_pythons(args.python)
    if args.home is not None:
        checked_home(args.home)
    if args.detach and args.report:
        raise UsageError(LATER)
    submission = prepare(args)
    pythons = args.python or [submission.spec["python"]]
    reports = reporting.choose(args.report, args.project.reports, args.project.root, os.environ)
    several = len(pythons) > 1
    outputs = {python: _outputs(args, reports, python if several else "", submission.root) for python in pythons}
    coverage = wanted(args.pytest_args)
    nonce = os.urandom(NONCE_BYTES)
    submitted: list[str] = []

    def work(client: Client) -> int:
        bundle = client.add(submission.root, submission.names)
        for number, python in enumerate(pythons):
            spec = {**submission.spec, "bundle": bundle, "python": python}
            submitted.append(client.submit(nonce + bytes([number]), spec))
        if args.detach:
            for run in submitted:
                _print_submitted(args, run)
            return 0
        if len(pythons) > 1:
            ended = follow_all(args, client, dict(zip(submitted, pythons, strict=True)))
            codes = [outputs[python].save(client, finished, args.json) for python, finished in ended.items()]
            return worst(ended) or max(codes)
        finished = follow(args, client, submitted[0], cancel=True)
        code = outputs[pythons[0]].save(client, finished, args.json)
        if coverage is not None and not (code and coverage.no_cov_on_fail):
            uncovered = report_coverage(client, finished, submission.root, coverage, args.json)
            code = code or uncovered
        _print_way(args, finished, inside=client is not running and joining is None)
        return code

    def interrupt(client: Client) -> None:
        note("interrupted: cancelling the run (again to leave at once)")
        if not submitted:
            raise KeyboardInterrupt
        for run in submitted:
            client.post(f"/api/runs/{run}/cancel", {})

    if running is not None:
        with termination_interrupts():
            return work(running)
    if args.detach:
        raise NodeUnavailable(f"--detach needs a running node, and none runs in {home_of(args)}: start one first")
    return with_node(args, args.n, work, interrupt, joining)


@dataclass(frozen=True, slots=True)
class Outputs:
    """Where a run's report goes, and what is made of it."""

    junitxml: Path | None
    directory: Path | None
    reports: list[reporting.Wanted]
    root: Path
    """The tree that was submitted."""

    def save(self, client: Client, finished: dict[str, Any], quiet: bool) -> int:
        """The exit code: the run's, or that of a report which could not be written, if the run passed."""
        save_report(client, finished, self.junitxml, self.directory)
        code = reporting.make_reports(client, finished, self.reports, self.root, quiet)
        return int(finished["exit_code"]) or code


def _outputs(args: argparse.Namespace, reports: list[reporting.Wanted], python: str, root: Path) -> Outputs:
    """`python`: which of several."""

    def rename(path: Path) -> Path:
        return in_name(path, python) if python else path

    return Outputs(
        output_path(rename(args.junitxml), ()) if args.junitxml else None,
        vacant_directory(rename(args.report_dir)) if args.report_dir else None,
        [wanted.named(rename) for wanted in reports],
        root,
    )


def _print_submitted(args: argparse.Namespace, run: str) -> None:
    if args.json:
        print_json({"event": "submitted", "run": run})
    else:
        print(f"run {run} is submitted; `mesh watch {run}` follows it")


def _print_way(args: argparse.Namespace, finished: dict[str, Any], inside: bool) -> None:
    """How to get at the report, where it stays to be got."""
    if not args.json and finished.get("report") and not inside:
        print(f"  mesh results {finished['run']} -o DIR   writes it out, on any node of the mesh")

"""Coverage of a run, for the submitter: what pytest-cov prints and writes at the end of a session.

Slots leave their data files among their tests' artifacts (see `pytest_side/coverages.py`). Here coverage.py itself
combines them, with the workers' checkouts mapped to the tree that was submitted, into `.coverage` at its root, and
makes the reports that `--cov-report` asks for.
"""

import argparse
import contextlib
import io
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from mesh.cli.client import Client
from mesh.cli.output import note
from mesh.reporters.coverage import combine
from protocols.errors import UsageError
from protocols.history import COVERAGE_DATA

EXIT_FAILED = 1
"""pytest-cov's, when `--cov-fail-under` is not reached."""


def wanted(arguments: Sequence[str]) -> argparse.Namespace | None:
    """pytest-cov's options among pytest's arguments; None if coverage is not asked for."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--cov", nargs="?", action="append", const="", default=[])
    parser.add_argument("--cov-report", action="append", default=[])
    parser.add_argument("--cov-config")
    parser.add_argument("--cov-fail-under", type=float)
    parser.add_argument("--cov-append", action="store_true")
    parser.add_argument("--no-cov", action="store_true")
    parser.add_argument("--no-cov-on-fail", action="store_true")
    try:
        options, _ = parser.parse_known_args(list(arguments))
    except SystemExit:
        raise UsageError("--cov-fail-under takes a number, and --cov-report a kind of report") from None
    return options if options.cov and not options.no_cov else None


def report_coverage(
    client: Client, finished: dict[str, Any], root: Path, options: argparse.Namespace, quiet: bool
) -> int:
    """The exit code that the coverage asks for: 0, or 1 if too little is covered. `quiet`: stdout is not for people."""
    try:
        import coverage
    except ImportError:
        note(
            "the run's coverage can't be combined here: there is no coverage.py beside mesh (its data is in the report)"
        )
        return 0
    if not finished.get("report"):
        return 0
    with contextlib.chdir(root):
        measured = coverage.Coverage(config_file=options.cov_config or True)
        if options.cov_append:
            measured.load()
        if not _combine(measured, client, finished["report"], root):
            note("no test left coverage data: is pytest-cov installed on the workers?")
            return 0
        with contextlib.suppress(coverage.exceptions.NoDataError):
            return _make_reports(measured, options, sys.stderr if quiet else sys.stdout)
        note("no line of what --cov names was run")
        return 0


def gather(client: Client, report: str, root: Path, data_file: Path) -> bool:
    """The run's data as one file more beside `data_file`, for pytest-cov to combine; whether there is any."""
    import coverage

    return _combine(coverage.Coverage(data_file=f"{data_file}.mesh"), client, report, root)


def _combine(measured: Any, client: Client, report: str, root: Path) -> bool:
    """Add what the run's slots measured, as measured in the tree here, and save it; whether there is any."""
    with tempfile.TemporaryDirectory(prefix="mesh-coverage-") as folder:
        target = Path(folder) / "report"
        client.post("/api/checkout", {"cid": report, "target": str(target)})
        if not combine(measured, (target / "artifacts").rglob(f"{COVERAGE_DATA}*"), root, root.name or "root"):
            return False
        measured.save()
        return True


def _make_reports(measured: Any, options: argparse.Namespace, screen: TextIO) -> int:
    total = None
    for asked in options.cov_report or ["term"]:
        kind, _, where = asked.partition(":")
        given = {"outfile": where} if where else {}
        match kind:
            case "term" | "term-missing":
                skip = where == "skip-covered" or None
                total = measured.report(show_missing=kind == "term-missing" or None, skip_covered=skip, file=screen)
            case "xml":
                total = measured.xml_report(**given)
            case "json":
                total = measured.json_report(**given)
            case "lcov":
                measured.lcov_report(**given)
            case "html":
                total = measured.html_report(**({"directory": where} if where else {}))
            case "annotate":
                measured.annotate(directory=where or None)
            case "":
                pass
            case _:
                raise UsageError(f"--cov-report={asked} is no kind of report; known are term, xml, json, lcov, html")
        if kind in ("xml", "json", "lcov", "html"):
            note(f"coverage: {kind} is written")
    least = options.cov_fail_under if options.cov_fail_under is not None else measured.get_option("report:fail_under")
    if not least:
        return 0
    if total is None:
        total = measured.report(file=io.StringIO())
    if total >= least:
        return 0
    note(f"coverage failure: total of {total:.2f} is less than fail-under={least:g}")
    return EXIT_FAILED

"""`coverage`: what the run's slots measured (`--cov`), combined by coverage.py itself: `coverage.xml`, `coverage.lcov`,
and `html/`.

Slots leave their data among their tests' artifacts. Sources are those of the tree that was submitted: here if it is
here, else as the run had it. The tree's own settings of coverage.py hold (branches, omitted files, contexts), but for
those by which a tree from elsewhere would have code run, or files written, outside of it.
"""

import contextlib
import io
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mesh.reporters.model import NothingToReport, Output, Report, Written
from protocols.history import COVERAGE_DATA


def combine(measured: Any, files: Iterable[Path], root: Path, name: str) -> bool:
    """Add what slots measured in workers' checkouts of the tree `name`, as measured in `root`; whether there is any."""
    found = sorted(str(path) for path in files)
    if not found:
        return False
    measured.set_option("paths", {"tree": [str(root), f"*/bundles/*/{name}"]})
    measured.combine(found, keep=True)
    return True


def opened(root: Path, data_file: Path, settings: str = "", ours: bool = True) -> Any:
    """A `coverage.Coverage` for the tree `root`, which is the current directory. `settings`: `--cov-config`, if there
    is one in the tree. `ours`: the tree is the user's own."""
    import coverage

    named = bool(settings) and (root / settings).resolve().is_relative_to(root.resolve())
    measured = coverage.Coverage(config_file=settings if named else True, data_file=str(data_file))
    if not ours:
        for option, value in (("run:plugins", []), ("run:debug", []), ("run:debug_file", None)):
            measured.set_option(option, value)
    return measured


class Coverage:
    target = "coverage/"

    def outputs(self, report: Report) -> Iterable[Output]:
        try:
            import coverage
        except ImportError:
            raise NothingToReport("there is no coverage.py beside mesh") from None
        files = report.files.artifacts(COVERAGE_DATA)
        if not files:
            raise NothingToReport(
                "no test left coverage data: was the run's pytest given --cov, and is pytest-cov installed?"
            )
        document = report.document
        root = Path(report.root) if report.root else report.files.tree(document["bundle"], document["name"])
        if root is None:
            raise NothingToReport("the sources are not here, and no node that has them")
        with tempfile.TemporaryDirectory(prefix="mesh-coverage-") as folder, contextlib.chdir(root):
            made = Path(folder)
            measured = opened(root, made / "data", ours=bool(report.root))
            combine(measured, files, root, root.name or "root")
            try:
                measured.xml_report(outfile=str(made / "coverage.xml"))
                measured.lcov_report(outfile=str(made / "coverage.lcov"))
                measured.html_report(directory=str(made / "html"))
            except coverage.exceptions.NoDataError:
                raise NothingToReport("no line of what --cov names was run") from None
            yield from _written(made, root, here=bool(report.root))


def _written(made: Path, root: Path, here: bool) -> Iterator[Output]:
    """The files; those of sources that are here for this moment only name none but their own places."""
    xml = (made / "coverage.xml").read_bytes()
    yield Written([xml if here else xml.replace(str(root).encode(), b".")], "coverage.xml")
    yield Written([(made / "coverage.lcov").read_bytes()], "coverage.lcov")
    for path in sorted((made / "html").iterdir()):
        if path.name != ".gitignore":
            yield Written([path.read_bytes()], f"html/{path.name}")


COVERAGE = Coverage()


def main() -> None:
    """Print the percentage that the data files in a directory cover of a tree, which is the current directory:
    `DATA NAME SETTINGS`, NAME being what the tree was called on the workers. An error is a traceback."""
    data, name, settings = sys.argv[1:]
    root = Path.cwd()
    measured = opened(root, Path(data) / "combined", settings, ours=False)
    combine(measured, Path(data).glob(f"{COVERAGE_DATA}*"), root, name)
    print(measured.report(file=io.StringIO()))

"""`coverage`: what the run's slots measured (`--cov`), combined by coverage.py itself: `coverage.xml`, `coverage.lcov`,
and `html/`.

Slots leave their data among their tests' artifacts. Sources are those of the tree that was submitted: here if it is
here, else as the run had it. The tree's own settings of coverage.py hold (branches, omitted files, contexts).
"""

import contextlib
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from mesh.reporters.model import NothingToReport, Output, Report, Written

DATA = ".coverage."
"""How the names of data files begin."""


def combine(measured: Any, files: Iterable[Path], root: Path, name: str) -> bool:
    """Add what slots measured in workers' checkouts of the tree `name`, as measured in `root`; whether there is any."""
    found = sorted(str(path) for path in files)
    if not found:
        return False
    measured.set_option("paths", {"tree": [str(root), f"*/bundles/*/{name}"]})
    measured.combine(found, keep=True)
    return True


class Coverage:
    target = "coverage/"

    def outputs(self, report: Report) -> Iterable[Output]:
        try:
            import coverage
        except ImportError:
            raise NothingToReport("there is no coverage.py beside mesh") from None
        files = report.files.artifacts(DATA)
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
            measured = coverage.Coverage(config_file=True, data_file=str(made / "data"))
            if not report.root:  # a tree from elsewhere names no code that is run here
                measured.set_option("run:plugins", [])
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

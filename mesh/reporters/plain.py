"""`junit` and `json`: documents that the report itself holds, where other tools look for them."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

from mesh.reporters.model import Output, Report, Written


@dataclass(frozen=True, slots=True)
class Copied:
    """One of the report's own files, as it is."""

    target: str

    def outputs(self, report: Report) -> Iterable[Output]:
        lines = report.files.lines(self.target)
        first = next(lines, None)
        return [] if first is None else [Written(itertools.chain([first], lines))]


JUNIT = Copied("junit.xml")
JSON = Copied("report.json")

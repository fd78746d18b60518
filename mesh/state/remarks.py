"""What a report says of its records beside their verdicts: warnings, told once each, and tests that did not pass at
once. Pure; fed record by record, bounded whatever the records hold.
"""

from typing import Any

from mesh.state.model import Run
from protocols.ids import TestIndex
from protocols.manifests import Outcome, Record

WARNINGS_MAX = 200
"""Different warnings that a report names; more are only counted."""
TESTS_PER_WARNING_MAX = 5


class Remarks:
    """Fed with all records of one run, in the manifest's order."""

    def __init__(self, run: Run) -> None:
        passed = Outcome.PASSED.code
        self.flaky: set[int] = {test for test in run.retried if run.outcomes[test] == passed}
        """Passed in a later try: of the mesh (`--retries`), or within one attempt (pytest-rerunfailures)."""
        self._warnings: dict[str, tuple[list[str], int]] = {}
        """Text -> (the first tests that gave it, how often it was given)."""
        self._total = 0

    def add(self, index: TestIndex, record: Record) -> None:
        if record.flaky:
            self.flaky.add(index)
        for text in record.warnings:
            self._total += 1
            if text not in self._warnings and len(self._warnings) >= WARNINGS_MAX:
                continue
            tests, count = self._warnings.setdefault(text, ([], 0))
            if len(tests) < TESTS_PER_WARNING_MAX and record.test not in tests:
                tests.append(record.test)
            self._warnings[text] = (tests, count + 1)

    def warnings(self) -> dict[str, Any] | None:
        """`warnings.json`; None if there was no warning."""
        if not self._total:
            return None
        told = [{"text": text, "count": count, "tests": tests} for text, (tests, count) in self._warnings.items()]
        return {"total": self._total, "warnings": told}

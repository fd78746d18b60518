"""What a report says of its records beside their verdicts: warnings, told once each, and tests that did not pass at
once, or not everywhere. Pure; fed record by record, bounded whatever the records hold.
"""

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from mesh.state.model import Run
from mesh.state.truth import Told, Truth, Try, earlier_tries, truth
from protocols.ids import Cid, PeerId, TestIndex
from protocols.manifests import CollectedTest, Record

RETRIED_MAX = 200
"""Tests that were tried again that `retried.json` names; all stand in `report.json`."""
WARNINGS_MAX = 200
"""Different warnings that a report names; more are only counted."""
TESTS_PER_WARNING_MAX = 5


class Remarks:
    """Fed with all records of one run, in the manifest's order."""

    def __init__(self, run: Run) -> None:
        self.tried: dict[int, Told] = {}
        """Tests that were tried more than once: by the mesh (`--retries`), or in one attempt (pytest-rerunfailures)."""
        self._retried = run.retried
        self._earlier = earlier_tries(run)
        self._warnings: dict[str, tuple[list[str], int]] = {}
        """Text -> (the first tests that gave it, how often it was given)."""
        self._total = 0

    def add(
        self, index: TestIndex, record: Record, last: Try, records: Mapping[int, Cid] = MappingProxyType({})
    ) -> None:
        """`last`: the try with the test's verdict. `records`: those of its earlier tries, by number."""
        if record.reruns or index in self._retried:
            earlier = (dataclasses.replace(one, record=records.get(one.number)) for one in self._earlier.get(index, ()))
            tries = (*earlier, last)
            self.tried[index] = Told(truth(tries) or Truth.FLAKY, tries)
        for text in record.warnings:
            self._total += 1
            if text not in self._warnings and len(self._warnings) >= WARNINGS_MAX:
                continue
            tests, count = self._warnings.setdefault(text, ([], 0))
            if len(tests) < TESTS_PER_WARNING_MAX and record.test not in tests:
                tests.append(record.test)
            self._warnings[text] = (tests, count + 1)

    def retried(self, tests: Sequence[CollectedTest], names: Mapping[PeerId, str]) -> dict[str, Any] | None:
        """`retried.json`; None if nothing was tried again."""
        if not self.tried:
            return None
        counts = Counter(told.truth.value for told in self.tried.values())
        told = sorted(self.tried.items())[:RETRIED_MAX]
        return {
            "counts": {one.value: counts[one.value] for one in Truth},
            "tests": [{"test": tests[index].id, **one.document(names)} for index, one in told],
        }

    def warnings(self) -> dict[str, Any] | None:
        """`warnings.json`; None if there was no warning."""
        if not self._total:
            return None
        told = [{"text": text, "count": count, "tests": tests} for text, (tests, count) in self._warnings.items()]
        return {"total": self._total, "warnings": told}

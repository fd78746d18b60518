"""The plugin that listens for what a client's own pytest will be told again (see `telling`).

Of a test that passed without a word it keeps nothing: a few numbers tell all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from _mesh_pytest_side import telling


class Teller:
    def __init__(self, root: str) -> None:
        self._root = root
        self._reports: list[Any] = []
        """Of the test under way."""
        self._warnings: list[dict[str, Any]] = []
        self._collect_reports: list[Any] = []
        """Those that did not pass."""
        self._collect_warnings: list[dict[str, Any]] = []
        self._deselected = 0

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logreport(self, report: Any) -> None:
        self._reports.append(report)

    def pytest_warning_recorded(self, warning_message: Any, when: str, nodeid: str, location: Any) -> None:
        kept = self._warnings if when == "runtest" else self._collect_warnings if when == "collect" else None
        if kept is not None and len(kept) < telling.WARNINGS_MAX:
            kept.append(telling.warning(warning_message, nodeid, location))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if not report.passed:
            self._collect_reports.append(report)

    def pytest_deselected(self, items: Sequence[Any]) -> None:
        self._deselected += len(items)

    def begin(self) -> None:
        """The next test begins."""
        self._reports.clear()
        self._warnings.clear()

    @property
    def silent(self) -> bool:
        """Whether the test that just ended had no warning, and no report an attribute of its own."""
        return not self._warnings and all(telling.PLAIN.issuperset(vars(report)) for report in self._reports)

    def told(self, config: pytest.Config) -> bytes:
        """Everything of the test that just ended, packed; empty if it can't be: its verdict does not depend on it."""
        try:
            if telling.too_much(self._reports):
                return b""
            reports = telling.serialisable(config, self._reports)
            more = {"failed_subtests": failed} if (failed := failed_subtests(config, self._reports)) else {}
            return telling.pack(self._root, reports, self._warnings, **more)
        except Exception:  # of a plugin's own report, or of what a test hung on it
            return b""

    def notes(self, config: pytest.Config, items: Sequence[pytest.Item]) -> bytes:
        """Everything of the collection beside its tests, packed."""
        known: dict[tuple[int, str], Any] = {}
        return telling.pack_notes(
            {
                "root": self._root,
                "reports": telling.serialisable(config, self._collect_reports),
                "warnings": self._collect_warnings,
                "deselected": self._deselected,
                "lines": [telling.line(item, known) for item in items],
            }
        )


def failed_subtests(config: Any, reports: Sequence[Any]) -> int:
    """How many sub-tests of a test failed, as pytest itself (9 and later) counts them."""
    try:
        from _pytest.subtests import failed_subtests_key
    except ImportError:
        return 0
    counted = config.stash.get(failed_subtests_key, {})
    return counted.get(getattr(reports[0], "id", None), 0) if reports else 0

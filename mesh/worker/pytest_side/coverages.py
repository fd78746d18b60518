"""Coverage that pytest-cov measures in a slot, on its way to the submitter as an artifact of a test.

A slot may be killed at any time and a run ends with its last verdict, so data that waits for the end of the slot would
be lost. It is saved when nothing follows the test that has just ended, and now and then in between: before that test is
reported, as a file `.coverage.…` among its artifacts. What the test's process has measured since the last save dies
with it, as it does with an xdist worker that crashes. Rejected: a file for each test (saving takes longer than most
tests do). pytest-cov's own end of session must not write into the tree, nor report: the submitter's side does that.
"""

from __future__ import annotations

import os
import time
from typing import Any

import pytest

SAVE_SECONDS = 2.0
"""Between two saves while tests follow each other."""


def in_folder(folder: str) -> None:
    """Before pytest is configured: data files go there."""
    os.environ["COVERAGE_FILE"] = os.path.join(folder, ".coverage")


def quieten(config: pytest.Config) -> None:
    """After that: no report here. Without pytest-cov at work the variable would only disturb the suite."""
    plugin: Any = config.pluginmanager.getplugin("_cov")
    if plugin is None:
        os.environ.pop("COVERAGE_FILE", None)
        return
    plugin.options.cov_report = {}
    plugin.options.cov_fail_under = None


class Coverage:
    """That of one slot; nothing is done where pytest-cov does not measure."""

    def __init__(self, config: pytest.Config, name: str) -> None:
        controller = getattr(config.pluginmanager.getplugin("_cov"), "cov_controller", None)
        self._measured: Any = getattr(controller, "cov", None)
        self._name = name
        self._saved = time.monotonic()
        self._clock = time.monotonic
        self._number = 0
        if self._measured is not None:
            for warning in ("_warn_no_data", "_warn_unimported_source", "_warn_preimported_source"):
                setattr(self._measured, warning, False)

    def save(self, folder: str, last: bool) -> bool:
        """Move what was measured into a file in `folder`, if it is time to; whether there is one. `last`: no test that
        is known follows."""
        if self._measured is None or not (last or self._clock() - self._saved > SAVE_SECONDS):
            return False
        self._measured.stop()
        try:
            data = self._measured.get_data()
            path = data.data_filename()
            data.close()
            there = os.path.exists(path)
            if there:
                os.makedirs(folder, exist_ok=True)
                self._number += 1
                with open(path, "rb") as source, open(f"{folder}/.coverage.{self._name}.{self._number}", "wb") as kept:
                    kept.write(source.read())
            data.erase()
        finally:
            self._measured.start()
            self._saved = self._clock()
        return there

"""Which inputs a test has: what was read while it ran, and what it rests on.

It rests on its own module, the conftests over it, and all that their imports read; on what pytest read before it looked
for tests (its configuration, plugins); and on what the fixtures that it uses read when they were set up, which may have
been for another test.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import pytest
from _mesh_pytest_side import reads, wire

INPUTS_MAX = 50_000
"""Of one test; one that reads more is not known to have read nothing else."""

GLOBAL_HOOKS = (
    *("pytest_addoption", "pytest_configure", "pytest_load_initial_conftests", "pytest_cmdline_main"),
    *("pytest_sessionstart", "pytest_collection", "pytest_collection_modifyitems", "pytest_collection_finish"),
    *("pytest_plugin_registered", "pytest_runtestloop"),
)
"""A conftest with one of these concerns tests of other directories, too."""


class Attribution:
    """A plugin of the process's pytest."""

    def __init__(self, root: str, own: str) -> None:
        self._recorder = reads.Recorder(root, [own])
        self._fixtures: dict[Any, frozenset[str]] = {}
        """What each fixture of a scope wider than a function read when it was set up last."""
        self._used: list[Any] = []
        """Such fixtures that the test under way uses."""
        self._bases: dict[tuple[str, int, int], frozenset[str]] = {}
        self._numbers: dict[str, int] = {}
        """Of the entries that the node knows already."""
        self._sets: dict[frozenset[str], int] = {}

    def start(self) -> None:
        self._recorder.start()

    def pause(self) -> None:
        """Nothing is anybody's until the next test, or the next file that is collected."""
        self._recorder.listening = False

    def owns(self, folder: str) -> None:
        self._recorder.owns(folder)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_make_collect_report(self, collector: pytest.Collector) -> Iterator[None]:
        """What a file's collection reads is that file's; what is read to find files decides about no verdict."""
        path = self._recorder.inside(str(collector.path))
        is_file = path is not None and not collector.path.is_dir()
        sink = self._recorder.of_module(path) if path is not None and is_file else set()
        with self._recorder.reading_for(sink, is_shared=is_file):
            return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_fixture_setup(self, fixturedef: Any, request: Any) -> Iterator[Any]:
        if fixturedef.scope == "function" or not self._recorder.listening:
            return (yield)
        read: set[str] = set()
        try:
            with self._recorder.reading_for(read):
                return (yield)
        finally:
            for other in used_fixtures(request):
                read |= self._fixtures.get(other, frozenset())
            self._fixtures[fixturedef] = frozenset(read)
            self._used.append(fixturedef)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> None:
        self._used += used_fixtures(getattr(item, "_request", None) or getattr(item, "fixture_request", None))

    def collecting(self) -> Any:
        """While a slot collects a file in the middle of a test."""
        return self._recorder.reading_for(self._recorder.session, is_shared=True)

    @contextlib.contextmanager
    def of_test(self) -> Iterator[set[str]]:
        """What is read within this context is the test's."""
        self._used = []
        read: set[str] = set()
        with self._recorder.reading_for(read):
            yield read

    def frame(self, key: int, item: pytest.Item, read: set[str]) -> bytes:
        """What tells the node of a test's inputs, of each entry and set but once; empty if there are too many."""
        try:
            inputs = self._inputs(item, read)
        except Exception:  # an item of a plugin's own kind: nobody knows what it rests on
            return b""
        if inputs is None or len(inputs) > INPUTS_MAX:
            return b""
        known = self._sets.get(inputs)
        if known is not None:
            return wire.pack_inputs({"key": key, "set": known})
        new = [entry for entry in inputs if entry not in self._numbers]
        for entry in new:
            self._numbers[entry] = len(self._numbers)
        number = self._sets[inputs] = len(self._sets)
        return wire.pack_inputs(
            {"key": key, "set": number, "names": new, "numbers": sorted(self._numbers[entry] for entry in inputs)}
        )

    def _inputs(self, item: pytest.Item, read: set[str]) -> frozenset[str] | None:
        base = self._base(item)
        if base is None:
            return None
        more = set(read)
        for fixture in self._used:
            more |= self._fixtures.get(fixture, frozenset())
        if more <= base:
            return base
        return base | self._recorder.closure(more)

    def _base(self, item: pytest.Item) -> frozenset[str] | None:
        """What every test of the item's file rests on."""
        recorder = self._recorder
        own = recorder.inside(str(item.path))
        if own is None:
            return None
        conftests = item.config.pluginmanager._conftest_plugins
        key = (own, recorder.version, len(conftests))
        known = self._bases.get(key)
        if known is None:
            entries = {f"file:{own}", *recorder.session}
            module = getattr(item, "module", None)
            if module is not None:
                entries |= recorder.packages_of(module.__name__)
            for conftest in conftests:
                entries |= self._of_conftest(conftest, own)
            known = frozenset(recorder.closure(entries))
            self._bases = {other: one for other, one in self._bases.items() if other[1:] == key[1:]}
            self._bases[key] = known
        return known

    def _of_conftest(self, conftest: Any, own: str) -> set[str]:
        path = self._recorder.inside(conftest.__file__)
        if path is None:
            return {f"files:{conftest.__file__}"}
        folder = os.path.dirname(path)
        over = not folder or own.startswith(folder + "/")
        if not over and not any(hook in vars(conftest) for hook in GLOBAL_HOOKS):
            return set()
        return {f"file:{path}"} | self._recorder.packages_of(conftest.__name__)


def used_fixtures(request: Any) -> list[Any]:
    """Those of a scope wider than a function that a request, and those that it came from, have got so far."""
    found = getattr(request, "_fixture_defs", None) or {}
    return [fixture for fixture in found.values() if fixture.scope != "function"]

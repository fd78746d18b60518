"""`make mutants`: take out one fence at a time, and show what notices.

A mutant is a cut in the source of a module, made while a fresh process imports it; a cut whose text is not found (once)
is an error, so that the registries can't go stale unseen: `fences_core` and `fences_services`. Each mutant names its
detectors: seeds of a rig, or tests. One of them must fail, or the checks are too weak and the mutant is reported.
"""

import argparse
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from types import CodeType

MUTANT_SECONDS_MAX = 900
"""A mutant that hangs its detectors is not noticed by them."""
FAST = ("acknowledge before the sync", "append behind an entry of another term", "heartbeats carry any commit index")
"""Of a few seeds each: they run with the suite."""


@dataclass(frozen=True, slots=True)
class Seeds:
    """0 to `count` - 1 of a rig."""

    rig: str
    count: int


@dataclass(frozen=True, slots=True)
class Tests:
    arguments: tuple[str, ...]
    """Of pytest."""


@dataclass(frozen=True, slots=True)
class Mutant:
    name: str
    module: str
    fence: str
    """What stands in the source, once."""
    gap: str
    """What stands there instead."""
    detectors: tuple[Seeds | Tests, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    mutant: str
    by: str
    """The detector that failed; empty: none did."""
    after: str
    said: str
    seconds: float


def registry() -> dict[str, Mutant]:
    from tests.simulation import fences_core, fences_services

    mutants = [*fences_core.MUTANTS, *fences_services.MUTANTS]
    assert len({mutant.name for mutant in mutants}) == len(mutants)
    return {mutant.name: mutant for mutant in mutants}


class Surgeon(importlib.abc.MetaPathFinder):
    """Imports one module with its cut."""

    def __init__(self, mutant: Mutant) -> None:
        self._mutant = mutant

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: object = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != self._mutant.module:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        assert spec is not None
        assert spec.origin is not None
        spec.loader = _Cut(name, spec.origin, self._mutant)
        return spec


class _Cut(importlib.machinery.SourceFileLoader):
    def __init__(self, name: str, path: str, mutant: Mutant) -> None:
        super().__init__(name, path)
        self._mutant = mutant

    def get_code(self, fullname: str) -> CodeType:
        source = self.get_data(self.path).decode()
        count = source.count(self._mutant.fence)
        if count != 1:
            raise LookupError(f"{self._mutant.name}: its fence stands {count} times in {fullname}")
        return compile(source.replace(self._mutant.fence, self._mutant.gap), self.path, "exec")


def operate(mutant: Mutant) -> Finding:
    """In a fresh process: cut, and try the detectors in turn."""
    assert mutant.module not in sys.modules, "too late for a cut"
    sys.meta_path.insert(0, Surgeon(mutant))
    importlib.import_module(mutant.module)
    start = time.monotonic()
    for detector in mutant.detectors:
        found = _seeds(detector) if isinstance(detector, Seeds) else _tests(detector)
        if found is not None:
            return Finding(mutant.name, *found, time.monotonic() - start)
    return Finding(mutant.name, "", "", "", time.monotonic() - start)


def _seeds(detector: Seeds) -> tuple[str, str, str] | None:
    from tests.simulation.simulate import rig_of

    run = rig_of(detector.rig)
    for seed in range(detector.count):
        try:
            run(seed)
        except Exception as error:
            said = str(error).splitlines() or [""]
            return f"{detector.rig} seeds", f"{seed + 1} seeds", f"{type(error).__name__}: {said[0]}"
    return None


def _tests(detector: Tests) -> tuple[str, str, str] | None:
    import pytest

    class Watcher:
        failed = ""

        def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
            if report.failed:
                self.failed = self.failed or report.nodeid

    watcher = Watcher()
    with redirect_stdout(StringIO()):
        pytest.main(["-x", "-q", *detector.arguments], plugins=[watcher])
    return ("tests", "", watcher.failed) if watcher.failed else None


def apart(name: str) -> Finding:
    """In a process of its own."""
    start = time.monotonic()
    command = [sys.executable, "-m", "tests.simulation.mutants", "--one", name]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=MUTANT_SECONDS_MAX, check=False)
    except subprocess.TimeoutExpired:
        return Finding(name, "", "", f"nothing ends within {MUTANT_SECONDS_MAX} s", time.monotonic() - start)
    if done.returncode:
        raise RuntimeError(f"mutant {name!r}: {done.stderr[-2000:]}")
    return Finding(**json.loads(done.stdout.splitlines()[-1]))


def operate_on(names: Iterable[str], processes: int) -> list[Finding]:
    findings = []
    with ThreadPoolExecutor(processes) as pool:
        for found in pool.map(apart, names):
            findings.append(found)
            caught = f"{found.by:<10} {found.after:<9} {found.seconds:6.1f} s  {found.said}"
            print(f"{found.mutant:<42} {caught if found.by else f'NOT NOTICED {found.said}'}", flush=True)
    return findings


def main() -> int:
    parser = argparse.ArgumentParser(description="take out one fence at a time")
    parser.add_argument("names", nargs="?", default="", help="of mutants, with commas between them; all, unless told")
    parser.add_argument("--one", help="in this process, as JSON")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    mutants = registry()
    if options.one:
        found = operate(mutants[options.one])
        print(json.dumps({name: getattr(found, name) for name in Finding.__slots__}))
        return 0
    wanted = [name.strip() for name in options.names.split(",") if name.strip()]
    findings = operate_on(wanted or mutants, options.processes)
    unnoticed = [found.mutant for found in findings if not found.by]
    print(f"{len(findings) - len(unnoticed)} of {len(findings)} fences are missed when they are gone")
    return 1 if unnoticed else 0


if __name__ == "__main__":
    from tests.simulation import mutants  # by its own name, for the registries' sake

    sys.exit(mutants.main())

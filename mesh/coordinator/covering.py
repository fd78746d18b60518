"""What a run covered, for its report: coverage.py's own total over what the run's slots measured (`--cov`).

It is told once, where the report is made, so that every voter's history has the same number and has it again from the
report. A process of its own works it out: it reads what suites and workers have made, it can be killed, and nothing of
the tree is run in it. A run's end does not wait for it beyond a bound. Rejected: the submitter tells it (one that
detached has none to tell), each voter works it out (as often as there are voters).
"""

import importlib.util
import json
import logging
import os
import sys
from collections.abc import AsyncIterator, Iterable, Sequence
from itertools import pairwise
from pathlib import Path

import trio

import mesh
from mesh.entries import NamedContent
from mesh.ports import Content
from mesh.state.model import Run
from protocols.errors import MeshError
from protocols.history import COVERAGE_DATA
from protocols.ids import Cid

log = logging.getLogger(__name__)

COVERAGE_SECONDS = 30.0
"""For which a run's end waits for the number."""

DATA_BYTES_MAX = 512 * 2**20
"""Of the data files together."""

NAMES_MAX = 4_096
"""Looked at among what one test left."""

PROGRAM = "import sys; sys.path.append(sys.argv.pop(1)); from mesh.reporters.coverage import main; main()"
"""What is installed beside mesh goes before mesh's own directory."""


async def covered(content: Content, run: Run, artifacts: Iterable[Cid], folder: Path) -> bytes | None:
    """The report's `coverage.json`; None: nothing was measured, or the number can't be had here in time. `artifacts`:
    directories of what tests left, which are here; `folder`: where there is room until the report is made."""
    with trio.move_on_after(COVERAGE_SECONDS):
        try:
            found = [one async for one in _measured(content, artifacts)]
            if not found:
                return None
            if importlib.util.find_spec("coverage") is None:
                log.info("what run %d covered is not told: there is no coverage.py beside mesh", run.id)
                return None
            percent = await _total(content, run, found, folder)
            return None if percent is None else json.dumps({"percent": percent}).encode()
        except (MeshError, OSError) as error:
            log.warning("what run %d covered is not told: %s", run.id, error)
            return None
    log.warning("what run %d covered is not told: it takes longer than %d s", run.id, COVERAGE_SECONDS)
    return None


async def _measured(content: Content, artifacts: Iterable[Cid]) -> AsyncIterator[NamedContent]:
    for directory in artifacts:
        for one in await content.entries(directory, NAMES_MAX):
            if one.name.startswith(COVERAGE_DATA):
                yield one


async def _total(content: Content, run: Run, found: Sequence[NamedContent], folder: Path) -> float | None:
    """In percent; None: coverage.py says none."""
    size = sum(one.tsize for one in found)
    if size > DATA_BYTES_MAX:
        log.info("what run %d covered is not told: there are %d bytes of data", run.id, size)
        return None
    data, tree = folder / "coverage", folder / "tree" / run.spec.name
    data.mkdir()
    tree.parent.mkdir()
    for number, one in enumerate(found):
        with (data / f"{COVERAGE_DATA}{number}").open("wb") as file:
            async for part in content.read(one.cid):
                file.write(part)
    await content.fetch(run.spec.bundle, (run.spec.submitter, *run.workers), COVERAGE_SECONDS)
    await content.checkout(run.spec.bundle, tree)
    ours = str(Path(mesh.__file__).parent.parent)
    done = await trio.run_process(
        [sys.executable, "-I", "-c", PROGRAM, ours, str(data), run.spec.name, _settings(run.spec.arguments)],
        cwd=tree,
        env={name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")},
        capture_stdout=True,
        capture_stderr=True,
        check=False,
    )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        log.info("what run %d covered is not told: %s", run.id, said)
        return None
    return float(done.stdout)


def _settings(arguments: Sequence[str]) -> str:
    """pytest-cov's `--cov-config`; empty: not given."""
    found = ""
    for before, word in pairwise(("", *arguments)):
        if before == "--cov-config":
            found = word
        elif word.startswith("--cov-config="):
            found = word.partition("=")[2]
    return found

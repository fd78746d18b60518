"""Coverage of a run on several slots: its data, combined as `mesh run -- --cov` does, is that of a plain run."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mesh.cli.coverage import report_coverage, wanted
from mesh.content.store import EmbeddedContent
from mesh.coordinator.covering import covered
from mesh.past.covered import coverage
from mesh.ports import Finished
from mesh.state.model import Run
from mesh.worker.runner import PytestRunner
from protocols.history import COVERAGE_FILE
from protocols.ids import PeerId, RunId
from protocols.manifests import RunSpec
from tests.content.content_nodes import node_maker
from tests.worker.runner_harness import collect, job, take, work, write

PROJECT = {
    ".coveragerc": "[run]\nbranch = true\n",
    "other.cfg": "[run]\nplugins = nosuch\ndebug_file = ../written\n[report]\nexclude_also = def never\n",
    "pkg/__init__.py": """
        import os
        def size(x):
            if x > 1:
                return "big"
            if x < -5:
                return "tiny"
            return "small"
        def never():
            return 1
        """,
    "pkg/unused.py": "def f(): ...\n",
    "test_a.py": "import pkg\ndef test_big(): assert pkg.size(5) == 'big'\n",
    "test_b.py": "import pkg\ndef test_tiny(): assert pkg.size(-9) == 'tiny'\n",
    "test_c.py": "def test_nothing(): ...\n",
}


class Reports:
    """A client of a node that has one report, whose artifacts lie in `artifacts`."""

    def __init__(self, artifacts: Path) -> None:
        self._artifacts = artifacts

    def post(self, path: str, document: dict[str, Any]) -> None:
        assert path == "/api/checkout"
        shutil.copytree(self._artifacts, Path(document["target"]) / "artifacts")


def plain(tree: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "pytest", "-q", "--cov=pkg", "--cov-report=json:plain.json"]
    environment = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": "pytest_cov.plugin"}
    subprocess.run(command, cwd=tree, env=environment, check=True, capture_output=True)
    return lines(tree / "plain.json")


def lines(report: Path) -> dict[str, Any]:
    files = json.loads(report.read_text())["files"]
    return {name: (file["executed_lines"], file["executed_branches"]) for name, file in files.items()}


async def told(content: EmbeddedContent, tree: Path, kept: Path, scratch: Path, *arguments: str) -> float | None:
    """What a report with these artifacts says to the history of what the run covered."""
    scratch.mkdir()
    left = [await content.add_path(folder) for folder in sorted(kept.iterdir())]
    spec = RunSpec(await content.add_path(tree), "tree", "tree", PeerId("client"), arguments=arguments)
    file = await covered(content, Run(RunId(2), b"n", spec, 1.0), left, scratch)
    report = await content.add_files({COVERAGE_FILE: file} if file is not None else {"report.json": b""})
    return await coverage(content, report, 10.0)


async def test_combined_as_in_a_plain_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = write(tmp_path / "mine" / "tree", PROJECT)
    theirs = write(tmp_path / "node" / "bundles" / "bafy" / "tree", PROJECT)
    the_job = job(theirs, "-p", "pytest_cov.plugin", "--cov=pkg")
    items = work(await collect(the_job))
    async with PytestRunner().session(the_job) as session:
        session.submit(items)
        found: list[Finished] = await take(session, len(items))
        for event in found:
            if event.artifacts is not None:
                shutil.copytree(event.artifacts, tmp_path / "kept" / str(event.index))
    assert not list(theirs.rglob(".coverage")), "the tree stays as it was"
    options = wanted(["--cov=pkg", "--cov-report", "json:mesh.json", "--cov-report=term", "--cov-fail-under=99"])
    assert options is not None
    report: Any = Reports(tmp_path / "kept")
    assert report_coverage(report, {"report": "bafyreport"}, mine, options, False) == 1
    assert "TOTAL" in capsys.readouterr().out
    assert lines(mine / "mesh.json") == plain(mine)
    percent = json.loads((mine / "mesh.json").read_text())["totals"]["percent_covered"]
    async with node_maker(tmp_path)() as node:
        given = (node.content, theirs, tmp_path / "kept")
        part = await told(*given, tmp_path / "first")
        with_settings = await told(*given, tmp_path / "second", "--cov-config", "other.cfg")
        (tmp_path / "none").mkdir()
        assert await told(node.content, theirs, tmp_path / "none", tmp_path / "third") is None
    assert part == pytest.approx(percent / 100)
    assert with_settings is not None
    assert with_settings > part, "what is excluded does not count"
    assert not list(tmp_path.rglob("written")), "a tree has nothing written outside of it"
    options.cov_fail_under = 10.0
    assert report_coverage(report, {"report": "bafyreport"}, mine, options, True) == 0
    assert capsys.readouterr().out == ""


def test_nothing_to_do_without_cov() -> None:
    assert wanted(["-x", "--cov-report=xml"]) is None
    assert wanted(["--cov=pkg", "--no-cov"]) is None
    assert wanted(["--cov", "--timeout=5"]) is not None

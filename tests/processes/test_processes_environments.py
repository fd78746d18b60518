"""`mesh run --env uv` for real: a node inside the command, uv, and a suite of which nothing is installed beside it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.processes.lab import PATIENCE, ROOT
from tests.worker.wheelhouse import pack, uv_variables, write_wheel

pytestmark = [pytest.mark.processes, pytest.mark.timeout(240)]

SUITE = """
import hello, os, subprocess, sys

def test_there(): assert hello.WORD == "hello"
def test_alone(): assert sys.prefix == os.environ["VIRTUAL_ENV"]
"""


@pytest.fixture
def variables(tmp_path: Path) -> dict[str, str]:
    wheels = pack(tmp_path / "wheels")
    write_wheel(wheels, "hello-3.1", {"hello.py": b"WORD = 'hello'\n"})
    return {
        **os.environ,
        **uv_variables(wheels, tmp_path / "cache"),
        "MESH_HOME": str(tmp_path / "state" / "home"),
        "PYTHONPATH": str(ROOT),
    }


def mesh_run(tree: Path, variables: dict[str, str], *flags: str) -> tuple[int, list[dict[str, Any]], str]:
    """Exit code, events and stderr."""
    done = subprocess.run(
        [sys.executable, "-m", "mesh", "run", "--json", "--env", "uv", "--report-dir", "report", *flags],
        cwd=tree, env=variables, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def test_an_environment_is_built_told_and_reported(tmp_path: Path, variables: dict[str, str]) -> None:
    """The same version twice, once by its patch release, is a matrix that every machine can run."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "requirements.txt").write_text("hello\npytest\n")
    (tree / "test_x.py").write_text(SUITE)
    minor, patch = ".".join(map(str, sys.version_info[:2])), sys.version.split()[0]
    code, events, err = mesh_run(tree, variables, "--python", minor, "--python", patch)
    assert code == 0, err
    ended = {event["run"]: event for event in events if event["event"] == "finished"}
    assert [event["counts"]["passed"] for event in ended.values()] == [2, 2]
    reports = [json.loads((tree / f"report-{python}" / "report.json").read_text()) for python in (minor, patch)]
    environments = [report["environment"] for report in reports]
    assert environments[0] == environments[1], "built once"
    assert (environments[0]["kind"], environments[0]["python"]) == ("uv", patch)
    listed = (tree / f"report-{minor}" / "distributions.txt").read_text().splitlines()
    assert "hello 3.1" in listed
    assert f"pytest {pytest.__version__}" in listed


def test_a_requirement_that_nobody_can_meet_is_the_users_error(tmp_path: Path, variables: dict[str, str]) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "requirements.txt").write_text("hello==9\npytest\n")
    (tree / "test_x.py").write_text(SUITE)
    code, events, err = mesh_run(tree, variables)
    assert code == 4
    assert events[-1]["state"] == "error"
    assert "the uv environment can't be built: No solution found" in err
    assert "Traceback" not in err
    assert "hello==9" in (tree / "report" / "collection.txt").read_text()

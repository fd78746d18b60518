"""`mesh run` where no node runs: one is started inside the command, and leaves nothing."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mesh.options import NodeOptions
from protocols.errors import HomeInUse
from tests.api.fake_backend import FakeBackend
from tests.cli.inside import fake_module
from tests.cli.served_node import ROOT, Ended

Mesh = Callable[..., Ended]


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[NodeOptions]:
    made: list[NodeOptions] = []
    monkeypatch.setitem(sys.modules, "mesh.node", fake_module(FakeBackend(), made))
    return made


def test_a_node_of_its_own_in_a_temporary_home(home: Path, mesh: Mesh, suite: Path, served: list[NodeOptions]) -> None:
    ended = mesh("run", "--json", "-n", "3", "--junitxml", "junit.xml")
    assert ended.code == 1
    assert ended.lines[-1]["event"] == "finished"
    (options,) = served
    assert (options.solitary, options.mdns, options.slots) == (True, False, 3)
    assert options.home.parent == home.parent
    assert not options.home.exists()
    assert list(home.iterdir()) == []
    assert (suite / "junit.xml").exists()


def test_a_named_home_is_kept(mesh: Mesh, suite: Path, tmp_path: Path, served: list[NodeOptions]) -> None:
    ended = mesh("run", "--home", tmp_path / "named")
    assert ended.code == 1
    assert served[0].home == tmp_path / "named"
    assert (tmp_path / "named").is_dir()
    assert "mesh results" not in ended.out


def test_the_nodes_error_is_the_commands(mesh: Mesh, home: Path, suite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def serve(options: NodeOptions, announce: object) -> int:
        raise HomeInUse(f"{options.home} is used by process 1")

    module = fake_module(FakeBackend(), [])
    module.serve = serve  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mesh.node", module)
    ended = mesh("run")
    assert ended.code == 4
    assert ended.err.endswith("is used by process 1\n")
    assert list(home.parent.iterdir()) == [home]


@pytest.mark.timeout(60)
def test_ctrl_c_cancels_and_leaves_nothing(home: Path, suite: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.cli.inside", "run", "--json", str(suite)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if json.loads(line)["event"] == "verdict":
                break
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGINT)  # as `timeout` does: one stroke
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 2
    assert json.loads(out.splitlines()[-1])["state"] == "cancelled"
    assert "Traceback" not in err
    assert list(home.parent.iterdir()) == [home]

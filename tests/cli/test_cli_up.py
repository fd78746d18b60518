"""`mesh up` with real child processes: they are announced, watched, and gone at the end, however it comes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.served_node import ROOT

STARTER = (
    "import sys; from pathlib import Path; import mesh.cli.up as up; from mesh.cli.main import main;"
    f"up.NODE = Path({str(Path(__file__).with_name('fake_node.py'))!r}); sys.exit(main())"
)


@pytest.fixture
def up(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", STARTER, "up", "-n", "2", "--json", "--home", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    yield process
    process.kill()
    process.communicate()


def ready(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    assert process.stdout is not None
    return [json.loads(process.stdout.readline()) for _ in range(2)]


def await_gone(pids: list[int]) -> None:
    """Bounded by the test's own timeout: what is waited for is another process's end."""
    for pid in pids:
        while Path(f"/proc/{pid}").exists() and " Z " not in Path(f"/proc/{pid}/stat").read_text():
            time.sleep(0.02)


@pytest.mark.timeout(60)
def test_ends_with_all_children(up: subprocess.Popen[str], tmp_path: Path) -> None:
    nodes = ready(up)
    assert [node["name"] for node in nodes] == ["node-1", "node-2"]
    assert [node["home"] for node in nodes] == [str(tmp_path / "node-1"), str(tmp_path / "node-2")]
    assert (tmp_path / "ticket").stat().st_mode & 0o777 == 0o600
    up.send_signal(signal.SIGTERM)
    up.send_signal(signal.SIGTERM)  # as `timeout` does: one stroke
    _, err = up.communicate(timeout=30)
    assert up.returncode == 0
    assert "Traceback" not in err
    assert "node-2 | home:" in err
    for node in nodes:
        assert not Path(f"/proc/{node['pid']}").exists()


@pytest.mark.timeout(60)
def test_a_killed_child_is_told_and_the_rest_go_on_until_none_is_left(up: subprocess.Popen[str]) -> None:
    nodes = ready(up)
    os.kill(nodes[1]["pid"], signal.SIGKILL)
    assert up.stderr is not None
    assert any("node-2 was killed by signal 9" in line for line in up.stderr)
    assert up.poll() is None
    os.kill(nodes[0]["pid"], signal.SIGKILL)
    _, err = up.communicate(timeout=30)
    assert up.returncode == 12
    assert "all nodes are gone" in err


@pytest.mark.timeout(60)
@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_children_do_not_outlive_a_killed_parent(up: subprocess.Popen[str]) -> None:
    nodes = ready(up)
    up.kill()
    await_gone([node["pid"] for node in nodes])

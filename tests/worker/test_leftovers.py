"""Folders that a killed node left behind."""

import subprocess
import sys

import pytest

from mesh.worker.leftovers import remove_leftovers, temporary_folder


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_what_a_dead_process_left_goes_and_all_else_stays(folder):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    kept = {temporary_folder("run"), temporary_folder("slots")}
    for name in ("mesh-run-abcdef", "mesh-up-1-x", "other", f"mesh-runs-{ended.pid}-x"):
        (folder / name).mkdir()
        kept.add(folder / name)
    for kind in ("run", "slots"):
        (folder / f"mesh-{kind}-{ended.pid}-abc" / "inside").mkdir(parents=True)
    assert remove_leftovers() == [f"mesh-run-{ended.pid}-abc", f"mesh-slots-{ended.pid}-abc"]
    assert set(folder.iterdir()) == kept


def test_two_nodes_that_start_together_may_tidy_up_together(folder, monkeypatch):
    """The other one is done between the look into the folder and the look at what was there."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = folder / f"mesh-run-{ended.pid}-abc"
    left.mkdir()

    def other_tidies(pid: int) -> bool:
        left.rmdir()
        return False

    monkeypatch.setattr("psutil.pid_exists", other_tidies)
    assert remove_leftovers() == []

"""Folders that a killed node left behind."""

import os
import subprocess
import sys

import psutil
import pytest

from mesh.worker.leftovers import remove_leftovers, remove_tree, temporary_folder


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


def test_folders_a_thousand_deep_go_too(folder, monkeypatch):
    monkeypatch.chdir(folder)
    for _ in range(2000):
        os.mkdir("deep")
        os.chdir("deep")
    os.chdir(folder)
    remove_tree(folder / "deep")
    assert not list(folder.iterdir())


def test_another_node_of_this_host_is_faster(folder, monkeypatch):
    """Seen in `make chaos`: nodes that were killed together start together, and one's start ended in a traceback."""
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    folders = [folder / f"mesh-{kind}-{ended.pid}-abc" for kind in ("run", "slots")]
    for each in folders:
        each.mkdir()

    def look(pid: int) -> bool:
        """Between the listing and a look at the folder, it goes."""
        if folders[0].exists():
            folders[0].rmdir()
        return False

    monkeypatch.setattr(psutil, "pid_exists", look)
    assert remove_leftovers() == [folders[1].name]
    assert not folders[1].exists()

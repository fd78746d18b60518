"""What a test may leave in its folder of artifacts, and what is kept of it."""

import os
import socket

from mesh.content.adding import Adder
from mesh.worker.artifacts import WARNINGS_MAX, leave_out


def test_what_content_can_not_hold_is_left_out_and_the_rest_is_kept(tmp_path, monkeypatch):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "picture").write_text("kept")
    (tmp_path / "deep" / "up").symlink_to("../note")
    (tmp_path / "note").write_text("kept")
    (tmp_path / "nowhere").symlink_to("not-there")
    (tmp_path / "latest").symlink_to("/etc/hostname")
    (tmp_path / "folder").symlink_to("..")
    os.mkfifo(tmp_path / "deep" / "pipe")
    monkeypatch.chdir(tmp_path)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
    assert sorted(leave_out(tmp_path)) == [
        "mesh_artifacts: deep/pipe not kept: no file, directory or link",
        "mesh_artifacts: folder not kept: a link to outside of the folder",
        "mesh_artifacts: latest not kept: a link to outside of the folder",
        "mesh_artifacts: socket not kept: no file, directory or link",
    ]
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert left == ["deep", "deep/picture", "deep/up", "note", "nowhere"]
    assert leave_out(tmp_path) == []
    assert Adder(lambda blocks: None, {}).add(tmp_path, None).cid


def test_a_thousand_sockets_make_few_warnings(tmp_path):
    for number in range(1000):
        os.mkfifo(tmp_path / str(number))
    warnings = leave_out(tmp_path)
    assert len(warnings) == WARNINGS_MAX
    assert warnings[-1] == f"mesh_artifacts: {1000 - WARNINGS_MAX + 1} more not kept: as those before"
    assert not list(tmp_path.iterdir())

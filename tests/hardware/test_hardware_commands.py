"""External commands that hang, flood, fork or lie; interpreters and browsers found by them."""

import os
import platform
import stat
import sys
import time
from pathlib import Path

import psutil
import pytest

from mesh.hardware import browsers, python, uv
from mesh.hardware.command import OUTPUT_BYTES_MAX, CommandFailed, output


def script(folder: Path, name: str, body: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


def test_output_of_a_command_that_ends() -> None:
    assert output([sys.executable, "-c", "print('hello')"], seconds=20.0) == "hello\n"


def test_a_hung_command_and_its_children_are_killed(tmp_path: Path) -> None:
    hung = script(tmp_path, "hung", f"sleep 300 & echo $! > {tmp_path}/child; wait")
    begun = time.monotonic()
    with pytest.raises(CommandFailed, match=r"did not end within 0\.3 s"):
        output([str(hung)], seconds=0.3)
    assert time.monotonic() - begun < 30
    child = int((tmp_path / "child").read_text())
    try:  # the orphan is reaped by init, or stays a zombie where there is none
        psutil.Process(child).wait(timeout=20)
    except (psutil.NoSuchProcess, psutil.TimeoutExpired):
        assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


def test_a_flood_is_cut_off() -> None:
    with pytest.raises(CommandFailed, match=f"{OUTPUT_BYTES_MAX} bytes"):
        output(["sh", "-c", "while :; do echo flood; done"], seconds=20.0)


@pytest.mark.parametrize(
    ("command", "sentence"),
    [(["sh", "-c", "exit 7"], "sh exited with 7"), (["/nowhere/tool"], "does not start: No such file")],
)
def test_failures_are_told_apart(command: list[str], sentence: str) -> None:
    with pytest.raises(CommandFailed, match=sentence):
        output(command, seconds=20.0)


@pytest.fixture(autouse=True)
def no_pythons_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYENV_ROOT", "UV_PYTHON_INSTALL_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))


def test_pythons_of_pyenv_and_uv_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder, version in (("PYENV_ROOT/versions/3.9.18/bin", "3.9.18"), ("UV_PYTHON_INSTALL_DIR/x/bin", "3.12.1")):
        (tmp_path / folder).mkdir(parents=True)
        script(tmp_path / folder, "python3", f"echo CPython {version}")
    shims = tmp_path / "PYENV_ROOT" / "shims"
    shims.mkdir()
    script(shims, "python3.10", "echo CPython 3.10.1")
    monkeypatch.setenv("PATH", f"{shims}{os.pathsep}{tmp_path}/absent")
    assert list(python.installed()) == ["3.9.18", "3.12.1"]
    assert python.installed()["3.9.18"] == tmp_path / "PYENV_ROOT/versions/3.9.18/bin/python3"


def test_uv_is_a_capability_of_who_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert uv.probe(tmp_path) == {}
    script(tmp_path, "uv", "echo 'uv 0.9.2 (some platform)'")
    assert uv.probe(tmp_path) == {"uv": "0.9.2"}
    script(tmp_path, "uv", "exit 1")
    assert uv.probe(tmp_path) == {}


def test_other_pythons_are_asked_and_shims_that_start_nothing_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script(tmp_path, "python3.9", "echo CPython 3.9.18")
    script(tmp_path, "python3.14", "echo CPython 3.14.0rc1")
    script(tmp_path, "python3.10", "echo PyPy 3.10.12")
    script(tmp_path, "python3.13", "exit 127")
    script(tmp_path, "python3-config", "echo CPython 3.1.1")
    (tmp_path / "python3").symlink_to(sys.executable)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{tmp_path}/absent")
    found = python.probe(tmp_path)
    assert found["pythons"] == ("3.9.18", "3.14.0rc1")
    assert found["python"] == platform.python_version()


def test_each_interpreter_is_asked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path, "python3.9", f"echo asked >> {tmp_path}/log; echo CPython 3.9.18")
    (tmp_path / "python3").symlink_to(tmp_path / "python3.9")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert python.probe(tmp_path)["pythons"] == python.probe(tmp_path)["pythons"] == ("3.9.18",)
    assert (tmp_path / "log").read_text() == "asked\n"


def test_browsers_by_name_and_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path, "google-chrome", "echo Google Chrome 126.0.6478.55")
    script(tmp_path, "chromium", "echo oops; exit 1")
    script(tmp_path, "chromium-browser", "echo Chromium 120.0.1 built on Debian 12")
    script(tmp_path, "firefox", "echo Mozilla Firefox")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert browsers.probe(tmp_path)["browsers"] == (
        {"name": "chrome", "version": "126.0.6478.55"},
        {"name": "chromium", "version": "120.0.1"},
    )

"""Which files make a bundle, and where its root is."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from mesh.content.tree import bundle_files, bundle_root
from protocols.errors import UsageError


def git(directory: Path, *arguments: str) -> None:
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "protocol.file.allow=always"]
    subprocess.run(["git", "-C", str(directory), *identity, *arguments], check=True, capture_output=True)


def write(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    root = tmp_path / "checkout"
    root.mkdir()
    git(root, "init", "-q")
    write(root, "tracked.py", "deleted.py", "tests/test_a.py")
    (root / ".gitignore").write_text("*.log\n.venv/\n")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "x")
    (root / "deleted.py").unlink()
    write(
        root,
        "untracked.py",
        "noise.log",
        ".venv/lib/site-packages/pkg/__init__.py",
        ".venv/pyvenv.cfg",
        "sp ace/ü\n.py",
    )
    return root


def test_in_git_what_is_tracked_or_not_ignored(checkout: Path) -> None:
    assert bundle_files(checkout) == [
        ".gitignore",
        "sp ace/ü\n.py",
        "tests/test_a.py",
        "tracked.py",
        "untracked.py",
    ]
    assert bundle_files(checkout / "tests") == ["test_a.py"]


def test_git_variables_of_a_hook_do_not_mislead(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DIR", "/nowhere")
    assert "tracked.py" in bundle_files(checkout)


def test_submodules_and_nested_repositories_belong(checkout: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q")
    write(other, "inside.py")
    git(other, "add", ".")
    git(other, "commit", "-q", "-m", "x")
    git(checkout, "submodule", "add", "-q", str(other), "vendor/other")
    nested = checkout / "nested"
    nested.mkdir()
    git(nested, "init", "-q")
    write(nested, "own.py")
    found = bundle_files(checkout)
    assert "vendor/other/inside.py" in found
    assert "nested/own.py" in found
    assert not any(".git/" in name for name in found)


def test_outside_git_everything_but_caches(tmp_path: Path) -> None:
    root = tmp_path / "plain"
    write(root, "a.py", "a.pyc", ".hidden", "x.egg-info/PKG-INFO", "pkg/__pycache__/a.pyc", ".pytest_cache/v/x")
    write(root, "env/pyvenv.cfg", "env/lib/x.py", "node_modules/m/index.js", "pkg/b.py")
    (root / "link").symlink_to("pkg")
    assert bundle_files(root) == [".hidden", "a.py", "link", "pkg/b.py", "x.egg-info/PKG-INFO"]


def test_a_package_in_an_ignored_environment_is_a_bundle_of_its_own(checkout: Path) -> None:
    package = checkout / ".venv" / "lib" / "site-packages" / "pkg"
    assert bundle_root(package) == (package, ".")
    assert bundle_files(package) == ["__init__.py"]


@pytest.mark.parametrize("target", ["/etc/hostname", "../outside", "sub/../../outside", "up/../../outside"])
def test_links_that_leave_are_named(tmp_path: Path, target: str) -> None:
    root = tmp_path / "plain"
    write(root, "sub/deep/x")
    write(tmp_path, "outside")
    (root / "up").symlink_to("sub/deep")
    (root / "bad").symlink_to(target)
    with pytest.raises(UsageError, match="plain/bad l"):
        bundle_files(root)


def test_a_link_through_a_link_that_leaves_is_named(tmp_path: Path) -> None:
    root = tmp_path / "plain"
    write(root, "a/b/c/x")
    write(tmp_path, "outside")
    (root / "a" / "down").symlink_to("b/c")
    (root / "a" / "fine").symlink_to("down/x")
    (root / "dangling").symlink_to("nothing-here")
    assert set(bundle_files(root)) == {"a/b/c/x", "a/down", "a/fine", "dangling"}
    (root / "sub").mkdir()
    (root / "sub" / "top").symlink_to("..")
    (root / "bad").symlink_to("sub/top/../outside")
    with pytest.raises(UsageError, match="plain/bad leads to"):
        bundle_files(root)


def test_what_is_no_file_is_left_out_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "plain"
    write(root, "a")
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        monkeypatch.chdir(root)
        listener.bind("socket")
        assert bundle_files(root) == ["a"]
    assert "fifo" in caplog.text
    assert "plain/socket" in caplog.text


def test_unreadable_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "plain", "secret", "open")
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "secret")  # root may read everything
    with pytest.raises(UsageError, match="plain/secret can't be read"):
        bundle_files(tmp_path / "plain")


def test_roots(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bundle_root(checkout) == (checkout, ".")
    assert bundle_root(checkout / "tests" / "test_a.py") == (checkout, "tests/test_a.py")
    assert bundle_root(f"{checkout}/tests/test_a.py::TestX::test_y[a::b]") == (
        checkout,
        "tests/test_a.py::TestX::test_y[a::b]",
    )
    write(checkout, "sub/pyproject.toml", "sub/tests/test_b.py")
    assert bundle_root(checkout / "sub" / "tests") == (checkout / "sub", "tests")
    write(tmp_path, "alone/deep/test_c.py")
    assert bundle_root(tmp_path / "alone" / "deep") == (tmp_path / "alone" / "deep", ".")
    assert bundle_root(tmp_path / "alone" / "deep" / "test_c.py") == (tmp_path / "alone" / "deep", "test_c.py")
    monkeypatch.chdir(checkout / "tests")
    assert bundle_root("test_a.py") == (checkout, "tests/test_a.py")
    with pytest.raises(UsageError, match="nowhere: no such file"):
        bundle_root("nowhere")


def test_never_the_home_directory_nor_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path, "setup.py", "work/test_a.py")
    assert bundle_root(tmp_path / "work") == (tmp_path / "work", ".")
    for path in (tmp_path, Path("/")):
        with pytest.raises(UsageError, match="too much for a bundle"):
            bundle_root(path)


def test_it_is_light_to_import() -> None:
    program = "import sys, mesh.content.tree; print(sorted({'libp2p', 'trio', 'httpx', 'sqlite3'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_inside_a_package_the_root_is_the_outermost_package(tmp_path: Path) -> None:
    inner = tmp_path / "suite" / "part" / "tests"
    inner.mkdir(parents=True)
    for package in (tmp_path / "suite", tmp_path / "suite" / "part", inner):
        (package / "__init__.py").touch()
    assert bundle_root(inner) == (tmp_path / "suite", "part/tests")

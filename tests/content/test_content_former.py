"""A checkout made of a former one: as if it had been written anew, and nothing is written that is there already."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mesh.content import checkout as checkout_module
from mesh.content import former as former_module
from mesh.content.store import EmbeddedContent, open_content
from protocols.errors import RemoteProtocolError
from protocols.ids import Cid
from tests.content.test_content_hostile import tree_of_links

FILES = {
    "a/one.py": b"one",
    "a/two.py": b"two",
    "a/b/three.py": b"three",
    "a/b/four.txt": b"four",
    "c/five.py": b"five",
    "top.py": b"top",
}


async def add(content: EmbeddedContent, folder: Path, files: dict[str, bytes], links: dict[str, str]) -> Cid:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(0o755 if name.startswith("c/") else 0o644)
    for name, target in links.items():
        (folder / name).symlink_to(target)
    return await content.add_path(folder)


def seen(root: Path) -> dict[str, tuple[int, bytes]]:
    """What lies under `root`: modes and contents."""
    found = {}
    for path in root.rglob("*"):
        status = path.lstat()
        data = os.readlink(path).encode() if path.is_symlink() else b"" if path.is_dir() else path.read_bytes()
        found[str(path.relative_to(root))] = (status.st_mode, data)
    return found


def identities(root: Path) -> dict[str, tuple[int, int]]:
    """Of each file: an inode that was freed is soon another's."""
    found = ((path, path.lstat()) for path in root.rglob("*") if path.is_symlink() or not path.is_dir())
    return {str(path.relative_to(root)): (status.st_ino, status.st_ctime_ns) for path, status in found}


async def from_former(
    base: Path, change: Callable[[Path], None], harm: Callable[[Path], None] = lambda _: None
) -> tuple[Path, set[str]]:
    """Check a tree out, do `harm` to the checkout and `change` the tree, and make a new checkout of the former one;
    what is taken over of it."""
    async with open_content(base / "home") as content:
        source = base / "source"
        first = await add(content, source, FILES, {"link": "a/one.py", "c/up": ".."})
        former, target, fresh = base / "runs" / "1" / "tree", base / "runs" / "2" / "tree", base / "fresh"
        await content.checkout(first, former, remember=True)
        before = identities(former)
        harm(former)
        change(source)
        second = await content.add_path(source)
        await content.checkout(second, target, former, remember=True)
        await content.checkout(second, fresh)
        caches = {name: one for name, one in seen(target).items() if "__pycache__" in name}
        assert {name: one for name, one in seen(target).items() if name not in caches} == seen(fresh)
        assert not former.exists()
        assert sorted(path.name for path in (base / "runs" / "2").iterdir()) == ["tree"]
        after = identities(target)
        return target, {name for name, one in after.items() if before.get(name) == one}


ALL = {*FILES, "link", "c/up"}


async def test_what_did_not_change_is_taken_over(tmp_path: Path) -> None:
    _, taken = await from_former(tmp_path, lambda tree: (tree / "a" / "two.py").write_bytes(b"edited"))
    assert taken == ALL - {"a/two.py"}


def rearrange(tree: Path) -> None:
    """A file becomes a directory, a directory a file, a link another, and a directory goes."""
    (tree / "top.py").unlink()
    (tree / "top.py").mkdir()
    (tree / "top.py" / "inside").write_bytes(b"inside")
    shutil.rmtree(tree / "a" / "b")
    (tree / "a" / "b").write_bytes(b"no directory")
    shutil.rmtree(tree / "c")
    (tree / "link").unlink()
    (tree / "link").symlink_to("a/two.py")
    (tree / "new" / "deep").mkdir(parents=True)
    (tree / "new" / "deep" / "file").write_bytes(b"new")


async def test_everything_may_change_its_kind(tmp_path: Path) -> None:
    _, taken = await from_former(tmp_path, rearrange)
    assert taken == {"a/one.py", "a/two.py"}


def spoil(tree: Path) -> None:
    """What tests leave behind."""
    (tree / "a" / "one.py").write_bytes(b"six")
    os.utime(tree / "a" / "one.py", (1, 1))
    times = (tree / "a" / "two.py").stat()
    (tree / "a" / "two.py").write_bytes(b"TWO")
    os.utime(tree / "a" / "two.py", ns=(times.st_atime_ns, times.st_mtime_ns))
    (tree / "a" / "b" / "three.py").unlink()
    (tree / "a" / "b" / "left.txt").write_bytes(b"left behind")
    (tree / "a" / ".cache" / "deep").mkdir(parents=True)
    (tree / "c" / "five.py").chmod(0o600)
    (tree / "link").unlink()
    (tree / "link").symlink_to("/etc/passwd")
    (tree / "c" / "out").symlink_to("/")


async def test_what_tests_did_to_a_checkout_is_undone(tmp_path: Path) -> None:
    _, taken = await from_former(tmp_path, lambda tree: (tree / "a" / "b" / "four.txt").write_bytes(b"edited"), spoil)
    assert taken == {"top.py", "c/up"}


async def test_a_whole_directory_that_tests_removed_or_closed_comes_back(tmp_path: Path) -> None:
    def harm(tree: Path) -> None:
        shutil.rmtree(tree / "a")
        (tree / "c").chmod(0o700)

    _, taken = await from_former(tmp_path, lambda tree: (tree / "top.py").write_bytes(b"edited"), harm)
    assert taken == {"link"}


async def test_compiled_modules_stay_only_with_their_source(tmp_path: Path) -> None:
    def harm(tree: Path) -> None:
        for folder, names in {"a": ["one", "two", "gone"], "a/b": ["three"], "c": ["five"]}.items():
            (tree / folder / "__pycache__").mkdir()
            for name in names:
                (tree / folder / "__pycache__" / f"{name}.cpython-311.pyc").write_bytes(b"compiled")
                (tree / folder / "__pycache__" / f"{name}.cpython-311-pytest-9.pyc").write_bytes(
                    b"cpl\r\3\0\0\0" + b"hash" * 2
                )
                (tree / folder / "__pycache__" / f"{name}.cpython-311-pytest-8.pyc").write_bytes(b"it holds its path")
        (tree / "c" / "__pycache__" / "data").write_bytes(b"no module")
        (tree / "c" / "five.py").write_bytes(b"spoilt")

    def change(tree: Path) -> None:
        (tree / "a" / "two.py").write_bytes(b"edited")
        (tree / "a" / "gone.py").write_bytes(b"new")

    target, _ = await from_former(tmp_path, change, harm)
    assert sorted(str(path.relative_to(target)) for path in target.rglob("*.pyc")) == [
        "a/__pycache__/one.cpython-311-pytest-9.pyc",
        "a/__pycache__/one.cpython-311.pyc",
        "a/b/__pycache__/three.cpython-311-pytest-9.pyc",
        "a/b/__pycache__/three.cpython-311.pyc",
    ]
    assert not (target / "c" / "__pycache__" / "data").exists()


async def test_a_tree_may_hold_a_cache_of_its_own(tmp_path: Path) -> None:
    def harm(tree: Path) -> None:
        (tree / "a" / "__pycache__").mkdir()
        (tree / "a" / "__pycache__" / "one.cpython-311.pyc").write_bytes(b"compiled")

    def change(tree: Path) -> None:
        (tree / "a" / "__pycache__").write_bytes(b"a file, of all things")

    async with open_content(tmp_path / "home") as content:
        source, former, target = (tmp_path / name for name in ("source", "former", "target"))
        first = await add(content, source, FILES, {})
        await content.checkout(first, former, remember=True)
        harm(former)
        change(source)
        second = await content.add_path(source)
        await content.checkout(second, target, former)
        assert (target / "a" / "__pycache__").read_bytes() == b"a file, of all things"


def refuse(path: str) -> None:
    raise PermissionError(13, "Permission denied", path)


@pytest.mark.parametrize("why", ["unknown", "gone", "large", "closed"])
async def test_without_a_former_checkout_all_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    if why == "large":
        monkeypatch.setattr(checkout_module, "REMEMBERED_MAX", 3)
    async with open_content(tmp_path / "home") as content:
        source, former, target = (tmp_path / name for name in ("source", "former", "target"))
        root = await add(content, source, FILES, {})
        await content.checkout(root, former, remember=why != "unknown")
        if why == "gone":
            shutil.rmtree(former)
        if why == "closed":
            monkeypatch.setattr(former_module, "remove", refuse)
            (former / "left").touch()
        await content.checkout(root, target, former)
        assert seen(target) == seen(source)
        assert former.exists() == (why != "gone"), "what could not be used is left to its owner"


async def test_a_new_link_may_not_leave_through_an_old_one(tmp_path: Path) -> None:
    async with open_content(tmp_path / "home") as content:
        roots = []
        for links in ({"d/e/up": "../.."}, {"d/e/up": "../..", "x": "d/e/up/../.."}):
            blocks, root = tree_of_links(links)
            await content._repository.put_many(blocks)
            roots.append(root)
        await content.checkout(roots[0], tmp_path / "former", remember=True)
        with pytest.raises(RemoteProtocolError, match="leads outside"):
            await content.checkout(roots[1], tmp_path / "target", tmp_path / "former")
        assert not (tmp_path / "target").exists()

"""What is compiled in the tree of a suite is there in its checkout, and is what the checkout's source says."""

import importlib.util
import os
import py_compile
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mesh.content.compiled import carry, is_bound
from mesh.content.store import TREES_MAX, open_content

TAG = sys.implementation.cache_tag
LONG_AGO = 1_700_000_000


def source_tree(base: Path) -> Path:
    """Modules, some in a package, that were compiled long after they had been written."""
    tree = base / "source"
    (tree / "package").mkdir(parents=True)
    for name in ("top.py", "package/__init__.py", "package/inner.py"):
        (tree / name).write_text(f"NAME, F = {name!r}, ()\n")
        os.utime(tree / name, (LONG_AGO, LONG_AGO))
        py_compile.compile(str(tree / name), doraise=True)
        later(compiled(tree / name), 60)
    return tree


def later(path: Path, seconds: float) -> None:
    """A compiled module's time, so long after anything was done to its source."""
    source = path.parent.parent / f"{path.name.partition('.')[0]}.py"
    at = source.stat().st_ctime + seconds
    os.utime(path, (at, at))


def compiled(path: Path) -> Path:
    return path.parent / "__pycache__" / f"{path.stem}.{TAG}.pyc"


def copied(tree: Path) -> Path:
    """As a checkout has it: the sources alone."""
    target = tree.parent / "target"
    for path in tree.rglob("*.py"):
        made = target / path.relative_to(tree)
        made.parent.mkdir(parents=True, exist_ok=True)
        made.write_bytes(path.read_bytes())
    return target


def said(tree: Path) -> str:
    """What its modules say when they are imported, and where the first of them thinks that its function is."""
    text = "import package.inner, top; print(top.NAME, package.inner.NAME, *(f.__code__.co_filename for f in top.F))"
    return subprocess.run([sys.executable, "-c", text], cwd=tree, capture_output=True, text=True, check=True).stdout


def other(path: Path, text: str) -> None:
    """Put what was compiled of another source in place of what was compiled of `path`."""
    wrong = path.with_name("other.py")
    wrong.write_text(text)
    data = Path(py_compile.compile(str(wrong), doraise=True) or "").read_bytes()
    compiled(path).write_bytes(compiled(path).read_bytes()[:16] + data[16:])
    later(compiled(path), 60)
    wrong.unlink()
    compiled(wrong).unlink()


def test_what_is_compiled_is_used(tmp_path: Path) -> None:
    tree = source_tree(tmp_path)
    other(tree / "top.py", "NAME = 'the compiled one'\ndef f(): pass\nF = (f,)\n")
    target = copied(tree)
    assert carry(tree, target) == 3
    assert said(target).split() == ["the", "compiled", "one", "package/inner.py", str(target / "top.py")]
    assert carry(tree, target) == 0, "it is there already"


def test_an_edit_in_the_checkout_is_seen_whatever_the_clock_says(tmp_path: Path) -> None:
    tree = source_tree(tmp_path)
    target = copied(tree)
    carry(tree, target)
    before = (target / "top.py").stat()
    (target / "top.py").write_text("NAME, F = 'pot.py', ()\n")
    os.utime(target / "top.py", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert said(target).startswith("pot.py ")


def edited(tree: Path, target: Path) -> None:
    (target / "top.py").write_text("NAME, F = 'edited', ()\n")


def edited_at_the_source(tree: Path, target: Path) -> None:
    """Its time and size as they were."""
    (tree / "top.py").write_text("NAME, F = 'pot.py', ()\n")
    os.utime(tree / "top.py", (LONG_AGO, LONG_AGO))


def edited_before_it_was_added(tree: Path, target: Path) -> None:
    """The same: Python itself takes the compiled form of the former text for that of the new one."""
    edited_at_the_source(tree, target)
    (target / "top.py").write_bytes((tree / "top.py").read_bytes())
    now = (tree / "top.py").stat().st_ctime
    os.utime(compiled(tree / "top.py"), (now - 60, now - 60))


def older(tree: Path, target: Path) -> None:
    os.utime(tree / "top.py", (LONG_AGO - 1, LONG_AGO - 1))
    later(compiled(tree / "top.py"), 60)


def at_once(tree: Path, target: Path) -> None:
    """It may have been edited while it was compiled."""
    later(compiled(tree / "top.py"), 1.9)


def of_another_size(tree: Path, target: Path) -> None:
    data = bytearray(compiled(tree / "top.py").read_bytes())
    data[12] += 1
    compiled(tree / "top.py").write_bytes(data)
    later(compiled(tree / "top.py"), 60)


def unchecked(tree: Path, target: Path) -> None:
    mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
    py_compile.compile(str(tree / "top.py"), doraise=True, invalidation_mode=mode)


def of_another_text(tree: Path, target: Path) -> None:
    data = compiled(tree / "top.py").read_bytes()
    compiled(tree / "top.py").write_bytes(data[:4] + b"\3\0\0\0" + importlib.util.source_hash(b"other") + data[16:])


def cut_off(tree: Path, target: Path) -> None:
    compiled(tree / "top.py").write_bytes(b"cut off")


def of_an_old_pytest(tree: Path, target: Path) -> None:
    """It would tell of failures in the source tree."""
    path = compiled(tree / "top.py")
    path.rename(path.with_name(f"top.{TAG}-pytest-8.4.2.pyc"))


def a_directory(tree: Path, target: Path) -> None:
    compiled(tree / "top.py").unlink()
    compiled(tree / "top.py").mkdir()


def gone(tree: Path, target: Path) -> None:
    (tree / "top.py").unlink()


HARMS = (edited, edited_at_the_source, edited_before_it_was_added, older, at_once, of_another_size, unchecked, cut_off)


@pytest.mark.parametrize("harm", [*HARMS, of_another_text, of_an_old_pytest, a_directory, gone])
def test_what_may_be_stale_is_left(tmp_path: Path, harm: Callable[[Path, Path], None]) -> None:
    tree = source_tree(tmp_path)
    target = copied(tree)
    harm(tree, target)
    assert carry(tree, target) == 2, "the others are carried"
    assert not list(target.glob("__pycache__/*"))


def test_what_is_bound_to_a_hash_is_taken_as_it_is(tmp_path: Path) -> None:
    """As pytest 9.2 and newer write it."""
    tree = source_tree(tmp_path)
    mode = py_compile.PycInvalidationMode.CHECKED_HASH
    made = compiled(tree / "top.py").with_name(f"top.{TAG}-pytest-9.2.0.pyc")
    py_compile.compile(str(tree / "top.py"), str(made), doraise=True, invalidation_mode=mode)
    target = copied(tree)
    assert carry(tree, target) == 4
    assert (target / "__pycache__" / made.name).read_bytes() == made.read_bytes()
    assert not is_bound(made)
    assert is_bound(made.with_name("gone-pytest-9.pyc")), "as far as anybody can say"


async def test_only_a_checkout_to_run_in_has_it_and_only_where_the_tree_is(tmp_path: Path) -> None:
    tree = source_tree(tmp_path)
    async with open_content(tmp_path / "home") as content:
        root = await content.add_path(tree, ["top.py", "package/__init__.py", "package/inner.py"])
        await content.checkout(root, tmp_path / "read")
        for number in range(TREES_MAX):  # as artifacts of tests are
            (tmp_path / "read" / str(number)).touch()
            await content.add_path(tmp_path / "read")
        await content.checkout(root, tmp_path / "run", remember=True)
    async with open_content(tmp_path / "home") as content:
        await content.checkout(root, tmp_path / "later", remember=True)
    found = [sum(1 for _ in (tmp_path / name).rglob("*.pyc")) for name in ("read", "run", "later")]
    assert found == [0, 3, 0]

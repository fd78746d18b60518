"""Which files make a bundle, and where its root is. Light to import: commands ask before anything else is loaded.

Inside a git work tree a bundle is what git tracks and what it does not ignore; outside, everything but caches. A bundle
holds files, executable bits and symbolic links; a link that leaves the tree is refused by name, because on another host
it would point to something else or to nothing.
"""

import logging
import os
import stat
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from protocols.errors import UsageError

log = logging.getLogger(__name__)

ROOT_MARKERS = ("pytest.ini", "pyproject.toml", "tox.ini", "setup.cfg", "setup.py", ".git")
CACHE_DIRECTORIES = frozenset(
    (
        "__pycache__",
        ".pytest_cache",
        ".mypy_cache",
        ".ruff_cache",
        ".hypothesis",
        ".git",
        ".tox",
        ".nox",
        "node_modules",
    )
)
CACHE_SUFFIXES = (".pyc",)
GIT_SECONDS_MAX = 60.0
SUBMODULE_DEPTH_MAX = 16


def bundle_root(path: str | Path) -> tuple[Path, str]:
    """(root, argument) for a PATH as pytest takes it, "::" parts included.

    The root is the nearest directory at or above PATH that marks a project. A PATH that the project's git ignores (a
    package in a virtual environment, say), or that lies in no project, is its own root; a file's is its directory; but
    inside a package it is the outermost package, since its modules are imported by that name.
    `argument` is PATH relative to the root ("." for the root itself), with its "::" part.
    """
    text, separator, inside = str(path).partition("::")
    found = Path(os.path.abspath(text))
    if not os.path.lexists(found):
        raise UsageError(f"{text}: no such file or directory")
    start = found if found.is_dir() else found.parent
    root = _project_of(start)
    if root is None or (root != start and _is_ignored(found) and not _is_ignored(root)):
        root = _outermost_package(start)
    if root in _never_roots():
        raise UsageError(f"{root} is too much for a bundle: name a project directory inside it")
    return root, os.path.relpath(found, root).replace(os.sep, "/") + separator + inside


def bundle_files(root: Path) -> list[str]:
    """The relative names ("dir/name") of a bundle's files and links, sorted; `UsageError` names what can't be one."""
    names = None
    if _in_git(root) and not _is_ignored(root):
        names = _git_files(root)
    chosen = []
    for name in sorted(set(names if names is not None else _walked_files(root))):
        path = f"{root}/{name}"  # thousands of names: no Path for each
        mode = _mode(path)
        if mode is None:
            continue
        if stat.S_ISLNK(mode):
            check_link(root, name, os.readlink(path))
        elif not stat.S_ISREG(mode):
            log.warning("%s is no file, directory or link: left out of the bundle", path)
            continue
        elif not os.access(path, os.R_OK):
            raise UsageError(f"{path} can't be read")
        chosen.append(name)
    return chosen


def check_link(root: Path, name: str, target: str) -> None:
    """`UsageError` if the link `name` under `root` leaves the tree."""
    if not link_stays(name, target):
        raise UsageError(f"{root / name} links to {target}, outside of the tree {root}")
    resolved = os.path.realpath(root / name)
    inside = os.path.realpath(root)
    if resolved != inside and not resolved.startswith(inside + os.sep):
        raise UsageError(f"{root / name} leads to {resolved}, outside of the tree {root}")


def link_stays(name: str, target: str) -> bool:
    """Whether a link at the relative `name` stays in its tree by its text alone."""
    if os.path.isabs(target):
        return False
    reached = os.path.normpath(os.path.join(os.path.dirname(name), target))
    return reached != ".." and not reached.startswith("../")


def _project_of(start: Path) -> Path | None:
    never = _never_roots()
    for directory in (start, *start.parents):
        if directory in never:
            return None
        if any((directory / marker).exists() for marker in ROOT_MARKERS):
            return directory
    return None


def _outermost_package(directory: Path) -> Path:
    while (directory / "__init__.py").exists() and (directory.parent / "__init__.py").exists():
        directory = directory.parent
    return directory


def _never_roots() -> set[Path]:
    return {Path("/"), Path(os.path.abspath(os.path.expanduser("~")))}


def _mode(path: str) -> int | None:
    """The file's mode; None when it is gone (git lists tracked files that were deleted)."""
    try:
        return os.lstat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UsageError(f"{path} can't be read: {error.strerror}") from None


def _in_git(directory: Path) -> bool:
    return any((above / ".git").exists() for above in (directory, *directory.parents))


def _git(directory: Path, *arguments: str) -> subprocess.CompletedProcess[bytes] | None:
    """Run git there, without the caller's GIT_ variables (a hook sets them); None when there is no git."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    try:
        return subprocess.run(
            ["git", "-C", str(directory), *arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=GIT_SECONDS_MAX,
            check=False,
        )
    except FileNotFoundError:
        return None
    except subprocess.TimeoutExpired:
        raise UsageError(f"git took more than {GIT_SECONDS_MAX:.0f} s in {directory}") from None


def _is_ignored(path: Path) -> bool:
    start = path if path.is_dir() else path.parent
    if not _in_git(start) or (path / ".git").exists():
        return False
    done = _git(path.parent, "check-ignore", "-q", "--", path.name)
    return done is not None and done.returncode == 0


def _git_files(root: Path, depth: int = 0) -> list[str] | None:
    """What git tracks or does not ignore under `root`, submodules and nested repositories included."""
    done = _git(root, "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    if done is None:
        return None
    if done.returncode != 0:
        reason = os.fsdecode(done.stderr).strip().splitlines()
        raise UsageError(f"git can't list the files of {root}: {reason[0] if reason else 'no reason given'}")
    return list(_with_nested(root, (os.fsdecode(raw) for raw in done.stdout.split(b"\0") if raw), depth))


def _with_nested(root: Path, names: Iterable[str], depth: int) -> Iterator[str]:
    for name in names:
        path = f"{root}/{name}"
        if not os.path.isdir(path) or os.path.islink(path.rstrip("/")):
            yield name
            continue
        inner = root / name
        if depth == SUBMODULE_DEPTH_MAX:
            raise UsageError(f"{inner} is more than {SUBMODULE_DEPTH_MAX} repositories deep")
        if (inner / ".git").exists():
            for below in _git_files(inner, depth + 1) or ():
                yield f"{name.rstrip('/')}/{below}"


def _walked_files(root: Path) -> Iterator[str]:
    def refuse(error: OSError) -> None:
        raise UsageError(f"{error.filename} can't be read: {error.strerror}")

    for directory, below, files in os.walk(root, onerror=refuse):
        links = [name for name in below if os.path.islink(os.path.join(directory, name))]
        below[:] = sorted(name for name in below if name not in links and not _is_cache(directory, name))
        for name in files + links:
            if not name.endswith(CACHE_SUFFIXES):
                yield os.path.relpath(os.path.join(directory, name), root)


def _is_cache(directory: str, name: str) -> bool:
    if name in CACHE_DIRECTORIES:
        return True
    return os.path.exists(os.path.join(directory, name, "pyvenv.cfg"))

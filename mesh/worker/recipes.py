"""What a suite's uv environment is made from, and how: read from the root of its tree, as uv's own users expect it.

A `uv.lock` is synced as it is (and must fit `pyproject.toml`). Without one, the project (where `pyproject.toml` has
one) and the requirement files are installed. `[tool.mesh]` may name `groups`, `extras` and `requirements`; without it
uv's defaults hold: the default groups, no extra, and `requirements.txt` with its test and dev companions.

An environment into which the tree itself is installed belongs to that tree alone (`of_tree`): it points into it.
"""

import hashlib
import json
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from protocols.errors import UsageError

REQUIREMENTS = re.compile(r"requirements(?:[-_.](?:test|tests|testing|dev))?\.txt")
FILES_MAX = 100
"""Requirement files, those that others name included."""
FILE_BYTES_MAX = 64 * 1024 * 1024

_NAMES_FILE = re.compile(r"\s*(?:-r|-c|--requirements?|--constraints?)(?:\s+|=)(\S+)")
_LOCAL = re.compile(r"\s*(?:-e\b|--editable\b|\.|/|file:|[^#@]+@\s*(?:file:|\.|/))")
_TABLES = ("project", "build-system", "dependency-groups")


@dataclass(frozen=True, slots=True)
class Recipe:
    """`command`: arguments of uv, after which the environment is complete. `digest`: of all that it is made from."""

    command: tuple[str, ...]
    digest: str
    of_tree: bool


def recipe_of(root: Path) -> Recipe:
    """The recipe of the tree at `root`; `UsageError` when it says nothing, or not clearly, of its dependencies."""
    pyproject = _pyproject(root)
    settings = _Settings(_table(pyproject, "tool", "mesh"))
    uv = _table(pyproject, "tool", "uv")
    sources: dict[str, Any] = {name: pyproject.get(name) for name in _TABLES}
    sources |= {"uv": uv, "groups": settings.groups, "extras": settings.extras}
    sources |= _hashes(root, [name for name in ("uv.lock", "uv.toml") if (root / name).is_file()])
    if (root / "uv.lock").is_file() and settings.requirements is None:
        return _made(_sync(settings, uv), sources, _is_package(pyproject, uv) or _has_local_sources(uv))
    files = settings.requirements
    if files is None:
        files = tuple(sorted(path.name for path in root.iterdir() if REQUIREMENTS.fullmatch(path.name)))
    named = _all_files(root, files)
    sources |= _hashes(root, named)
    command = _install(pyproject, uv, settings, files)
    of_tree = "--editable" in command or _has_local_sources(uv) or any(_is_local(root / name) for name in named)
    return _made(command, sources, of_tree)


class _Settings:
    """`[tool.mesh]`, as far as it speaks of the environment."""

    def __init__(self, table: Mapping[str, Any]) -> None:
        self.groups = _names(table, "groups")
        self.extras = _names(table, "extras") or ()
        self.requirements = _names(table, "requirements")


def _names(table: Mapping[str, Any], name: str) -> tuple[str, ...] | None:
    value = table.get(name)
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        raise UsageError(f"{name} in [tool.mesh] of pyproject.toml must be a list of names, not {str(value)[:80]!r}")
    return tuple(value)


def _pyproject(root: Path) -> dict[str, Any]:
    path = root / "pyproject.toml"
    if not path.is_file():
        return {}
    try:
        return tomllib.loads(_read(path).decode())
    except ValueError as error:  # not TOML, or not UTF-8
        raise UsageError(f"pyproject.toml can't be read: {error}") from None


def _table(document: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    value: Any = document
    for name in names:
        value = value.get(name, {}) if isinstance(value, Mapping) else {}
    return value if isinstance(value, Mapping) else {}


def _sync(settings: _Settings, uv: Mapping[str, Any]) -> tuple[str, ...]:
    command = ["sync", "--locked"]
    if "workspace" in uv:
        command.append("--all-packages")
    if settings.groups is not None:
        command.append("--no-default-groups")
        command += [f"--group={group}" for group in settings.groups]
    return (*command, *(f"--extra={extra}" for extra in settings.extras))


def _install(
    pyproject: Mapping[str, Any], uv: Mapping[str, Any], settings: _Settings, files: tuple[str, ...]
) -> tuple[str, ...]:
    """Without a lock."""
    command = []
    if "project" in pyproject:
        if _is_package(pyproject, uv):
            extras = f"[{','.join(settings.extras)}]" if settings.extras else ""
            command += ["--editable", f".{extras}"]
        else:
            command += ["--requirements=pyproject.toml", *(f"--extra={extra}" for extra in settings.extras)]
    groups = settings.groups
    if groups is None:
        known = tuple(_table(pyproject, "dependency-groups"))
        groups = known if uv.get("default-groups") == "all" else _default_groups(known, uv)
    command += [f"--group={group}" for group in groups]
    command += [f"--requirements={name}" for name in files]
    if not command:
        raise UsageError(
            "--env uv finds nothing to install: the root of the tree has no uv.lock, no [project] or dependency group "
            "in pyproject.toml, and no requirements.txt"
        )
    return ("pip", "install", *command)


def _default_groups(known: tuple[str, ...], uv: Mapping[str, Any]) -> tuple[str, ...]:
    chosen = uv.get("default-groups", ["dev"])
    return tuple(group for group in known if isinstance(chosen, list) and group in chosen)


def _is_package(pyproject: Mapping[str, Any], uv: Mapping[str, Any]) -> bool:
    """Whether uv installs the project itself, and not only what it depends on."""
    return "project" in pyproject and bool(uv.get("package", "build-system" in pyproject))


def _has_local_sources(uv: Mapping[str, Any]) -> bool:
    sources = _table(uv, "sources").values()
    flat = [one for source in sources for one in (source if isinstance(source, list) else [source])]
    return "workspace" in uv or any(isinstance(one, dict) and ("path" in one or "workspace" in one) for one in flat)


def _all_files(root: Path, files: Iterable[str]) -> list[str]:
    """Requirement files and those that they name, relative to the root, sorted."""
    waiting, found = list(files), dict[str, None]()
    inside = root.resolve()
    while waiting:
        name = waiting.pop()
        path = (root / name).resolve()
        if not path.is_relative_to(inside) or not path.is_file():
            raise UsageError(f"the requirement file {name} is not in the tree that is sent to the workers")
        relative = path.relative_to(inside).as_posix()
        if relative in found:
            continue
        found[relative] = None
        if len(found) > FILES_MAX:
            raise UsageError(f"more than {FILES_MAX} requirement files")
        named = [_NAMES_FILE.match(line) for line in _lines(path)]
        waiting += [str(Path(relative).parent / match[1]) for match in named if match and "://" not in match[1]]
    return sorted(found)


def _is_local(path: Path) -> bool:
    """Whether a requirement file installs something from the tree."""
    return any(_LOCAL.match(line) for line in _lines(path))


def _lines(path: Path) -> list[str]:
    return _read(path).decode("utf-8", "replace").splitlines()


def _read(path: Path) -> bytes:
    if path.stat().st_size > FILE_BYTES_MAX:
        raise UsageError(f"{path.name} has more than {FILE_BYTES_MAX} bytes")
    return path.read_bytes()


def _hashes(root: Path, names: Iterable[str]) -> dict[str, str]:
    return {f"file:{name}": hashlib.sha256(_read(root / name)).hexdigest() for name in names}


def _made(command: tuple[str, ...], sources: Mapping[str, Any], of_tree: bool) -> Recipe:
    text = json.dumps([command, sources], sort_keys=True, default=str)
    return Recipe(command, hashlib.sha256(text.encode()).hexdigest(), of_tree)

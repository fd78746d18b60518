"""`[tool.mesh]` of a project's pyproject.toml, as far as it speaks of runs: defaults of `mesh run`, and its reports.

A key has the name of its flag, without the dashes before it; what a flag says on the command line goes before. Other
keys of the table belong to the environment (`worker/recipes.py`), to types of tests (`pytest_side/kinds.py`) and so on.
"""

import argparse
import copy
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mesh.cli.arguments import SECONDS_MAX
from mesh.cli.submission import named_python
from mesh.scheduler.environments import ENVIRONMENTS
from mesh.scheduler.requirements import parse as parse_requirement
from protocols.errors import UsageError
from protocols.inputs import UNSEEN
from protocols.manifests import PREEMPT_MODES, SHARE_MAX

FILE = "pyproject.toml"

OTHERS = ("groups", "extras", "requirements", "types", "alerts")
"""Keys that others read."""

REPORTS_MAX = 50

Check = Callable[[Any], bool]


@dataclass(frozen=True, slots=True)
class Project:
    """What a project says of its runs."""

    root: Path
    defaults: Mapping[str, Any] = field(default_factory=dict)
    """By the names that the parsers of `mesh run` have for them."""
    reports: tuple[str, ...] | None = None
    """KIND[:PATH] each; None: nothing is said."""


@dataclass(frozen=True, slots=True)
class _Key:
    """`dest`: the parser's name for it; `expected`: what its value must be, in words."""

    dest: str
    fits: Check
    expected: str


def _whole(least: int, most: int) -> Check:
    return lambda value: type(value) is int and least <= value <= most


def _seconds(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value <= SECONDS_MAX


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _one_of(names: Sequence[str]) -> Check:
    return lambda value: isinstance(value, str) and value in names


def _texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) and item for item in value)


_COUNT = _whole(0, 1000)
_NUMBER = "a number of seconds above 0"

KEYS: Mapping[str, _Key] = {
    "priority": _Key("priority", _whole(0, 100), "a whole number from 0 to 100"),
    "share": _Key("share", _whole(1, SHARE_MAX), f"a whole number from 1 to {SHARE_MAX}"),
    "deadline": _Key("deadline", _seconds, _NUMBER),
    "preempt": _Key("preempt", _one_of(PREEMPT_MODES), f"one of {', '.join(PREEMPT_MODES)}"),
    "test-type": _Key("test_type", _text, "a text"),
    "requires": _Key("requires", _text, "a requirement, such as 'gpu.memory >= 8GiB'"),
    "prefers": _Key("prefers", _text, "a requirement, such as 'gpu.memory >= 8GiB'"),
    "worker-count": _Key("worker_count", _whole(1, 2**31 - 1), "a whole number of at least 1"),
    "retries": _Key("retries", _COUNT, "a whole number from 0 to 1000"),
    "hedge": _Key("hedge", _flag, "true or false"),
    "cached": _Key("cached", _flag, "true or false"),
    "cached-allow": _Key(
        "cached_allow", lambda value: _texts(value) and set(value) <= set(UNSEEN), f"a list of {', '.join(UNSEEN)}"
    ),
    "timeout": _Key("test_timeout", _seconds, _NUMBER),
    "python": _Key("python", lambda value: _texts(_listed(value)), "a list of versions"),
    "env": _Key("env", _one_of(ENVIRONMENTS), f"one of {', '.join(ENVIRONMENTS)}"),
}


def read_project(path: str | Path) -> Project:
    """Of the project that PATH lies in; `UsageError` names the key that makes no sense."""
    from mesh.content.tree import bundle_root

    root, _ = bundle_root(path)
    try:
        document = tomllib.loads((root / FILE).read_bytes().decode())
    except FileNotFoundError:
        return Project(root)
    except OSError as error:
        raise UsageError(f"{root / FILE} can't be read: {error.strerror or error}") from None
    except ValueError as error:  # not TOML, or not UTF-8
        raise UsageError(f"{root / FILE} can't be read: {error}") from None
    tool = document.get("tool", {})
    table = tool.get("mesh", {}) if isinstance(tool, dict) else {}
    if not isinstance(table, dict):
        raise UsageError(f"tool.mesh of {root / FILE} must be a table")
    return Project(root, _defaults(table), _reports(table))


def parse_with_project(
    parser: argparse.ArgumentParser, words: Sequence[str], given: argparse.Namespace
) -> argparse.Namespace:
    """`parser.parse_args(words, given)`, with what the project that `path` lies in says as the defaults; the project
    itself is `project` of the result."""
    first = parser.parse_args(words, copy.copy(given))
    project = read_project(first.path or ".")
    pythons = project.defaults.get("python", [])
    parser.set_defaults(**{name: value for name, value in project.defaults.items() if name != "python"})
    args = parser.parse_args(words, given)
    args.python = args.python or list(pythons)  # a default would be added to
    if args.exec is not None and not first.cached:
        args.cached = False  # what is said of the project's tests is not said of a command
    if not args.cached and "cached_allow" in project.defaults and args.cached_allow is project.defaults["cached_allow"]:
        args.cached_allow = []  # of no meaning to a run that was told not to reuse anything
    args.project = project
    return args


def _defaults(table: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in table.items():
        if name in OTHERS or name == "reports":
            continue
        key = KEYS.get(name)
        if key is None:
            raise UsageError(f"[tool.mesh] of {FILE} has an unknown key {name[:80]!r}; known are {_known()}")
        if not key.fits(value):
            raise UsageError(f"{name} in [tool.mesh] of {FILE} must be {key.expected}, not {str(value)[:80]!r}")
        found[key.dest] = value
    if "cached_allow" in found:
        found["cached_allow"] = sorted(set(found["cached_allow"]))
    if "python" in found:
        found["python"] = [_python(name) for name in _listed(found["python"])]
    for name in ("requires", "prefers"):
        try:
            parse_requirement(found.get(name, ""))
        except UsageError as error:
            raise UsageError(f"{name} in [tool.mesh] of {FILE}: {error}") from None
    return found


def _listed(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value]


def _python(name: str) -> str:
    try:
        return named_python(name)
    except UsageError as error:
        raise UsageError(f"python in [tool.mesh] of {FILE}: {error}") from None


def _reports(table: Mapping[str, Any]) -> tuple[str, ...] | None:
    value = table.get("reports")
    if value is None:
        return None
    if not _texts(value) or len(value) > REPORTS_MAX:
        raise UsageError(
            f"reports in [tool.mesh] of {FILE} must be a list of at most {REPORTS_MAX} texts such as "
            f"'junit:out/junit.xml', not {str(value)[:80]!r}"
        )
    return tuple(value)


def _known() -> str:
    return ", ".join(sorted((*KEYS, *OTHERS, "reports")))

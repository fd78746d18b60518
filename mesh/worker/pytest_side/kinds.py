"""Types of tests: what `task_type("model")` and `--test-type model` stand for.

Three are built in; a suite adds its own, or changes those, in its pyproject.toml:

    [tool.mesh.types.camera]
    markers = ["camera"]              # tests with one of these markers are of this type
    requires = "label.rig == optics"
    prefers = "label.rack == a"
    resources = { cpu = 2, memory = "4GiB", gpu = 1, disk = 0.5, network = 0.5 }
    exclusive = ["camera-1"]
    timeout = 60                      # seconds, where the test has no limit of its own
    priority = 5
"""

from __future__ import annotations

import importlib
import math
import os
import sys
from dataclasses import dataclass, field
from typing import Any

import pytest

FILE = "pyproject.toml"
DROPPED = "-"
"""Instead of the type of a test that a run of another type leaves out."""


@dataclass(frozen=True)
class Kind:
    """One type. Amounts as in the manifest."""

    markers: tuple[str, ...] = ()
    requires: str = ""
    prefers: str = ""
    resources: dict[str, int] = field(default_factory=dict)
    locks: tuple[str, ...] = ()
    timeout: float = 0.0
    priority: int = 0


BUILT_IN = {
    "model": Kind(markers=("model",), prefers="gpu"),
    "hardware": Kind(markers=("hardware",), prefers="label.hardware"),
    "api": Kind(markers=("api",)),
}


def known(root: str) -> dict[str, Kind]:
    """All types of a suite, by name; `UsageError` names what is wrong in its file."""
    path = os.path.join(root, FILE)
    if not os.path.exists(path):
        return dict(BUILT_IN)
    # before Python 3.11, pytest brings it under another name
    toml: Any = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    try:
        with open(path, "rb") as file:
            document = toml.load(file)
    except (toml.TOMLDecodeError, UnicodeDecodeError) as error:
        raise pytest.UsageError(f"{FILE}: {error}") from None
    table = document.get("tool", {}).get("mesh", {}).get("types", {})
    if not isinstance(table, dict):
        raise pytest.UsageError(f"{FILE}: tool.mesh.types must be a table of types")
    return {**BUILT_IN, **{name: _kind(name, fields) for name, fields in table.items()}}


def _kind(name: str, fields: Any) -> Kind:
    from _mesh_pytest_side import markers

    def wrong(key: str, expected: str) -> pytest.UsageError:
        return pytest.UsageError(f"{FILE}: {key} of tool.mesh.types.{name} must be {expected}")

    if not isinstance(fields, dict):
        raise pytest.UsageError(f"{FILE}: tool.mesh.types.{name} must be a table")
    made: dict[str, Any] = {}
    for key, value in fields.items():
        if key in ("markers", "exclusive"):
            values = [value] if isinstance(value, str) else value
            if not isinstance(values, list) or not all(isinstance(one, str) and one for one in values):
                raise wrong(key, "a name, or a list of names")
            if key == "exclusive" and not (len(set(values)) <= markers.LOCKS_MAX and all(map(markers.is_lock, values))):
                limits = f"{markers.LOCKS_MAX} names of up to {markers.LOCK_CHARACTERS_MAX} characters"
                raise wrong(key, f"at most {limits}")
            made["locks" if key == "exclusive" else key] = tuple(values)
        elif key in ("requires", "prefers"):
            if not isinstance(value, str):
                raise wrong(key, 'an expression, such as "gpu.memory >= 8GiB"')
            made[key] = value
        elif key == "timeout":
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
                raise wrong(key, "a number of seconds")
            made[key] = float(value)
        elif key == "priority":
            if isinstance(value, bool) or not isinstance(value, int) or abs(value) > markers.PRIORITY_MAX:
                raise wrong(key, f"a whole number from -{markers.PRIORITY_MAX} to {markers.PRIORITY_MAX}")
            made[key] = value
        elif key == "resources":
            if not isinstance(value, dict):
                raise wrong(key, "a table of amounts")
            try:
                made[key] = {what: markers.amount(what, much) for what, much in value.items()}
            except ValueError as error:
                raise wrong(key, f"a table with {error}") from None
        else:
            raise pytest.UsageError(
                f"{FILE}: tool.mesh.types.{name} has an unknown key {key!r}; known are markers, requires, prefers, "
                "resources, exclusive, timeout and priority"
            )
    return Kind(**made)


def chosen(wanted: str, names: list[str], types: dict[str, Kind]) -> list[str]:
    """The type of each test of a run of type `wanted` ("": any), of tests whose types are `names`, or `DROPPED`.

    A suite that has tests of the type runs these alone. In one that has none, those without a type are taken for it.
    """
    if not wanted:
        return names
    if wanted not in types:
        raise pytest.UsageError(f"--test-type {wanted!r} is none of the types {', '.join(types)}")
    if wanted in names:
        return [name if name == wanted else DROPPED for name in names]
    return [DROPPED if name else wanted for name in names]

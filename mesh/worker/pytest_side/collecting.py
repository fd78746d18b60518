"""From collected items to the manifest's data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest


def text(node_id: str) -> str:
    """A node ID that is valid UTF-8, as it is known outside this process."""
    if node_id.isascii():
        return node_id
    return node_id.encode("utf-8", "backslashreplace").decode()


def expression(item: pytest.Item, name: str) -> str:
    """The arguments of all markers `name` of an item, joined by "and"."""
    parts: list[str] = []
    for marker in item.iter_markers(name):
        if len(marker.args) != 1 or marker.kwargs or not isinstance(marker.args[0], str):
            shown = ", ".join([*map(repr, marker.args), *(f"{key}={value!r}" for key, value in marker.kwargs.items())])
            raise pytest.UsageError(f'{item.nodeid}: marker {name}({shown}) takes one string, such as "memory >= 4GiB"')
        if marker.args[0] not in parts:
            parts.append(marker.args[0])
    if len(parts) == 1:
        return parts[0]
    return " and ".join(f"({part})" for part in parts)


def scope(item: pytest.Item) -> str:
    """What an item shares fixtures with: its module, or its xdist_group."""
    group = item.get_closest_marker("xdist_group")
    if group is not None:
        name = group.args[0] if group.args else group.kwargs.get("name")
        if name is not None:
            return text(f"@{name}")
    return text(item.nodeid.split("::", 1)[0])


def timeout(item: pytest.Item) -> float:
    """Seconds of the closest `timeout` marker; 0 without one."""
    marker = item.get_closest_marker("timeout")
    if marker is None:
        return 0.0
    value = marker.args[0] if marker.args else marker.kwargs.get("timeout", 0)
    if value is None:
        return 0.0
    try:
        return max(0.0, float(value))
    except (TypeError, ValueError):
        raise pytest.UsageError(f"{item.nodeid}: marker timeout({value!r}) takes a number of seconds") from None


def manifest(session: pytest.Session, skipped: Iterable[str]) -> dict[str, Any]:
    """{"tests": [[id, scope, requirement, timeout], …], "requirements": [[requires, prefers], …]}.

    A file that skips itself as a whole counts as one test, as it does in pytest's own summary.
    """
    requirements: dict[tuple[str, str], int] = {("", ""): 0}
    tests: list[list[Any]] = []
    for item in session.items:
        pair = (expression(item, "requires"), expression(item, "prefers"))
        index = requirements.setdefault(pair, len(requirements))
        tests.append([text(item.nodeid), scope(item), index, timeout(item)])
    tests += [[node_id, node_id, 0, 0.0] for node_id in skipped]
    return {"tests": tests, "requirements": list(requirements)}

"""From collected items to the manifest's data."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import pytest
from _mesh_pytest_side import kinds, markers, ordering

TELLING = frozenset(
    (
        *("requires", "prefers", "resources", "exclusive", "priority", "task_type", "xdist_group", "timeout"),
        *ordering.MARKERS,
    )
)
"""Markers that say something of a test to the mesh."""


def text(node_id: str) -> str:
    """A node ID that is valid UTF-8, as it is known outside this process."""
    if node_id.isascii():
        return node_id
    return node_id.encode("utf-8", "backslashreplace").decode()


def expression(item: pytest.Item, name: str, also: str = "") -> str:
    """The arguments of all markers `name` of an item, and what its type asks for, joined by "and"."""
    parts: list[str] = [also] if also else []
    for marker in item.iter_markers(name):
        if len(marker.args) != 1 or marker.kwargs or not isinstance(marker.args[0], str):
            raise markers.wrong(item, marker, 'one string, such as "memory >= 4GiB"')
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
        seconds = max(0.0, float(value))
        if math.isnan(seconds):
            raise ValueError
        return seconds if seconds < math.inf else 0.0
    except (TypeError, ValueError):
        raise pytest.UsageError(f"{item.nodeid}: marker timeout({value!r}) takes a number of seconds") from None


def manifest(
    session: pytest.Session, skipped: Iterable[str], deselected: Iterable[str], test_type: str
) -> dict[str, Any]:
    """{"tests": [[id, scope, requirement, timeout], …], "requirements": [[requires, prefers], …],
    "needs": [one for each requirement], "dependencies": [[first, count, on, on_count, passed], …]}: see `Manifest`.

    A file that skips itself as a whole counts as one test, as it does in pytest's own summary.
    """
    types = kinds.known(str(session.config.rootpath))
    told = {*TELLING, *(mark for kind in types.values() for mark in kind.markers)}
    # nearly all tests have no marker that matters: looking for each of them one by one would cost more than the rest
    marked = [not told.isdisjoint(marker.name for marker in item.iter_markers()) for item in session.items]
    found = zip(session.items, marked)  # noqa: B905
    names = kinds.chosen(test_type, [markers.kind_name(item, types) if some else "" for item, some in found], types)
    asked: dict[tuple[str, str, markers.Needs], int] = {("", "", markers.NOTHING): 0}
    tests: list[list[Any]] = []
    items, left_out = [], list(deselected)
    for item, some, name in zip(session.items, marked, names):  # noqa: B905
        if name == kinds.DROPPED:
            left_out.append(item.nodeid)
            continue
        items.append(item)
        kind = types.get(name)
        if not (some or kind):
            tests.append([text(item.nodeid), text(item.nodeid.split("::", 1)[0]), 0, 0.0])
            continue
        requires = expression(item, "requires", kind.requires if kind else "")
        prefers = expression(item, "prefers", kind.prefers if kind else "")
        index = asked.setdefault((requires, prefers, markers.needs(item, kind)), len(asked))
        limit = timeout(item) or (kind.timeout if kind else 0.0)
        tests.append([text(item.nodeid), scope(item), index, limit])
    edges = ordering.dependencies(items, left_out) if any(marked) else []
    tests += [[node_id, node_id, 0, 0.0] for node_id in skipped]
    return {
        "tests": tests,
        "requirements": [[requires, prefers] for requires, prefers, _ in asked],
        "needs": [needs for _, _, needs in asked],
        "dependencies": edges,
    }

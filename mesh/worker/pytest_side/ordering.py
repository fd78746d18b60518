"""Which tests wait for which: the markers `depends`, `dependency` (pytest-dependency) and `order` (pytest-order), as
dependencies between ranges of the list of tests.

`depends("name")` names a node ID, a test of the same file, a `dependency(name=)`, or a test that is in one file only;
without its parameters it means all of them. A name that no test has is an error, unless the test was deselected: then
those who depend on it are skipped. `dependency` follows the plugin: only marked tests have names, in their scope; one
that nobody has means a skip. `order` means the order in which pytest-order would run them, and nobody is skipped for
it: tests of one number run side by side, before those of the next; those without one come before the negative ones.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from _mesh_pytest_side import markers

ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth")
LAST = {
    "last": -1, "second_to_last": -2, "third_to_last": -3, "fourth_to_last": -4,
    "fifth_to_last": -5, "sixth_to_last": -6, "seventh_to_last": -7, "eighth_to_last": -8,
}  # fmt: skip
MARKERS = ("depends", "dependency", "order")

Dependency = tuple[int, int, int, int, bool]
"""(first, count) of those who wait, (first, count) of those waited for, whether they must have passed."""
Wait = tuple[tuple[int, ...], bool]
"""The tests waited for, ascending, and the same."""


def take_over() -> None:
    """In a slot: pytest-dependency knows only what ran in this process, so whether a test may run is not its affair."""
    module: Any = sys.modules.get("pytest_dependency")
    if module is not None:
        module.DependencyManager.checkDepend = lambda *_: None


def base(node_id: str) -> str:
    """A node ID, or a name, without its parameters."""
    return node_id.partition("[")[0]


class Names:
    """The tests of a list by whatever a marker may call them."""

    def __init__(self, items: Sequence[pytest.Item], deselected: Iterable[str]) -> None:
        self._known: dict[str, list[int]] = {}
        self._named: dict[tuple[str, str], list[int]] = {}
        """(scope, name) of the `dependency` plugin."""
        self._deselected = set()
        self._all_named = _all_named(items)
        for index, item in enumerate(items):
            path, _, name = item.nodeid.partition("::")
            for alias in {item.nodeid, base(item.nodeid), f"::{name}", f"::{base(name)}"}:
                self._known.setdefault(alias, []).append(index)
            self._register(index, item, path, name)
        for node_id in deselected:
            path, _, name = node_id.partition("::")
            self._deselected |= {node_id, base(node_id), f"::{name}", f"::{base(name)}"}
        self._items = items

    def _register(self, index: int, item: pytest.Item, path: str, name: str) -> None:
        marker = item.get_closest_marker("dependency")
        if marker is None and not self._all_named:
            return
        given = marker.kwargs.get("name") if marker is not None else None
        names = {scope: str(given or own) for scope, own in _own_names(item, path, name)}
        for scope, known in names.items():
            self._named.setdefault((scope, known), []).append(index)
        if given:
            self._named.setdefault(("", str(given)), []).append(index)

    def of_depends(self, item: pytest.Item, marker: pytest.Mark, name: str) -> tuple[int, ...]:
        """What `depends(name)` of an item means; empty: a test that was deselected."""
        path = item.nodeid.partition("::")[0]
        for found in (
            self._known.get(name),
            self._known.get(f"{path}::{name}"),
            self._named.get(("", name)),
        ):
            if found:
                return tuple(found)
        anywhere = self._known.get(f"::{name}", [])
        if len({self._items[index].nodeid.partition("::")[0] for index in anywhere}) == 1:
            return tuple(anywhere)
        if anywhere:
            raise markers.wrong(item, marker, "node IDs where tests of several files have the name")
        if {name, f"{path}::{name}", f"::{name}"} & self._deselected:
            return ()
        raise markers.wrong(item, marker, "node IDs or names of tests, and there is none of that name")

    def of_dependency(self, item: pytest.Item, scope: str, name: str) -> tuple[int, ...]:
        """What `dependency(depends=[name], scope=scope)` of an item means; empty: nothing."""
        path, _, own = item.nodeid.partition("::")
        return tuple(self._named.get((_scope(item, scope, path, own), name), ()))

    def of_order(self, item: pytest.Item, name: str) -> tuple[int, ...]:
        path = item.nodeid.partition("::")[0]
        inside = base(item.nodeid).rpartition("::")[0]
        for alias in (name, f"{inside}::{name}", f"{path}::{name}", f"::{name}"):
            if alias in self._known:
                return tuple(self._known[alias])
        return ()


def _all_named(items: Sequence[pytest.Item]) -> bool:
    """The plugin's setting that gives every test a name."""
    try:
        return bool(items and items[0].config.getini("automark_dependency"))
    except (KeyError, ValueError):
        return False


def _own_names(item: pytest.Item, path: str, name: str) -> list[tuple[str, str]]:
    """(scope, name) under which a `dependency` without a name of its own is known."""
    return [
        (_scope(item, "session", path, name), item.nodeid),
        (_scope(item, "package", path, name), item.nodeid),
        (_scope(item, "module", path, name), name),
        (_scope(item, "class", path, name), name.rpartition("::")[2]),
    ]


def _scope(item: pytest.Item, scope: str, path: str, name: str) -> str:
    if scope == "class":
        return f"class {path}::{base(name).rpartition('::')[0]}"
    if scope == "package":
        return f"package {path.rpartition('/')[0]}"
    return f"module {path}" if scope == "module" else "session"


def dependencies(items: Sequence[pytest.Item], deselected: Iterable[str]) -> list[Dependency]:
    """All dependencies between the items, by their places in the list."""
    marked = [
        (index, item) for index, item in enumerate(items) if any(item.get_closest_marker(name) for name in MARKERS)
    ]
    if not marked:
        return []
    names = Names(items, deselected)
    waits: dict[int, list[Wait]] = {}
    for index, item in marked:
        for wait in _passed(item, names):
            waits.setdefault(index, []).append(wait)
        _relative(index, item, names, waits)
    return [*_ranges(waits), *_barriers(items)]


def _passed(item: pytest.Item, names: Names) -> Iterable[Wait]:
    for marker in item.iter_markers("depends"):
        if not marker.args or marker.kwargs or not all(isinstance(name, str) and name for name in marker.args):
            raise markers.wrong(item, marker, "node IDs or names of tests")
        for name in marker.args:
            yield names.of_depends(item, marker, name), True
    found = item.get_closest_marker("dependency")
    depends = found.kwargs.get("depends", ()) if found is not None else ()
    for name in [depends] if isinstance(depends, str) else depends or ():
        yield names.of_dependency(item, str(found.kwargs.get("scope", "module")), str(name)), True  # type: ignore[union-attr]


def _relative(index: int, item: pytest.Item, names: Names, waits: dict[int, list[Wait]]) -> None:
    """`order(before=)` and `order(after=)`."""
    for marker in item.iter_markers("order"):
        for name in _listed(marker.kwargs.get("after")):
            found = names.of_order(item, name)
            if found:
                waits.setdefault(index, []).append((found, False))
        for name in _listed(marker.kwargs.get("before")):
            for other in names.of_order(item, name):
                waits.setdefault(other, []).append(((index,), False))


def _listed(value: Any) -> list[str]:
    values = [value] if isinstance(value, str) else value if isinstance(value, (list, tuple)) else []
    return [str(one) for one in values]


def _number(item: pytest.Item) -> int | None:
    """The number of an item's `order` marker."""
    marker = item.get_closest_marker("order")
    if marker is None:
        return None
    value = marker.args[0] if marker.args else marker.kwargs.get("index")
    if isinstance(value, str):
        return ORDINALS.index(value) if value in ORDINALS else LAST.get(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _barriers(items: Sequence[pytest.Item]) -> list[Dependency]:
    """Each number's tests after those of the number before; those without a marker between 0 and the negative ones."""
    groups: dict[int, list[int]] = {}
    free: list[int] = []
    for index, item in enumerate(items):
        number = _number(item)
        if number is not None:
            groups.setdefault(number, []).append(index)
        elif item.get_closest_marker("order") is None:
            free.append(index)
    if not groups:
        return []
    chain = [groups[number] for number in sorted(groups) if number >= 0]
    chain += [free] if free else []
    chain += [groups[number] for number in sorted(groups) if number < 0]
    return [
        (first, count, on, on_count, False)
        for before, after in zip(chain, chain[1:])  # noqa: B905, RUF007
        for first, count in _runs(after)
        for on, on_count in _runs(before)
    ]


def _ranges(waits: dict[int, list[Wait]]) -> list[Dependency]:
    """The same for neighbours that wait for the same, taken together."""
    by_wait: dict[Wait, list[int]] = {}
    for index in sorted(waits):
        for wait in dict.fromkeys(waits[index]):
            by_wait.setdefault(wait, []).append(index)
    return [
        (first, count, on, on_count, passed)
        for (others, passed), indexes in by_wait.items()
        for first, count in _runs(indexes)
        for on, on_count in _runs(others) or [(0, 0)]
    ]


def _runs(indexes: Sequence[int]) -> list[tuple[int, int]]:
    """Ascending numbers as (first, count) of neighbours."""
    runs: list[tuple[int, int]] = []
    for index in indexes:
        if runs and sum(runs[-1]) == index:
            runs[-1] = (runs[-1][0], runs[-1][1] + 1)
        else:
            runs.append((index, 1))
    return runs

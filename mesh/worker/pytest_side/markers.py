"""What the markers of an item say of it: what it needs while it runs, when it should run, of which type it is.

A marker that makes no sense is an error that names the test and the marker: nothing is run before it is mended. What a
type says (`kinds`) counts where the item's own markers say nothing.
"""

from __future__ import annotations

import re
from typing import Any

import pytest
from _mesh_pytest_side import kinds

THOUSAND = 1_000
CPU_MAX, GPU_MAX, PRIORITY_MAX = 1_024, 64, 1_000
HOSTS_MAX = 8
MEMORY_MAX = 2**50
LOCKS_MAX, LOCK_CHARACTERS_MAX = 16, 100

Needs = tuple[int, int, int, int, int, tuple[str, ...], int, int]
"""(cpu, memory, gpu, disk, network, locks, priority, hosts), as the manifest has them: thousandths and bytes."""

NOTHING: Needs = (THOUSAND, 0, 0, 0, 0, (), 0, 1)

_UNITS = {
    "": 1, "b": 1, "kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40,
    "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12,
}  # fmt: skip
_AMOUNT = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")
_EXAMPLE = 'resources(cpu=2, memory="4GiB", gpu=1)'


def wrong(item: pytest.Item, marker: pytest.Mark, expected: str) -> pytest.UsageError:
    """What is raised for a marker that makes no sense."""
    shown = ", ".join([*map(repr, marker.args), *(f"{key}={value!r}" for key, value in marker.kwargs.items())])
    return pytest.UsageError(f"{item.nodeid}: marker {marker.name}({shown}) takes {expected}")


def needs(item: pytest.Item, kind: kinds.Kind | None) -> Needs:
    """What an item takes while it runs, and its priority."""
    amounts = {**(kind.resources if kind else {})}
    for marker in reversed(list(item.iter_markers("resources"))):  # the closest counts last
        if marker.args or not marker.kwargs:
            raise wrong(item, marker, f"names and amounts, such as {_EXAMPLE}")
        for name, value in marker.kwargs.items():
            try:
                amounts[name] = amount(name, value)
            except ValueError as error:
                raise wrong(item, marker, str(error)) from None
    return (
        amounts.get("cpu", THOUSAND),
        amounts.get("memory", 0),
        amounts.get("gpu", 0),
        amounts.get("disk", 0),
        amounts.get("network", 0),
        _locks(item, kind),
        _priority(item, kind),
        amounts.get("hosts", 1),
    )


def amount(name: str, value: Any) -> int:
    """An amount of a resource as the manifest has it; `ValueError` with what is expected."""
    if name == "memory":
        size = _size(value)
        if size is None or not 0 <= size <= MEMORY_MAX:
            raise ValueError('memory as text such as "4GiB", or in bytes')
        return size
    if name == "hosts":
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= HOSTS_MAX:
            raise ValueError(f"as hosts how many at once, 1 to {HOSTS_MAX}")
        return value
    if name not in ("cpu", "gpu", "disk", "network"):
        raise ValueError(f"cpu, memory, gpu, disk, network and hosts, not {name}")
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"a number as {name}")
    thousandths = round(value * THOUSAND) if abs(value) < 2**20 else -1
    if name == "cpu" and not 0 < thousandths <= CPU_MAX * THOUSAND:
        raise ValueError(f"as cpu how many processors, up to {CPU_MAX}")
    if name == "gpu" and not (0 <= thousandths <= THOUSAND or (value == int(value) and 0 <= value <= GPU_MAX)):
        raise ValueError(f"as gpu a whole number up to {GPU_MAX}, or a share of one such as 0.5")
    if name in ("disk", "network") and not 0 <= thousandths <= THOUSAND:
        raise ValueError(f"as {name} a share from 0 to 1")
    return thousandths


def _size(value: Any) -> int | None:
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    found = _AMOUNT.fullmatch(value.strip()) if isinstance(value, str) else None
    if found is None or found[2].lower() not in _UNITS:
        return None
    return int(float(found[1]) * _UNITS[found[2].lower()])


def is_lock(name: Any) -> bool:
    """Whether it can name a lock."""
    return isinstance(name, str) and 0 < len(name) <= LOCK_CHARACTERS_MAX


def _locks(item: pytest.Item, kind: kinds.Kind | None) -> tuple[str, ...]:
    names = set(kind.locks if kind else ())
    for marker in item.iter_markers("exclusive"):
        if not marker.args or marker.kwargs or not all(map(is_lock, marker.args)):
            raise wrong(item, marker, 'the name of a lock, such as "camera-1"')
        names.update(marker.args)
        if len(names) > LOCKS_MAX:
            raise wrong(item, marker, f"with those around it at most {LOCKS_MAX} locks")
    return tuple(sorted(names))


def _priority(item: pytest.Item, kind: kinds.Kind | None) -> int:
    marker = item.get_closest_marker("priority")
    if marker is None:
        return kind.priority if kind else 0
    value = marker.args[0] if len(marker.args) == 1 and not marker.kwargs else None
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > PRIORITY_MAX:
        raise wrong(item, marker, f"a whole number from -{PRIORITY_MAX} to {PRIORITY_MAX}")
    return value


def kind_name(item: pytest.Item, known: dict[str, kinds.Kind]) -> str:
    """The type of an item: its `task_type`, else the first type that one of its markers stands for; else empty."""
    marker = item.get_closest_marker("task_type")
    if marker is not None:
        name = marker.args[0] if len(marker.args) == 1 and not marker.kwargs else None
        if name not in known:
            raise wrong(item, marker, "one of the types " + ", ".join(known))
        return str(name)
    for name, kind in known.items():
        if any(item.get_closest_marker(mark) is not None for mark in kind.markers):
            return name
    return ""

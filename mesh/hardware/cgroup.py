"""What a container may use of its host: the limits of Linux's control groups (version 2).

A limit set on any ancestor binds, so the smallest from the process's own group up to the root counts. No library of
ours reads these files (psutil shows the host). Version 1, which distributions have left, is not read: there the host's
own sizes stand.
"""

import math
from collections.abc import Iterator
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")
DEPTH_MAX = 32
"""Groups followed from the process's own up to the root."""


def cpus(root: Path = ROOT, membership: Path = MEMBERSHIP) -> int | None:
    """CPUs that the quota amounts to, rounded up; None: no limit."""
    limits = []
    for group in _groups(root, membership):
        quota, _, period = (_read(group / "cpu.max") or "max").partition(" ")
        if quota.isdigit() and period.isdigit() and int(period) > 0:
            limits.append(max(1, math.ceil(int(quota) / int(period))))
    return min(limits, default=None)


def memory(root: Path = ROOT, membership: Path = MEMBERSHIP) -> int | None:
    """Bytes that the group may hold; None: no limit."""
    limits = [_number(group / "memory.max") for group in _groups(root, membership)]
    return min((limit for limit in limits if limit is not None), default=None)


def memory_available(root: Path = ROOT, membership: Path = MEMBERSHIP) -> int | None:
    """Bytes that the group may still take, counting page cache that can be dropped as free; None: no limit."""
    rooms = []
    for group in _groups(root, membership):
        limit, used = _number(group / "memory.max"), _number(group / "memory.current")
        if limit is not None and used is not None:
            rooms.append(max(0, limit - used + _inactive_file(group)))
    return min(rooms, default=None)


def _groups(root: Path, membership: Path) -> Iterator[Path]:
    for line in (_read(membership) or "").splitlines():
        if not line.startswith("0::"):
            continue
        group = root / line[3:].lstrip("/")
        for _ in range(DEPTH_MAX):
            if group.is_dir():
                yield group
            if group == root or root not in group.parents:
                return
            group = group.parent


def _inactive_file(group: Path) -> int:
    for line in (_read(group / "memory.stat") or "").splitlines():
        key, _, value = line.partition(" ")
        if key == "inactive_file" and value.isdigit():
            return int(value)
    return 0


def _number(path: Path) -> int | None:
    text = _read(path)
    return int(text) if text is not None and text.isdigit() else None


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None

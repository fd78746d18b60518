"""Main memory in bytes, by psutil, capped by the control group's limit."""

from pathlib import Path
from typing import Any

import psutil

from mesh.hardware import cgroup


def probe(home: Path) -> dict[str, Any]:
    total = psutil.virtual_memory().total
    return {"memory": min(total, cgroup.memory() or total)}


def load(home: Path) -> dict[str, Any]:
    available = psutil.virtual_memory().available
    room = cgroup.memory_available()
    return {"memory.available": available if room is None else min(available, room)}

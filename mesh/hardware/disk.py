"""The file system that holds the node's home, in bytes."""

from pathlib import Path
from typing import Any

import psutil


def probe(home: Path) -> dict[str, Any]:
    return {"disk.total": psutil.disk_usage(str(_existing(home))).total}


def load(home: Path) -> dict[str, Any]:
    return {"disk.free": psutil.disk_usage(str(_existing(home))).free}


def _existing(path: Path) -> Path:
    """The nearest ancestor that exists: a home may not have been made yet."""
    path = path.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    return path

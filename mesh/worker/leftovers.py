"""Temporary folders of the processes that run tests: named by their node's process, so that what a killed one left
behind can be told from what is in use, and removed by the next node of the same user."""

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

import psutil

_NAME = re.compile(r"mesh-(run|slots|share)-(\d+)-\w+")


def temporary_folder(kind: str) -> Path:
    """A new one; `kind` is "run", "slots" or "share"."""
    return Path(tempfile.mkdtemp(prefix=f"mesh-{kind}-{os.getpid()}-"))


def remove_tree(folder: Path) -> None:
    """Remove what tests may have put anything into, as far as that is possible. Slow where there is much: not for the
    event loop's own thread."""
    try:
        shutil.rmtree(folder, ignore_errors=True)
    except RecursionError:  # a thousand folders in each other
        subprocess.run(["rm", "-rf", "--", str(folder)], stderr=subprocess.DEVNULL, check=False)


def remove_leftovers() -> list[str]:
    """Remove this user's folders whose process is gone; their names. Other nodes of this host may be at it too."""
    removed = []
    for path in sorted(Path(tempfile.gettempdir()).glob("mesh-*")):
        match = _NAME.fullmatch(path.name)
        if match and not psutil.pid_exists(int(match[2])) and _ours(path):
            remove_tree(path)
            removed.append(path.name)
    return removed


def _ours(path: Path) -> bool:
    """Whether this user owns it; not if another node has just removed it."""
    try:
        return path.lstat().st_uid == os.getuid()
    except FileNotFoundError:
        return False

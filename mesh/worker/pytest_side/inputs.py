"""What a warm process rests on, outside of the bundle and inside: whether it may still speak for what lies on the disk.

A collection depends on the modules that it imported and on the directories that they were looked for in. Their stamps
are taken when it is done, and compared before it serves another run: an upgraded package, a new one, or a module that a
test rewrote makes it stale. A directory of the bundle itself is stamped by its identity alone (tests may leave files
there; what the bundle holds is said by its CID).
"""

from __future__ import annotations

import os
import sys

Stamps = dict[str, list[int]]


def stamp(path: str, root: str) -> list[int]:
    """What changes when the file or directory does; empty if there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return []
    if os.path.isdir(path) and (path == root or path.startswith(root + os.sep)):
        return [found.st_dev, found.st_ino]
    return [found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns]


def stamps(root: str) -> Stamps:
    """Of everything that this process has imported, and could have."""
    paths = {root, *(entry for entry in sys.path if entry)}
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if isinstance(file, str):
            paths.add(file)
    return {path: stamp(path, root) for path in sorted(paths)}


def unchanged(taken: Stamps, root: str) -> bool:
    """Whether all of it is as it was."""
    return all(stamp(path, root) == found for path, found in taken.items())

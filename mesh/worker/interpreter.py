"""What an interpreter is, and what is installed for it: `describe()` here, `python interpreter.py` under another one.

The standard library only, and nothing newer than Python 3.9. Names and versions come from the names of metadata
folders, which costs a listing; reading each distribution's metadata would cost a tenth of a second.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import sysconfig

FOLDERS = ("site-packages", "dist-packages")


def describe() -> dict[str, object]:
    """implementation, python, platform, and distributions: lines "name version", sorted."""
    return {
        "implementation": sys.implementation.name,
        "python": platform.python_version(),
        "platform": sysconfig.get_platform(),
        "distributions": sorted(distributions(sys.path)),
    }


def distributions(path: list[str]) -> set[str]:
    """Of all site folders on `path`."""
    found = set()
    for folder in path:
        if os.path.basename(folder.rstrip("/")) not in FOLDERS:
            continue
        try:
            names = os.listdir(folder)
        except OSError:
            continue
        for name in names:
            stem, suffix = os.path.splitext(name)
            if suffix in (".dist-info", ".egg-info"):
                title, _, version = stem.partition("-")
                found.add((title.lower().replace("_", "-") + " " + version.split("-py3")[0]).strip())
    return found


if __name__ == "__main__":
    print(json.dumps(describe()))

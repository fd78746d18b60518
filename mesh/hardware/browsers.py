"""Browsers on the PATH, by the names that browser drivers use, with their versions.

Each executable is asked with `--version`, once per file: no library knows,
and a browser's version is what tests ask for.
"""

import functools
import logging
import re
import shutil
from pathlib import Path
from typing import Any

from mesh.hardware.command import CommandFailed, output

log = logging.getLogger(__name__)

EXECUTABLES = (
    ("chrome", "google-chrome"),
    ("chrome", "google-chrome-stable"),
    ("chromium", "chromium"),
    ("chromium", "chromium-browser"),
    ("edge", "microsoft-edge"),
    ("edge", "microsoft-edge-stable"),
    ("brave", "brave-browser"),
    ("firefox", "firefox"),
    ("firefox", "firefox-esr"),
)

_VERSION = re.compile(r"\d+(\.\d+)+")


def probe(home: Path) -> dict[str, Any]:
    found: dict[str, str] = {}
    for name, executable in EXECUTABLES:
        path = shutil.which(executable)
        if path is None or name in found:
            continue
        try:
            stat = Path(path).stat()
            version = _version(path, stat.st_mtime_ns, stat.st_ino)
        except (CommandFailed, OSError) as error:
            log.debug("left out of the browsers: %s", error)
            continue
        found[name] = version
    return {"browsers": tuple({"name": name, "version": version} for name, version in found.items())}


@functools.lru_cache(maxsize=32)
def _version(path: str, modified: int, inode: int) -> str:
    match = _VERSION.search(output([path, "--version"]))
    if match is None:
        raise CommandFailed(f"{path} --version names no version")
    return match.group()

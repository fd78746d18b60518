"""The Pythons here: "python" is the interpreter that runs the node, "pythons" the other CPython releases on the PATH,
and where uv and pyenv keep theirs.

A name such as `python3.12` may be a shim that starts nothing, so each is asked for its version, once per file.
"""

import functools
import logging
import os
import platform
import re
import sys
from glob import glob
from pathlib import Path
from typing import Any

from mesh.hardware.command import CommandFailed, CommandHung, output

log = logging.getLogger(__name__)

INTERPRETERS_MAX = 32
"""Interpreters asked, at most."""

_NAME = re.compile(r"python3(\.\d{1,2})?")
_VERSION = re.compile(r"\d+\.\d+\.\d+\w*\+?")
_QUESTION = "import platform; print(platform.python_implementation(), platform.python_version())"


def probe(home: Path) -> dict[str, Any]:
    own = {"python": platform.python_version(), "python.implementation": sys.implementation.name}
    return {**own, "pythons": tuple(installed())}


def installed() -> dict[str, Path]:
    """Version -> interpreter, of all Pythons but the node's own, the oldest first."""
    found: dict[str, Path] = {}
    shims = os.path.join(_pyenv(), "shims")  # each starts a shell, and leads to what is found without it
    on_path = [folder for folder in os.environ.get("PATH", os.defpath).split(os.pathsep) if folder != shims]
    for path in interpreters(os.pathsep.join([*kept_elsewhere(), *on_path])):
        try:
            stat = path.stat()
            found.setdefault(_version(str(path), stat.st_mtime_ns, stat.st_ino), path)
        except (CommandHung, OSError) as error:
            log.debug("left out of the Pythons: %s", error)
    return {version: found[version] for version in _sorted(set(found) - {platform.python_version(), ""})}


def kept_elsewhere() -> list[str]:
    """Folders of interpreters that uv and pyenv installed for this user, which are on no PATH."""
    user = os.path.expanduser("~")
    uv = os.environ.get("UV_PYTHON_INSTALL_DIR") or os.path.join(user, ".local", "share", "uv", "python")
    return sorted([*glob(os.path.join(uv, "*", "bin")), *glob(os.path.join(_pyenv(), "versions", "*", "bin"))])


def _pyenv() -> str:
    return os.environ.get("PYENV_ROOT") or os.path.join(os.path.expanduser("~"), ".pyenv")


def interpreters(search_path: str) -> list[Path]:
    """Executables named like a Python 3, each once, in the order of the PATH and then of their names."""
    found: dict[Path, Path] = {}
    for folder in search_path.split(os.pathsep):
        try:
            names = sorted(os.listdir(folder or "."))
        except OSError:  # a PATH names folders that are not there
            continue
        for name in names:
            path = Path(folder or ".") / name
            if _NAME.fullmatch(name) and os.access(path, os.X_OK) and path.is_file():
                found.setdefault(path.resolve(), path)
    return list(found.values())[:INTERPRETERS_MAX]


@functools.lru_cache(maxsize=64)
def _version(path: str, modified: int, inode: int) -> str:
    """Such as "3.12.1"; "" if it is not CPython or does not start. The last two make a replaced file a new question."""
    try:
        implementation, _, version = output([path, "-I", "-S", "-c", _QUESTION]).strip().partition(" ")
    except CommandHung:
        raise
    except CommandFailed:
        return ""
    return version if implementation == "CPython" and _VERSION.fullmatch(version) else ""


def _sorted(versions: set[str]) -> tuple[str, ...]:
    return tuple(sorted(versions, key=lambda version: ([int(part) for part in re.findall(r"\d+", version)], version)))

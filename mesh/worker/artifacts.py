"""What a test left in its folder of artifacts. Tests leave anything there: sockets, links to elsewhere, files of
another user. What content can't hold is left out with a warning, and the rest is kept."""

import os
import stat
from pathlib import Path

WARNINGS_MAX = 20
"""Of one test; the last one tells how many more there would be."""


def leave_out(folder: Path) -> list[str]:
    """Remove what can't be kept below `folder`; a warning for each."""
    warnings = []
    for directory, below, names in os.walk(folder):
        for path in (Path(directory, name) for name in below + names):
            reason = _unfit(folder, path)
            if reason:
                path.unlink(missing_ok=True)
                warnings.append(warning(str(path.relative_to(folder)), reason))
    if len(warnings) > WARNINGS_MAX:
        warnings[WARNINGS_MAX - 1 :] = [warning(f"{len(warnings) - WARNINGS_MAX + 1} more", "as those before")]
    return warnings


def warning(what: str, reason: str) -> str:
    """A line for the record's warnings."""
    told = what.encode(errors="backslashreplace").decode()  # a name need not be Unicode
    return f"mesh_artifacts: {told} not kept: {reason}"


def _unfit(folder: Path, path: Path) -> str:
    """Why it can't be kept, or ""."""
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        inside = Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))
        return "" if inside and not os.path.isabs(os.readlink(path)) else "a link to outside of the folder"
    if stat.S_ISREG(mode):
        return "" if os.access(path, os.R_OK) else "it can't be read"
    return "" if stat.S_ISDIR(mode) else "no file, directory or link"

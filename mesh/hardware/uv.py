"""The program that builds suites' environments: "uv" is its version, where it is."""

import logging
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

from mesh.hardware.command import CommandFailed, output

log = logging.getLogger(__name__)

SECONDS_MAX = 5.0

_VERSION = re.compile(r"\d+\.\d+\.\d+\w*")


def probe(home: Path) -> dict[str, Any]:
    uv = find_uv()
    if uv is None:
        return {}
    try:
        match = _VERSION.search(output([uv, "--version"], SECONDS_MAX))
    except CommandFailed as error:
        log.debug("left out: %s", error)
        return {}
    return {"uv": match[0]} if match else {}


def find_uv() -> str | None:
    """uv on the PATH, or installed beside the interpreter that runs the node."""
    beside = os.path.join(os.path.dirname(sys.executable), "uv")
    return shutil.which("uv") or (beside if os.access(beside, os.X_OK) else None)

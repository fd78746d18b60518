"""What this host is, and how busy it is: one probe per kind of device, as plain data for a node's presence.

`probe` gives what rarely changes (`Presence.capabilities`, the names of interface.md), `load` what always does
(`Presence.load`). Both block, `load` for about `CPU_SAMPLE_SECONDS`: call them in a thread. A probe that fails yields
nothing and one log line; a host without GPUs is not an error. What a container may use is what counts: CPU affinity and
cgroup limits cap what the hardware has.

Importing this package is light: psutil and NVML are loaded at the first call. Rejected: `cpuinfo`, `nvidia-smi`,
`lscpu`, whose screens would have to be parsed and whose processes would have to be waited for.
"""

import importlib
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

PROBES = ("cpu", "memory", "disk", "system", "uv", "python", "gpu", "browsers")
"""Modules here with `probe(home) -> dict`; an earlier one's name wins."""

QUICK = ("cpu", "memory", "disk", "system")
"""Probes that start no process."""

SOON = (*QUICK, "uv")
"""Those and what starts one short process: told before the others have looked for what they look for."""

LOADS = ("cpu", "memory", "disk", "gpu")
"""Modules here with `load(home) -> dict`."""


def probe(home: Path, labels: Mapping[str, str]) -> dict[str, Any]:
    """What this host can do; sizes in bytes. A label is "label.KEY", and plain KEY too where no device has the name."""
    found = _gather(PROBES, "probe", home, logging.WARNING)
    for key, value in sorted(labels.items()):
        found[f"label.{key}"] = value
        found.setdefault(key, value)
    return found


def essentials(home: Path) -> dict[str, Any]:
    """What `probe` gives without starting a process: quick enough for a node's first presence."""
    return _gather(QUICK, "probe", home, logging.WARNING)


def soon(home: Path) -> dict[str, Any]:
    """What a node tells second, a moment after its start: runs in environments of uv should not wait for `probe`."""
    return _gather(SOON, "probe", home, logging.DEBUG)


def load(home: Path) -> dict[str, Any]:
    """How busy this host is: "cpu.percent" (0 to 100, of all threads), "cpu.load" (averages of 1, 5 and 15 minutes),
    "memory.available" and "disk.free" (bytes; the disk of `home`), "gpu" (memory and use, in `probe`'s order)."""
    return _gather(LOADS, "load", home, logging.DEBUG)  # called all the time, and `probe` has warned


def _gather(modules: tuple[str, ...], function: str, home: Path, level: int) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in modules:
        try:
            call: Callable[[Path], dict[str, Any]] = getattr(importlib.import_module(f"{__name__}.{name}"), function)
            values = call(home)
        except Exception as error:  # a driver, a library or a file system may fail in any way; the node goes on without
            log.log(level, "the %s of the %s failed: %s: %s", function, name, type(error).__name__, error)
            continue
        for key, value in values.items():
            found.setdefault(key, value)
    return found

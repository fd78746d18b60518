"""What the benchmarks share: percentiles, the shape of the machine and its load, and a table.

A figure of a shared machine is worth what stands beside it: so the load is noted with each section, and what is to be
compared is measured in the same run.
"""

import math
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path


def percentile(samples: Sequence[float], percent: float) -> float:
    """By nearest rank: the smallest sample that at least `percent` of them don't exceed."""
    ordered = sorted(samples)
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]


def spread(samples: Sequence[float], unit: str = "s", digits: int = 2) -> str:
    """min, p50, p90, p99 and max in one cell."""
    figures = [min(samples), *(percentile(samples, p) for p in (50, 90, 99)), max(samples)]
    return " / ".join(f"{figure:.{digits}f}" for figure in figures) + f" {unit}"


@dataclass(slots=True)
class Table:
    """Rows of (what, figure, goal), printed as they come and again as Markdown at the end."""

    rows: list[tuple[str, str, str]] = field(default_factory=list)

    def add(self, what: str, figure: str, goal: str = "") -> None:
        self.rows.append((what, figure, goal))
        print(f"{what}: {figure}" + (f"   (goal: {goal})" if goal else ""), flush=True)

    def markdown(self) -> str:
        lines = ["| what | figure | goal |", "|---|---|---|"]
        return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in self.rows)])


def load() -> str:
    """The machine's load average of the last minute, over its cores."""
    return f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"


def machine(folder: Path) -> str:
    """Cores, memory, system, Python, and the file system under `folder`."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} cores {_processor()}, {memory:.0f} GiB, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, {_file_system(folder)}"
    )


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()


def _file_system(folder: Path) -> str:
    if sys.platform != "linux":
        return "unknown file system"
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    under = [(place, kind) for _, place, kind, *_ in mounts if folder.resolve().is_relative_to(place)]
    return max(under, key=lambda mount: len(mount[0]))[1]

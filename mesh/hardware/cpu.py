"""The processor: counts by psutil, capped by affinity and cgroup quota; model and flags from the kernel.

"cpu.cores" counts physical cores (tests on hyper-threads slow each other), "cpu.threads" what the scheduler may use.
"""

import functools
import os
import platform
import re
from pathlib import Path
from typing import Any

import psutil

from mesh.hardware import cgroup
from mesh.hardware.command import CommandFailed, output

CPU_SAMPLE_SECONDS = 0.2
"""How long `load` measures. psutil's own memory of the last call is kept per thread, and a caller's threads change."""

CPUINFO = Path("/proc/cpuinfo")

FLAGS_MAX = 64
"""Flags advertised, at most; presence is gossiped to everybody."""

_FLAGS = re.compile(
    r"(3dnow|adx|aes|amx_\w+|asimd\w*|atomics|avx\w*|bf16|bmi[12]|cmov|crc32|cx16|f16c|fma4?|fp16|fphp|gfni|i8mm|lzcnt|abm|mmx|"
    r"movbe|neon|pclmulqdq|pmull|pni|popcnt|rdrand|rdseed|rtm|sha\w*|sm[34]|sme(2\w*|_\w+)?|sse\w*|ssse3|sve\w*|svm|vaes|vmx|"
    r"vpclmulqdq)"
)
"""Instruction sets that programs are built for or dispatch on; the kernel's lists of bugs and mitigations stay out."""


def probe(home: Path) -> dict[str, Any]:
    threads = _threads()
    found: dict[str, Any] = {
        "cpu.cores": max(1, min(psutil.cpu_count(logical=False) or threads, threads)),
        "cpu.threads": threads,
        "arch": platform.machine().lower(),
    }
    information = _cpuinfo()
    model = information.get("model name") or information.get("Model") or _brand() or platform.processor()
    if model:
        found["cpu.model"] = " ".join(model.split())
    flags = (information.get("flags") or information.get("Features") or "").split()
    if flags:
        found["cpu.flags"] = tuple(sorted({flag for flag in flags if _FLAGS.fullmatch(flag)})[:FLAGS_MAX])
    return found


def load(home: Path) -> dict[str, Any]:
    return {"cpu.percent": psutil.cpu_percent(interval=CPU_SAMPLE_SECONDS), "cpu.load": tuple(psutil.getloadavg())}


def _threads() -> int:
    threads = psutil.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):  # Linux alone
        threads = min(threads, len(os.sched_getaffinity(0)))
    return max(1, min(threads, cgroup.cpus() or threads))


def _cpuinfo(path: Path = CPUINFO) -> dict[str, str]:
    """The first value of each key; empty where there is no such file (not Linux)."""
    found: dict[str, str] = {}
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        found.setdefault(key.strip(), value.strip())
    return found


@functools.cache
def _brand() -> str:
    """The model on macOS, where only sysctl tells it."""
    if platform.system() != "Darwin":
        return ""
    try:
        return output(["sysctl", "-n", "machdep.cpu.brand_string"]).strip()
    except CommandFailed:
        return ""

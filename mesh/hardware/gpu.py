"""GPUs by NVML: what they are ("gpu" of `probe`) and how busy ("gpu" of `load`), both in NVML's order.

No driver, or no GPU, is an empty tuple. A field that a device does not know is absent. NVML is opened once in a process
and stays open: a driver without persistence powers an idle GPU down when its last user leaves, and every heartbeat
would then pay seconds for its return. Rejected: asking CUDA (a context takes hundreds of MiB of the GPU's memory).
"""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pynvml

GPUS_MAX = 64

_lock = threading.Lock()
"""NVML is opened by one thread at a time."""
_opened = False


def probe(home: Path) -> dict[str, Any]:
    return {"gpu": tuple(_describe(index, handle) for index, handle in _devices())}


def load(home: Path) -> dict[str, Any]:
    return {"gpu": tuple(_usage(index, handle) for index, handle in _devices())}


def _devices() -> Iterator[tuple[int, Any]]:
    if not _open():
        return
    for index in range(min(pynvml.nvmlDeviceGetCount(), GPUS_MAX)):
        try:
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
        except pynvml.NVMLError:  # it fell off the bus, or this user may not open it
            continue
        yield index, handle


def _open() -> bool:
    global _opened
    with _lock:
        if not _opened:
            try:
                pynvml.nvmlInit()
            except (pynvml.NVMLError, OSError):  # no library, no driver, no permission: no GPUs to offer
                return False
            _opened = True
    return True


def _describe(index: int, handle: Any) -> dict[str, Any]:
    """`uuid` and `index` name it to CUDA_VISIBLE_DEVICES; `memory` in bytes; `cuda` is the newest CUDA that the driver
    runs (12.4), `compute` the device's compute capability (9.0)."""
    return {
        "index": index,
        **_known("uuid", lambda: _text(pynvml.nvmlDeviceGetUUID(handle))),
        **_known("name", lambda: _text(pynvml.nvmlDeviceGetName(handle))),
        **_known("memory", lambda: int(pynvml.nvmlDeviceGetMemoryInfo(handle).total)),
        **_known("driver", lambda: _text(pynvml.nvmlSystemGetDriverVersion())),
        **_known("cuda", lambda: cuda_version(pynvml.nvmlSystemGetCudaDriverVersion_v2())),
        **_known("compute", lambda: _dotted(*pynvml.nvmlDeviceGetCudaComputeCapability(handle))),
    }


def _usage(index: int, handle: Any) -> dict[str, Any]:
    """`memory.free` in bytes; `percent`: of the last sample period, how much a kernel was running."""
    return {
        "index": index,
        **_known("memory.free", lambda: int(pynvml.nvmlDeviceGetMemoryInfo(handle).free)),
        **_known("percent", lambda: float(pynvml.nvmlDeviceGetUtilizationRates(handle).gpu)),
    }


def cuda_version(number: int) -> float:
    """12040, as NVML gives it, is 12.4."""
    return _dotted(number // 1000, number % 1000 // 10)


def _dotted(major: int, minor: int) -> float:
    return float(f"{major}.{minor}")


def _known(key: str, ask: Callable[[], Any]) -> dict[str, Any]:
    try:
        return {key: ask()}
    except pynvml.NVMLError:  # "not supported" and the like, by device and driver
        return {}


def _text(value: Any) -> str:
    """Old releases of the library answer in bytes."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)

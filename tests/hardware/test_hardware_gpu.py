"""What NVML says becomes capabilities. A host with GPUs is checked for real; elsewhere the library is played."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mesh.hardware import gpu

GIB = 2**30


class NVMLError(Exception):
    pass


class FakeNvml:
    """Two devices; the second knows neither its utilisation nor its compute capability. A third cannot be opened."""

    NVMLError = NVMLError

    def __init__(self) -> None:
        self.opened = 0

    def nvmlInit(self) -> None:
        self.opened += 1

    def nvmlDeviceGetCount(self) -> int:
        return 3

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:
        if index == 2:
            raise NVMLError("GPU is lost")
        return index

    def nvmlDeviceGetUUID(self, handle: int) -> str:
        return f"GPU-{handle}"

    def nvmlDeviceGetName(self, handle: int) -> str | bytes:
        return b"Old Card" if handle else "NVIDIA H100"

    def nvmlDeviceGetMemoryInfo(self, handle: int) -> Any:
        return SimpleNamespace(total=80 * GIB, free=79 * GIB)

    def nvmlSystemGetDriverVersion(self) -> str:
        return "550.54.15"

    def nvmlSystemGetCudaDriverVersion_v2(self) -> int:
        return 12040

    def nvmlDeviceGetCudaComputeCapability(self, handle: int) -> tuple[int, int]:
        if handle:
            raise NVMLError("not supported")
        return (9, 0)

    def nvmlDeviceGetUtilizationRates(self, handle: int) -> Any:
        if handle:
            raise NVMLError("not supported")
        return SimpleNamespace(gpu=37, memory=5)


@pytest.fixture
def nvml(monkeypatch: pytest.MonkeyPatch) -> FakeNvml:
    fake = FakeNvml()
    monkeypatch.setattr(gpu, "pynvml", fake)
    monkeypatch.setattr(gpu, "_opened", False)
    return fake


def test_devices_are_described(nvml: FakeNvml, tmp_path: Path) -> None:
    common = {"memory": 80 * GIB, "driver": "550.54.15", "cuda": 12.4}
    assert gpu.probe(tmp_path) == {
        "gpu": (
            {"index": 0, "uuid": "GPU-0", "name": "NVIDIA H100", "compute": 9.0, **common},
            {"index": 1, "uuid": "GPU-1", "name": "Old Card", **common},
        )
    }


def test_use_is_told_where_the_device_knows_it(nvml: FakeNvml, tmp_path: Path) -> None:
    assert gpu.load(tmp_path) == {
        "gpu": ({"index": 0, "memory.free": 79 * GIB, "percent": 37.0}, {"index": 1, "memory.free": 79 * GIB})
    }


def test_the_library_is_opened_once(nvml: FakeNvml, tmp_path: Path) -> None:
    gpu.probe(tmp_path)
    gpu.load(tmp_path)
    assert nvml.opened == 1


def test_no_driver_is_no_gpu(nvml: FakeNvml, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> None:
        raise NVMLError("driver not loaded")

    monkeypatch.setattr(nvml, "nvmlInit", absent)
    assert gpu.probe(tmp_path) == gpu.load(tmp_path) == {"gpu": ()}


@pytest.mark.parametrize(("number", "version"), [(12040, 12.4), (11080, 11.8), (13000, 13.0), (10010, 10.1)])
def test_cuda_versions(number: int, version: float) -> None:
    assert gpu.cuda_version(number) == version


def test_this_machine(tmp_path: Path) -> None:
    described, used = gpu.probe(tmp_path)["gpu"], gpu.load(tmp_path)["gpu"]
    assert [device["index"] for device in described] == [device["index"] for device in used]
    for device, use in zip(described, used, strict=True):
        assert device["uuid"].startswith(("GPU-", "MIG-"))
        assert device["cuda"] >= 11
        assert 0 <= use.get("memory.free", 0) <= device.get("memory", 2**63)

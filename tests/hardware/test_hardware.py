"""The real machine's capabilities, and how a container's limits cap them."""

import logging
import os
import platform
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from mesh import hardware
from mesh.hardware import cgroup, cpu, disk
from protocols.codec import encode_value


def test_the_real_machine_in_the_names_of_the_interface(tmp_path: Path) -> None:
    found = hardware.probe(tmp_path, {})
    assert found["os"] == platform.system().lower()
    assert found["python"] == platform.python_version()
    assert found["arch"] == platform.machine().lower()
    assert 1 <= found["cpu.cores"] <= found["cpu.threads"] <= os.cpu_count()
    assert 0 < found["memory"] <= psutil.virtual_memory().total
    assert found["disk.total"] == psutil.disk_usage(str(tmp_path)).total
    assert isinstance(found["gpu"], tuple)
    assert all(set(browser) == {"name", "version"} for browser in found["browsers"])
    assert found["python"] not in found["pythons"]
    if found["arch"] == "x86_64" and found["os"] == "linux":
        assert "sse2" in found["cpu.flags"]
        assert found["cpu.model"]
    assert len(encode_value(found)) < 16_384  # it is gossiped, and has a place on the wire


def test_load_is_numbers_that_fit_the_machine(tmp_path: Path) -> None:
    load = hardware.load(tmp_path)
    assert 0 <= load["cpu.percent"] <= 100
    assert len(load["cpu.load"]) == 3
    assert 0 < load["memory.available"] <= psutil.virtual_memory().total
    assert 0 <= load["disk.free"] <= psutil.disk_usage(str(tmp_path)).total
    encode_value(load)


def test_labels_take_their_name_unless_a_device_has_it(tmp_path: Path) -> None:
    found = hardware.probe(tmp_path, {"site": "attic", "os": "mine"})
    assert found["label.site"] == found["site"] == "attic"
    assert found["label.os"] == "mine"
    assert found["os"] == platform.system().lower()


def test_a_failing_probe_costs_its_own_names_and_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(path: str) -> None:
        raise PermissionError("no such luck")

    monkeypatch.setattr("mesh.hardware.disk.psutil.disk_usage", fail)
    with caplog.at_level(logging.WARNING):
        found = hardware.probe(tmp_path, {})
    assert "disk.total" not in found
    assert "memory" in found
    assert [record.getMessage() for record in caplog.records] == [
        "the probe of the disk failed: PermissionError: no such luck"
    ]


def test_a_home_that_is_not_there_yet_has_the_disk_of_its_parent(tmp_path: Path) -> None:
    assert disk.probe(tmp_path / "a" / "b") == disk.probe(tmp_path)


def test_the_package_is_light_to_import() -> None:
    code = "import sys, mesh.hardware; print(sorted({'psutil', 'pynvml'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture
def groups(tmp_path: Path) -> tuple[Path, Path]:
    """A control group tree /lab/job with the process in it, and its membership file."""
    (tmp_path / "root" / "lab" / "job").mkdir(parents=True)
    (tmp_path / "cgroup").write_text("4:memory:/old\n0::/lab/job\n")
    return tmp_path / "root", tmp_path / "cgroup"


def test_the_smallest_limit_of_all_ancestors_binds(groups: tuple[Path, Path]) -> None:
    root, membership = groups
    (root / "lab" / "cpu.max").write_text("250000 100000\n")
    (root / "lab" / "job" / "cpu.max").write_text("max 100000\n")
    (root / "lab" / "memory.max").write_text("1000000\n")
    (root / "lab" / "job" / "memory.max").write_text("3000000\n")
    assert cgroup.cpus(root, membership) == 3
    assert cgroup.memory(root, membership) == 1_000_000


def test_page_cache_counts_as_free(groups: tuple[Path, Path]) -> None:
    root, membership = groups
    group = root / "lab" / "job"
    (group / "memory.max").write_text("1000\n")
    (group / "memory.current").write_text("900\n")
    (group / "memory.stat").write_text("anon 500\ninactive_file 300\n")
    assert cgroup.memory_available(root, membership) == 400


def test_no_limits_without_control_groups(tmp_path: Path) -> None:
    absent = (tmp_path / "root", tmp_path / "cgroup")
    assert cgroup.cpus(*absent) is cgroup.memory(*absent) is cgroup.memory_available(*absent) is None


def test_cores_are_capped_by_quota_and_affinity(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("mesh.hardware.cpu.psutil.cpu_count", lambda logical=True: 16 if logical else 8)
    monkeypatch.setattr("mesh.hardware.cpu.os.sched_getaffinity", lambda pid: set(range(12)), raising=False)
    monkeypatch.setattr("mesh.hardware.cpu.cgroup.cpus", lambda: None)
    assert (cpu.probe(tmp_path)["cpu.cores"], cpu.probe(tmp_path)["cpu.threads"]) == (8, 12)
    monkeypatch.setattr("mesh.hardware.cpu.cgroup.cpus", lambda: 3)
    assert (cpu.probe(tmp_path)["cpu.cores"], cpu.probe(tmp_path)["cpu.threads"]) == (3, 3)
    monkeypatch.setattr("mesh.hardware.cpu.psutil.cpu_count", lambda logical=True: 16 if logical else None)
    assert cpu.probe(tmp_path)["cpu.cores"] == 3

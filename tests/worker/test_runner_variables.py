"""Tests that hold devices, or several hosts: their variables, in a process that never had others, one after another."""

import itertools
from dataclasses import replace
from pathlib import Path

from runner_harness import collect, job, run_all, take, work, write

from mesh.worker.runner import PytestRunner
from mesh.worker.sessions import device_variables, host_variables
from protocols.ids import LeaseId, PeerId
from protocols.manifests import Device, Outcome
from protocols.work import GangHost

SUITE = """
    import os
    import pytest

    first = os.environ.setdefault("SEEN_FIRST", os.environ.get("CUDA_VISIBLE_DEVICES", "none"))

    @pytest.mark.parametrize("n", range(12))
    def test_it(n):
        seen = os.environ.get("CUDA_VISIBLE_DEVICES", "none")
        assert first == seen, "this process had other devices before"
        print(seen, os.getpid())
"""


async def test_each_lease_has_its_devices_in_processes_of_its_own(tmp_path: Path) -> None:
    root = write(tmp_path, {"test_it.py": SUITE})
    items = work(await collect(job(root)))
    devices = {1: (), 2: (Device("GPU-a"),), 3: (Device("GPU-b", 500),), 4: ()}
    mixed = [
        replace(item, lease=LeaseId(1 + place // 3), variables=device_variables(devices[1 + place // 3]))
        for place, item in enumerate(items)
    ]
    mixed = [replace(item, scope=f"@lease {item.lease}") if item.variables else item for item in mixed]
    async with PytestRunner().session(job(root)) as session:
        session.submit(mixed)
        found = await take(session, len(mixed))
        session.submit([replace(item, lease=LeaseId(9)) for item in items[:2]])
        found += await take(session, 2)
    seen: dict[int, set[str]] = {}
    spans: dict[int, list[tuple[float, float]]] = {}
    for event in found:
        assert event.record.outcome is Outcome.PASSED, event.record.longrepr
        assert event.record.attempt == 1
        seen.setdefault(event.lease, set()).add(event.record.stdout.split(" ")[0])
        spans.setdefault(event.lease, []).append((event.record.started, event.record.duration))
    for lease in (2, 3):
        ordered = sorted(spans[lease])
        assert all(start + took <= after for (start, took), (after, _) in itertools.pairwise(ordered)), "one by one"
    assert seen == {1: {"none"}, 2: {"GPU-a"}, 3: {"GPU-b"}, 4: {"none"}, 9: {"none"}}
    assert {event.index for event in found} == set(range(12))


async def test_a_suite_without_devices_runs_as_ever(tmp_path: Path) -> None:
    records = await run_all(job(write(tmp_path, {"test_it.py": SUITE})))
    assert {record.stdout.split(" ")[0] for record in records} == {"none"}


def test_how_a_test_finds_its_devices() -> None:
    assert device_variables(()) == ()
    told = dict(device_variables((Device("GPU-a"), Device("GPU-b"))))
    assert (told["CUDA_VISIBLE_DEVICES"], told["MESH_GPUS"], told["MESH_GPU_SHARE"]) == ("GPU-a,GPU-b",) * 2 + ("2",)
    assert dict(device_variables((Device("GPU-a", 250),)))["MESH_GPU_SHARE"] == "0.25"


HOSTS = (
    GangHost(PeerId("12D3a"), "lab-a", ("10.0.0.1", "fd00::1"), (Device("GPU-a"),)),
    GangHost(PeerId("12D3b"), "lab-b", ()),
)
GANG = """
    import json
    import os

    def test_it(mesh_hosts):
        first, second = mesh_hosts
        assert (first.name, first.peer, first.addresses) == ("lab-a", "12D3a", ("10.0.0.1", "fd00::1"))
        assert first.gpus == ("GPU-a",)
        assert (second.name, second.addresses, second.gpus) == ("lab-b", (), ())
        assert [host["peer"] for host in json.loads(os.environ["MESH_HOSTS"])] == ["12D3a", "12D3b"]

    def test_without(mesh_hosts): ...
"""


async def test_a_test_of_several_hosts_is_told_of_them_and_another_that_it_has_none(tmp_path: Path) -> None:
    root = write(tmp_path, {"test_it.py": GANG})
    first, second = work(await collect(job(root)))
    async with PytestRunner().session(job(root)) as session:
        session.submit([replace(first, variables=host_variables(HOSTS), scope="@lease 1")])
        (told,) = await take(session, 1)
        session.submit([second])
        (without,) = await take(session, 1)
    assert told.record.outcome is Outcome.PASSED, told.record.longrepr
    assert without.record.outcome is Outcome.ERROR
    assert "mark them resources(hosts=2)" in without.record.longrepr
    assert host_variables(()) == ()

"""Lives of simulated meshes under faults, a seed each: some that found something once, and fresh ones; and that a seed
is all there is to a life."""

import os
import random
import re
import subprocess
import sys

import mesh_chaos
import pytest
import trio

from mesh.coordinator.replicas import Replicas
from mesh.worker.agent import WorkerAgent
from protocols.work import Result
from tests.fakes.disk import FakeDisk

FIXED = (0, 1, 2)
FRESH_SEEDS = 2


@pytest.mark.parametrize("seed", [*FIXED, *[None] * FRESH_SEEDS])
def test_a_mesh_under_faults_loses_nothing_and_finishes(seed: int | None) -> None:
    """None: a seed drawn now, so that every process that collects finds the same tests."""
    outcome = mesh_chaos.run(random.SystemRandom().randrange(10**6, 10**9) if seed is None else seed)
    assert outcome.node_seconds > 0
    assert outcome.faults["submission"] > 0


def test_a_seed_replays_exactly() -> None:
    """Whatever order sets have in a process, and whatever ran in it before."""
    seed = FIXED[0]
    first = mesh_chaos.run(seed).digest
    assert mesh_chaos.run(seed).digest == first
    for hashes in ("1", "2"):
        said = subprocess.run(
            [sys.executable, "-m", "tests.simulation.simulate", "--rig", "mesh", str(seed)],
            env=os.environ | {"PYTHONHASHSEED": hashes},
            cwd=mesh_chaos.ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert re.findall(r"node-hours, story (\w+)", said) == [first]


def test_a_failure_tells_its_seed_and_its_story(monkeypatch: pytest.MonkeyPatch) -> None:
    async def lost(chaos: mesh_chaos.Chaos) -> None:
        mesh_chaos.demand(False, "a test was lost")

    monkeypatch.setattr(mesh_chaos.Chaos, "finish", lost)
    with pytest.raises(ExceptionGroup) as caught:
        mesh_chaos.run(3)
    note = caught.value.__notes__[0].splitlines()
    assert note[0].startswith("seed 3, commit ")
    assert len(note) > 20
    assert note[-1] == "Violation: a test was lost"


async def no_second_copy(self, root, origin, nodes, reason="", run=0):
    await trio.lowlevel.checkpoint()
    return (origin,)


async def forgotten_at_once(self, request, real=WorkerAgent._deliver):
    if not isinstance(request, Result):
        await real(self, request)


async def synced_too_late(self, work):
    async def later() -> None:
        await trio.sleep(0.01)
        work()

    trio.lowlevel.spawn_system_task(later)
    await trio.lowlevel.checkpoint()


@pytest.mark.parametrize(
    ("owner", "name", "broken", "told"),
    [
        (Replicas, "secure", no_second_copy, "was committed, and lies on one node"),
        (WorkerAgent, "_deliver", forgotten_at_once, "that the log has not decided about"),
        (FakeDisk, "_transact", synced_too_late, "before (it|that) is synced"),
    ],
)
def test_the_ledger_notices_what_is_missing(owner, name, broken, told, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(owner, name, broken)
    with pytest.raises(ExceptionGroup) as caught:
        mesh_chaos.run(2)
    assert re.search(told, caught.value.__notes__[0].splitlines()[-1])

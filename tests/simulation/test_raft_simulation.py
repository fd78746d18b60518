"""Lives of simulated groups, a seed each; that idle ticks may be counted instead of done; and that the simulator would
notice if a fence were missing. `make simulate` and `make mutants` are the long forms."""

import importlib.util
import secrets
from pathlib import Path

import pytest

from mesh import consensus
from tests.simulation.life import Violation
from tests.simulation.mutants import FAST, Mutant, operate_on, registry
from tests.simulation.raft_chaos import Chaos, live, run
from tests.simulation.raft_group import Group
from tests.simulation.simulate import FRESH_SEEDS_MAX, seeds_of

FRESH_SEEDS = 2


@pytest.mark.parametrize("seed", range(8))
def test_a_group_stays_safe_and_recovers(seed: int) -> None:
    rig = live(seed)
    assert rig.safety.last_committed > 3
    assert rig.reads_served > 0
    assert rig.faults["crash"] > 0


def test_fresh_seeds_are_safe_too() -> None:
    """A failure's note names its seed: `make simulate SEEDS=…` replays it."""
    for _ in range(FRESH_SEEDS):
        assert run(secrets.randbelow(FRESH_SEEDS_MAX)).node_seconds > 0


def test_a_life_is_the_same_with_every_tick_done() -> None:
    counted, done = live(8), live(8, skipping=False)
    assert counted.story == done.story
    assert counted.safety.committed == done.safety.committed
    assert (counted.now, counted.node_seconds, counted.faults) == (done.now, done.node_seconds, done.faults)
    assert counted.rng.random() == done.rng.random()


def test_what_is_simulated_is_what_runs() -> None:
    """A calm group of three with the service's own options: one election, and nothing after it."""
    rig = Group(1, 3, consensus.OPTIONS)
    rig.advance(600_000)
    assert len(rig.safety.leaders) == 1
    assert rig.node_seconds == pytest.approx(3 * 600)


def test_a_group_without_a_quorum_is_no_progress() -> None:
    rig = Group(1, 3)
    rig.advance(5_000)
    for peer in ("n01", "n02"):
        rig.crash(rig.nodes[peer])
    with pytest.raises(Violation, match="no progress"):
        rig.demand_progress("one of three")


def test_faults_never_take_the_last_quorum() -> None:
    rig = Group(3, 3)
    chaos = Chaos(rig)
    rig.advance(5_000)
    for _ in range(200):
        chaos.lose()
    assert sum(node.gone or node.medium.rotten for node in rig.nodes.values()) == 1


def test_seeds_are_lists_ranges_and_fresh_ones() -> None:
    assert seeds_of("17") == [17]
    assert seeds_of("3,0-2") == [3, 0, 1, 2]
    first, second = seeds_of("+2")
    assert second == first + 1


@pytest.mark.parametrize("mutant", registry().values(), ids=lambda mutant: mutant.name)
def test_each_fence_stands(mutant: Mutant) -> None:
    """Or `make mutants` has nothing to take out."""
    spec = importlib.util.find_spec(mutant.module)
    assert spec is not None
    assert spec.origin is not None
    assert Path(spec.origin).read_text().count(mutant.fence) == 1


def test_missing_fences_are_noticed() -> None:
    for found in operate_on(FAST, processes=1):
        assert found.by, f"nothing notices: {found.mutant}"

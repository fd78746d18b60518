"""Births as decisions: what a node without a log does in each scene, and who gives way."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.birth import (
    HEADING_SECONDS,
    TARGET_SECONDS,
    WINDOW_SECONDS,
    FoundMesh,
    JoinMesh,
    Scene,
    Wait,
    conflicts_with,
    coordinator_of,
    decide,
    meshes_of,
    yields_to,
)
from protocols.errors import RemoteProtocolError
from protocols.ids import PeerId
from protocols.membership import mesh_age, mesh_name
from protocols.presence import Presence, Role
from tests.membership.mesh_rig import presence_of

ELDER, YOUNGER = mesh_name(1000, PeerId("x")), mesh_name(2000, PeerId("a"))
READY = Scene(me=PeerId("m"), elapsed=WINDOW_SECONDS, quiet=1.0, neighbours=(), strangers=0)


def member(peer: str, mesh: str, coordinator: str = "", runs: int = 0, term: int = 1) -> Presence:
    return replace(
        presence_of(peer), mesh=mesh, raft="voter", coordinator=PeerId(coordinator or peer), runs=runs, term=term
    )


def test_alone_it_founds_after_the_window_and_not_before() -> None:
    assert decide(READY) == FoundMesh()
    assert isinstance(decide(replace(READY, elapsed=WINDOW_SECONDS - 0.01)), Wait)
    assert decide(replace(READY, elapsed=0, solitary=True, neighbours=(member("x", ELDER),))) == FoundMesh()


def test_the_lowest_of_those_who_may_vote_founds() -> None:
    lower = presence_of("a")
    assert decide(replace(READY, neighbours=(lower,))) == Wait("a founds the mesh")
    assert decide(replace(READY, neighbours=(presence_of("z"),))) == FoundMesh()
    assert decide(replace(READY, neighbours=(presence_of("a", Role.WORKER),))) == FoundMesh()


def test_whoever_just_connected_is_heard_first_but_not_for_ever() -> None:
    for scene in (replace(READY, quiet=0.1), replace(READY, strangers=1)):
        assert isinstance(decide(scene), Wait)
        assert decide(replace(scene, elapsed=WINDOW_SECONDS + TARGET_SECONDS)) == FoundMesh()


def test_a_target_is_waited_for_unless_another_one_is_there() -> None:
    scene = replace(READY, targets=(PeerId("s"), PeerId("t")))
    assert isinstance(decide(scene), Wait)
    assert decide(replace(scene, elapsed=TARGET_SECONDS)) == FoundMesh()
    assert decide(replace(scene, neighbours=(presence_of("s"),))) == FoundMesh()


def test_clients_do_not_count_as_expected_nodes() -> None:
    scene = replace(READY, expect=2)
    assert decide(scene) == Wait("1 of 2 expected nodes are here")
    assert decide(replace(scene, neighbours=(presence_of("z", Role.CLIENT),))) == Wait("1 of 2 expected nodes are here")
    assert decide(replace(scene, neighbours=(presence_of("z", Role.WORKER),))) == FoundMesh()


def test_a_mesh_is_joined_at_once_at_its_coordinator() -> None:
    scene = replace(READY, elapsed=0.0, neighbours=(member("x", ELDER, "y"), member("y", ELDER)))
    assert decide(scene) == JoinMesh(ELDER, PeerId("y"))


def test_a_mesh_without_a_coordinator_is_waited_for_and_none_is_founded_beside_it() -> None:
    scene = replace(READY, elapsed=100.0, neighbours=(member("x", ELDER, "gone"),))
    assert decide(scene) == Wait(f"mesh {ELDER} has no coordinator now")


def test_runs_come_before_age_and_a_target_before_both() -> None:
    neighbours = (member("x", ELDER), member("y", YOUNGER))
    assert decide(replace(READY, neighbours=neighbours)) == JoinMesh(ELDER, PeerId("x"))
    busy = (member("x", ELDER), member("y", YOUNGER, runs=1))
    assert decide(replace(READY, neighbours=busy)) == JoinMesh(YOUNGER, PeerId("y"))
    assert decide(replace(READY, neighbours=busy, targets=(PeerId("x"),))) == JoinMesh(ELDER, PeerId("x"))


def test_a_node_whose_mesh_gave_way_looks_for_the_other_one() -> None:
    scene = replace(READY, heading=ELDER, former=frozenset({YOUNGER}), neighbours=(member("y", YOUNGER),))
    assert decide(scene) == Wait("looking for a mesh")
    assert decide(replace(scene, elapsed=HEADING_SECONDS)) == FoundMesh()
    found = (*scene.neighbours, member("x", ELDER))
    assert decide(replace(scene, neighbours=found)) == JoinMesh(ELDER, PeerId("x"))


def test_a_worker_of_a_mesh_and_a_name_that_is_none_are_no_mesh() -> None:
    worker = replace(member("w", ELDER), raft="")
    assert meshes_of((worker, member("j", "junk"))) == {}


def test_the_newest_claim_of_a_coordinator_who_is_here_counts() -> None:
    old, new = member("x", ELDER, "x", term=3), member("y", ELDER, "y", term=4)
    assert coordinator_of((old, new), ELDER) == "y"
    assert coordinator_of((old, member("z", ELDER, "gone", term=9)), ELDER) == "x"
    assert coordinator_of((old, new), ELDER, term=5) is None
    assert coordinator_of((old, new), YOUNGER) is None


@given(st.integers(0, 2), st.integers(0, 2), st.integers(1, 5), st.integers(1, 5))
def test_of_two_meshes_never_both_give_way_and_only_runs_on_both_sides_keep_them_apart(
    runs: int, others: int, one: int, other: int
) -> None:
    mine, theirs = mesh_name(one, PeerId("m")), mesh_name(other, PeerId("t"))
    gives = yields_to(mine, runs, {theirs: others}) == theirs
    takes = yields_to(theirs, others, {mine: runs}) == mine
    assert not (gives and takes)
    assert (gives or takes) == (not (runs and others))
    assert bool(conflicts_with(runs, {theirs: others})) == bool(runs and others)
    if gives:
        assert runs == 0


@pytest.mark.parametrize("name", ["", "1000", ".x", "-1.x", "x.1000", "1000."])
def test_what_is_no_name_of_a_mesh(name: str) -> None:
    with pytest.raises(RemoteProtocolError):
        mesh_age(name)

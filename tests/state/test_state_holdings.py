"""Locks, devices and dependencies in the log: what is never held twice, what waits, what is skipped."""

import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from state_builder import ALICE, BOB, CHUNK, MANIFEST, Builder, complete, spec

from mesh.state import dependencies
from mesh.state.dependencies import Barriers
from mesh.state.model import Run, RunPhase, Task
from mesh.state.snapshot import decode_state, encode_state
from protocols.commands import Abandon, Cancel, Collected, Expire, Grant, Register, Skip, Submit
from protocols.ids import RunId, TestIndex
from protocols.manifests import NOTHING, Dependency, Device, Needs, Outcome

CAMERA = Needs(locks=("camera",))
GPU = Needs(gpu=1000)
SHARE = Needs(gpu=600)


def collected(
    built: Builder, *tasks: Task, needs: tuple[Needs, ...] = (), waits: tuple[Dependency, ...] = (), nonce: bytes = b"n"
) -> Run:
    for peer in (ALICE, BOB):
        if peer not in built.state.workers:
            built.worker(peer)
    run = built.submit(nonce)
    lease = built.grant(run.id, ALICE)
    tests = sum(task.count for task in tasks)
    requirements = (("", ""),) * (1 + max(task.requirement for task in tasks))
    built.accept(Collected(lease, MANIFEST, tests, tasks, requirements, needs, waits))
    return run


def granted(run: Run, peer: object, *tasks: Task, devices: tuple[Device, ...] = ()) -> Grant:
    return Grant(run.id, peer, 1, tasks, devices)  # type: ignore[arg-type]


@pytest.fixture
def built() -> Iterator[Builder]:
    made = Builder()
    yield made
    again = decode_state(encode_state(made.state))
    assert again == made.state
    assert encode_state(again) == encode_state(made.state)


def test_a_lock_is_held_by_one_lease_of_the_mesh_until_that_is_closed(built: Builder) -> None:
    run = collected(built, Task(0, 2), needs=(CAMERA,))
    other = collected(built, Task(0, 1), needs=(CAMERA,), nonce=b"other")
    lease = built.accept(granted(run, ALICE, Task(0, 1))).lease
    assert lease is not None
    assert built.state.locks == {"camera": lease}
    assert built.reject(granted(run, BOB, Task(1, 1))) == f"camera is held by lease {lease}"
    assert built.reject(granted(other, BOB, Task(0, 1))) == f"camera is held by lease {lease}"
    built.accept(complete(lease, 0))
    assert built.state.locks == {}
    second = built.accept(granted(other, BOB, Task(0, 1))).lease
    assert second is not None
    built.accept(Expire(second, "gone"))
    third = built.accept(granted(other, ALICE, Task(0, 1, 0, 1))).lease
    assert built.state.locks == {"camera": third}
    built.accept(Cancel(other.id, "enough"))
    fourth = built.accept(granted(run, ALICE, Task(1, 1))).lease
    assert built.state.locks == {"camera": fourth}
    built.accept(Register(ALICE, "alice", 2, 2))
    assert built.state.locks == {}


def test_what_holds_something_is_leased_by_itself(built: Builder) -> None:
    run = collected(built, Task(0, 1), Task(1, 1, 1), needs=(CAMERA, NOTHING))
    assert "not leased together" in built.reject(granted(run, ALICE, Task(0, 1), Task(1, 1, 1)))
    built.accept(granted(run, ALICE, Task(1, 1, 1)))
    built.accept(granted(run, ALICE, Task(0, 1)))


def test_a_device_is_held_once_and_shared_up_to_the_whole(built: Builder) -> None:
    run = collected(built, Task(0, 3), Task(3, 3, 1), Task(6, 1, 2), needs=(GPU, SHARE, Needs(gpu=2000)))
    assert "1 GPUs are needed, not 0" in built.reject(granted(run, ALICE, Task(0, 1)))
    assert "not 0.6" in built.reject(granted(run, ALICE, Task(0, 1), devices=(Device("g0", 600),)))
    lease = built.accept(granted(run, ALICE, Task(0, 1), devices=(Device("g0"),))).lease
    assert "g0 of worker" in built.reject(granted(run, ALICE, Task(1, 1), devices=(Device("g0"),)))
    assert "g0 of worker" in built.reject(granted(run, ALICE, Task(3, 1, 1), devices=(Device("g0", 600),)))
    built.accept(granted(run, BOB, Task(1, 1), devices=(Device("g0"),)))
    built.accept(granted(run, ALICE, Task(3, 1, 1), devices=(Device("g1", 600),)))
    assert "g1 of worker" in built.reject(granted(run, ALICE, Task(4, 1, 1), devices=(Device("g1", 600),)))
    assert "2 GPUs" in built.reject(granted(run, ALICE, Task(6, 1, 2), devices=(Device("g2"), Device("g2"))))
    assert lease is not None
    built.accept(complete(lease, 0))
    built.accept(granted(run, ALICE, Task(6, 1, 2), devices=(Device("g0"), Device("g2"))))
    assert "no devices" in built.reject(Grant(built.submit(b"x").id, ALICE, 1, (), (Device("g9"),)))


def test_who_depends_waits_and_goes_on_when_all_have_passed(built: Builder) -> None:
    run = collected(built, Task(0, 2), Task(2, 1), waits=(Dependency(2, 1, 0, 2),))
    first = built.grant(run.id, ALICE, Task(0, 2))
    assert "wait for others" in built.reject(granted(run, BOB, Task(2, 1)))
    assert "none of these" in built.reject(Skip(run.id, (TestIndex(2),), CHUNK))
    assert "waits for others" in built.reject(Abandon(run.id, TestIndex(2), CHUNK))
    built.accept(complete(first, 0))
    built.reject(granted(run, BOB, Task(2, 1)))
    built.accept(complete(first, 1, outcome=Outcome.XPASSED))
    built.accept(complete(built.grant(run.id, BOB, Task(2, 1)), 2))
    assert run.phase is RunPhase.REPORTING


def test_who_depends_on_what_did_not_pass_is_skipped_once_and_so_is_who_depends_on_them(built: Builder) -> None:
    waits = (
        Dependency(1, 1, 0, 1),
        Dependency(2, 1, 1, 1),
        Dependency(3, 1, 0, 1, passed=False),
        Dependency(4, 1, 9, 0),
    )
    assert "names test" in dependencies.problem(waits, 5)
    waits = (*waits[:3], Dependency(4, 1, 0, 0))
    run = collected(built, *(Task(i, 1) for i in range(5)), waits=waits)
    lease = built.grant(run.id, ALICE, Task(0, 1))
    built.accept(Skip(run.id, (TestIndex(4), TestIndex(1), TestIndex(4)), CHUNK))
    built.accept(complete(lease, 0, outcome=Outcome.FAILED))
    built.reject(granted(run, BOB, Task(1, 1)))
    assert built.accept(Skip(run.id, tuple(map(TestIndex, (1, 2, 3, -1, 77))), CHUNK)).tests == (1,)
    assert built.accept(Skip(run.id, (TestIndex(2),), CHUNK)).tests == (2,)
    built.reject(Skip(run.id, (TestIndex(1), TestIndex(3)), CHUNK))
    built.accept(complete(built.grant(run.id, BOB, Task(3, 1)), 3))
    assert bytes(run.outcomes) == bytes([1, 3, 3, 0, 3])
    assert run.phase is RunPhase.REPORTING


def test_a_retry_is_no_failure_to_those_who_wait(built: Builder) -> None:
    for peer in (ALICE, BOB):
        built.worker(peer)
    run = built.submit(b"n", retries=1)
    lease = built.grant(run.id, ALICE)
    waits = (Dependency(1, 1, 0, 1),)
    built.accept(Collected(lease, MANIFEST, 2, (Task(0, 1), Task(1, 1)), dependencies=waits))
    built.accept(complete(built.grant(run.id, ALICE, Task(0, 1)), 0, outcome=Outcome.FAILED))
    built.reject(Skip(run.id, (TestIndex(1),), CHUNK))
    built.accept(complete(built.grant(run.id, BOB, Task(0, 1)), 0))
    built.accept(granted(run, BOB, Task(1, 1)))


def test_a_collection_with_a_circle_or_a_task_across_a_boundary_is_refused(built: Builder) -> None:
    built.worker(ALICE)
    run = built.submit()
    lease = built.grant(run.id, ALICE)

    def refused(waits: tuple[Dependency, ...], *tasks: Task) -> str:
        return built.reject(Collected(lease, MANIFEST, 4, tasks or (Task(0, 4),), dependencies=waits))

    assert "circle" in refused((Dependency(0, 4, 3, 1),))
    assert "circle" in refused((Dependency(0, 1, 1, 1), Dependency(1, 2, 0, 1)))
    assert "unlike others" in refused((Dependency(1, 1, 0, 1),))
    assert "names test 5 of 4" in refused((Dependency(1, 1, 4, 2),))
    many = (Dependency(1, 1, 0, 1),) * (dependencies.DEPENDENCIES_MAX + 1)
    assert "limit" in refused(many)


def test_a_run_comes_after_runs_that_are_there(built: Builder) -> None:
    first = built.submit(b"a")
    built.submit(b"b", after=(first.id,))
    assert "no run 99" in built.reject(Submit(b"c", spec(after=(RunId(99),)), 1.0))


EDGES = st.lists(st.tuples(st.integers(0, 5), st.integers(1, 4), st.integers(0, 5), st.integers(0, 4), st.booleans()))


@given(EDGES)
def test_circles_are_found_as_by_hand(edges: list[tuple[int, int, int, int, bool]]) -> None:
    waits = [Dependency(*edge) for edge in edges]
    on: dict[int, set[int]] = {test: set() for test in range(12)}
    for one in waits:
        for test in range(one.first, one.first + one.count):
            on[test] |= set(range(one.on, one.on + one.on_count))
    left = dict(on)
    while free := [test for test in left if not on[test] & left.keys()]:
        for test in free:
            del left[test]
    found = dependencies.cycle(waits)
    assert bool(found) == bool(left)
    edges_of = {edge for one in waits for edge in (one.first, one.first + one.count, one.on, one.on + one.on_count)}
    for test, following in zip(found, [*found[1:], *found[:1]], strict=True):
        stretch = range(following, min((edge for edge in edges_of if edge > following), default=12))
        assert on[test] & set(stretch), f"{test} does not wait for {following} or its like"


@given(EDGES, st.lists(st.sampled_from([0, 1, 3, 5, 255]), min_size=12, max_size=12))
def test_where_a_test_stands_is_as_by_hand(edges: list[tuple[int, int, int, int, bool]], codes: list[int]) -> None:
    """What failed behind a test that has no verdict yet is not looked at before that has one."""
    outcomes, barriers = bytearray(codes), Barriers([Dependency(*edge) for edge in edges])
    for test in range(12):
        found = set()
        for first, count, on, on_count, passed in edges:
            if first <= test < first + count:
                known = list(itertools.takewhile(lambda code: code != 255, codes[on : on + on_count]))
                failed = not on_count or (passed and set(known) - {0, 5})
                found.add("failed" if failed else "waiting" if len(known) < on_count else "met")
        expected = next((word for word in ("failed", "waiting") if word in found), "met")
        assert barriers.standing(outcomes, test)[0].value == expected

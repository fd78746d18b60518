"""Scarce hardware stays free for those who need it, and no work ever waits for that."""

import pytest
from scheduler_rig import BUNDLE, GPU, PLAIN, Rig, members

from mesh.scheduler.rank import sought
from mesh.state import ranges
from mesh.state.model import Task
from protocols.ids import PeerId
from protocols.manifests import Needs

GIB = 2**30
A, B, C = (PeerId(name) for name in "abc")


def memory(gib: int) -> dict[str, object]:
    return {**PLAIN, "memory": gib * GIB}


def given(rig: Rig) -> dict[str, list[int]]:
    """Worker -> tests that the next plan gives it."""
    found: dict[str, list[int]] = {}
    for grant in rig.plan().grants:
        found[grant.worker] = sorted([*found.get(grant.worker, []), *members(grant.tasks)])
    return found


class TestWhatIsSought:
    def test_the_fewest_that_some_work_has_to_choose_from(self) -> None:
        everybody, some = frozenset((A, B, C)), frozenset((A, B))
        assert sought([everybody, some, frozenset((A,)), some]) == {A: 1, B: 2, C: 3}

    def test_nobody_where_all_work_may_go_to_the_same(self) -> None:
        assert sought([frozenset((A, B)), frozenset((A, B))]) == {}
        assert sought([]) == {}


class TestNobodyWaits:
    @pytest.mark.parametrize("special", [GPU, memory(256)])
    def test_with_enough_tests_the_scarce_one_works_as_much_as_the_others(self, special: dict[str, object]) -> None:
        rig = Rig()
        rig.worker("a", capabilities=special)
        rig.worker("b", capabilities=memory(16))
        rig.running([Task(0, 100)], [1.0] * 100)
        found = given(rig)
        assert len(found["a"]) == len(found["b"]) > 0

    def test_an_idle_slot_goes_before_a_plain_host_that_has_none(self) -> None:
        rig = Rig()
        rig.worker("a", slots=1, capabilities=memory(256))
        rig.worker("b", slots=1, capabilities=memory(16))
        rig.running([Task(0, 1)], [0.5], nonce="first")
        assert given(rig) == {"b": [0]}
        rig.follow(rig.plan())
        rig.running([Task(0, 1)], [0.5], nonce="second")
        assert given(rig) == {"a": [0]}, "b has room for a backlog, but its slot is taken"

    def test_a_sought_one_that_alone_is_idle_is_used(self) -> None:
        rig = Rig()
        rig.worker("a", slots=2, capabilities=GPU)
        rig.worker("b", slots=1, capabilities=PLAIN)
        rig.running([Task(0, 1)], [0.5], nonce="first")
        rig.follow(rig.plan())
        needs = (Needs(), Needs(gpu=1000))
        rig.running([Task(0, 1), Task(1, 1, 1)], [0.5, 0.5], requirements=(("", ""), ("", "")), needs=needs)
        assert given(rig) == {"a": [0, 1]}


class TestFreeForThoseWhoNeedIt:
    def test_a_test_without_devices_goes_to_a_worker_without_any(self) -> None:
        rig = Rig()
        rig.worker("a", capabilities=GPU)
        rig.worker("b", capabilities=PLAIN)
        rig.running([Task(0, 1)], [1.0])
        assert given(rig) == {"b": [0]}

    def test_a_small_test_leaves_the_large_memory_alone(self) -> None:
        rig = Rig()
        for name, size in (("a", 256), ("b", 16), ("c", 64)):
            rig.worker(name, capabilities=memory(size))
        rig.running([Task(0, 1)], [1.0], nonce="plain")
        assert given(rig) == {"b": [0]}
        rig.follow(rig.plan())
        rig.running([Task(0, 1)], [1.0], nonce="held", requirements=(("", ""),), needs=(Needs(memory=20 * GIB),))
        assert given(rig) == {"c": [0]}, "the smallest that is large enough"

    def test_sizes_within_a_factor_of_two_are_balanced_by_load(self) -> None:
        rig = Rig()
        rig.worker("a", capabilities=memory(20), load=0.1)
        rig.worker("b", capabilities=memory(17), load=0.9)
        rig.running([Task(0, 1)], [1.0])
        assert given(rig) == {"a": [0]}

    def test_what_waits_for_a_host_keeps_others_off_it_even_those_whose_bundle_is_there(self) -> None:
        rig = Rig()
        rig.worker("a", slots=1, capabilities={**PLAIN, "rig": "7"}, bundles=frozenset((BUNDLE,)))
        rig.worker("b", slots=1)
        rig.running([Task(0, 1)], [1.0], nonce="plain")
        assert given(rig) == {"a": [0]}, "nothing else wants it"
        rig.running([Task(0, 1)], [1.0], nonce="needy", requires="rig == 7")
        plan = rig.plan()
        assert {(grant.run, grant.worker) for grant in plan.grants} == {
            (run.id, PeerId("a" if run.spec.requires else "b")) for run in rig.state.runs.values()
        }

    def test_within_a_run_too(self) -> None:
        rig = Rig()
        rig.worker("a", slots=1, capabilities={**PLAIN, "rig": "7"}, bundles=frozenset((BUNDLE,)))
        for name in "bc":
            rig.worker(name, slots=1)
        run = rig.running([Task(0, 2), Task(2, 1, 1)], [1.0] * 3, requirements=(("", ""), ("rig == 7", "")))
        found = given(rig)
        assert found["a"] == [2]
        assert sorted(found["b"] + found["c"]) == [0, 1]
        assert ranges.size(run.pending) == 3

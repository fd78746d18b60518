"""The queue of slots, without processes."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from mesh.worker.slots import AHEAD_FIRST, AHEAD_MAX, SlotQueue


def filled(slots: int, *scopes: tuple[str, int]) -> SlotQueue:
    queue, key = SlotQueue(slots), 0
    for scope, count in scopes:
        for _ in range(count):
            queue.add(key, scope)
            key += 1
    return queue


def test_scopes_go_to_slots_of_their_own() -> None:
    queue = filled(2, ("a", 8), ("b", 8))
    assert queue.refill(0, 0.0) == [0, 1]
    assert queue.refill(1, 0.0) == [8, 9]


def test_little_is_given_before_anything_is_known_and_much_when_tests_are_short() -> None:
    queue = filled(1, ("a", 10_000))
    first = queue.refill(0, 0.0)
    assert len(first) == AHEAD_FIRST
    for key in first:
        queue.started(0, key, 0.0)
        queue.finished(0, key, 0.0001)
    assert len(queue.refill(0, 0.0)) == AHEAD_MAX


def test_no_slot_takes_more_than_its_share_of_the_rest() -> None:
    queue = filled(2, ("a", 42))
    for key in queue.refill(0, 0.0):
        queue.started(0, key, 0.0)
        queue.finished(0, key, 0.0001)
    assert len(queue.refill(0, 0.0)) == 10


def test_a_large_scope_is_shared_and_a_tiny_one_is_not() -> None:
    queue = filled(2, ("a", 100))
    assert queue.refill(0, 0.0) == [0, 1]
    assert queue.refill(1, 0.0) == [2, 3]
    small = filled(2, ("a", 3))
    assert small.refill(0, 0.0) == [0]
    assert small.refill(1, 0.0) == [1], "expected 20 ms of work are worth a second import"


def test_an_xdist_group_stays_on_one_slot_for_good() -> None:
    queue = SlotQueue(2)
    for key in range(6):
        queue.add(key, "@db", shared=False)
    assert queue.refill(0, 0.0) == [0, 1]
    assert queue.refill(1, 0.0) == []
    for key in (0, 1):
        queue.started(0, key, 0.0)
        queue.finished(0, key, 1.0)
    queue.add(6, "@db", shared=False)
    assert queue.refill(1, 0.0) == []
    assert queue.refill(0, 0.0) == [2]


def test_what_waits_behind_a_long_test_is_taken_back_for_an_idle_slot() -> None:
    queue = filled(2, ("a", 2))
    assert queue.refill(0, 0.0) == [0]
    queue.started(0, 0, 0.0)
    queue.finished(0, 0, 0.001)
    assert queue.refill(0, 0.0) == [1]
    queue.add(2, "a")
    queue.started(0, 1, 0.0)
    assert queue.refill(0, 0.0) == [2]
    assert queue.rich(0.001) is None, "a millisecond's work is not worth it"
    assert queue.rich(5.0) == 0
    queue.returned(0, [2])
    assert queue.refill(1, 5.0) == [2]
    assert queue.given(0) == (1,)


def test_a_lost_slot_gives_back_all_but_what_it_died_of() -> None:
    queue = filled(1, ("a", 5))
    assert queue.refill(0, 0.0) == [0, 1]
    queue.started(0, 0, 0.0)
    queue.lost(0, [0])
    assert queue.given(0) == ()
    assert queue.pending == 4
    assert queue.refill(0, 0.0) == [1, 2]


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 4),
    st.lists(st.tuples(st.sampled_from("abc@"), st.integers(1, 20)), max_size=12),
    st.randoms(use_true_random=False),
)
def test_every_key_is_run_exactly_once_whatever_happens(
    slots: int, batches: list[tuple[str, int]], chance: random.Random
) -> None:
    queue, expected = SlotQueue(slots), 0
    done: set[int] = set()
    owner: dict[str, int] = {}
    scope_of: dict[int, str] = {}
    pipes: list[list[int]] = [[] for _ in range(slots)]
    now = 0.0

    def feed() -> None:
        for slot in range(slots):
            keys = queue.refill(slot, now)
            pipes[slot] += keys
            for key in keys:
                if scope_of[key] == "@":
                    assert owner.setdefault("@", slot) == slot

    while batches or len(done) < expected:
        if batches and chance.random() < 0.5:
            scope, count = batches.pop()
            for _ in range(count):
                scope_of[expected] = scope
                queue.add(expected, scope, shared=scope != "@")
                expected += 1
        feed()
        rich = queue.rich(now)
        if rich is not None:
            keys, pipes[rich] = pipes[rich], []
            running = queue.given(rich)[0]
            queue.returned(rich, [key for key in keys if key != running])
            pipes[rich] = [key for key in keys if key == running]
            feed()
        busy = [slot for slot in range(slots) if queue.given(slot)]
        assert busy or not queue.pending, "work waits and no slot has any"
        if not busy:
            continue
        slot = chance.choice(busy)
        key = queue.given(slot)[0]
        queue.started(slot, key, now)
        if key in pipes[slot]:
            pipes[slot].remove(key)
        now += chance.choice((0.0001, 0.01, 3.0))
        assert key not in done
        done.add(key)
        if chance.random() < 0.1:
            queue.lost(slot, [key])
            pipes[slot] = []
        else:
            queue.finished(slot, key, chance.choice((0.0001, 0.01, 3.0)))
    assert done == set(range(expected))
    assert queue.pending == 0

"""Which ticks are due, and when to look again."""

import random

import pytest

from mesh.raft.options import TICK_SECONDS
from mesh.raft.pace import CATCH_UP_TICKS_MAX, Pace


def test_ticks_that_only_count_wait_for_the_next_one() -> None:
    pace = Pace(100.0)
    due = pace.plan(quiet_ticks=5)
    assert due == pytest.approx(100.0 + 6 * TICK_SECONDS)
    assert pace.due(due) == 6
    assert pace.due(due) == 0


def test_what_happens_before_finds_all_ticks_counted() -> None:
    pace = Pace(0.0)
    pace.plan(quiet_ticks=30)
    assert pace.due(4.5 * TICK_SECONDS) == 4
    assert pace.due(4.9 * TICK_SECONDS) == 0
    assert pace.due(31 * TICK_SECONDS) == 27


def test_a_stall_is_no_silence() -> None:
    pace = Pace(0.0)
    due = pace.plan(quiet_ticks=10)
    assert pace.due(due + 100 * TICK_SECONDS) == CATCH_UP_TICKS_MAX
    assert pace.due(due + 101 * TICK_SECONDS) == 1, "the stall is over"


def test_a_plan_may_have_become_too_slow() -> None:
    pace = Pace(0.0)
    pace.plan(quiet_ticks=30)
    assert not pace.too_slow(quiet_ticks=30)
    assert pace.too_slow(quiet_ticks=3)


def test_no_tick_is_lost_however_often_one_looks() -> None:
    rng, pace, now, given = random.Random(1), Pace(0.0), 0.0, 0
    for _ in range(1000):
        deadline = pace.plan(rng.randrange(40))
        now = rng.choice((deadline, rng.uniform(now, deadline)))
        given += pace.due(now)
    assert given == int(now / TICK_SECONDS + 0.001)

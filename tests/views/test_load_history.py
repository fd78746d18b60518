"""What is remembered of nodes' loads: means, gaps, states, and how much memory that takes."""

import tracemalloc
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.views.load_history import NODES_MAX, STEP_SECONDS, STEPS, LoadHistory, figures_of
from protocols.ids import PeerId
from protocols.presence import NodeState, Presence, Role

A, B = PeerId("12D3KooWa"), PeerId("12D3KooWb")
ALIVE, DRAINING, SUSPECT, DEAD = NodeState.ALIVE, NodeState.DRAINING, NodeState.SUSPECT, NodeState.DEAD
NOON = 1_800_000_000.0
"""A whole number of steps since the epoch."""
DAY = STEPS * STEP_SECONDS
BYTES_PER_NODE_MAX = 2 * 2**20 / 200


def busy(cpu: float, peer: PeerId = A, **changes: Any) -> Presence:
    """A node with 4 slots, one of them busy, and 1,000 bytes of memory, of which 250 are free."""
    load = {"cpu.percent": cpu, "memory.available": 250}
    made = Presence(peer, "a", Role.AUTO, 1, 0, (), 4, 1, False, {"memory": 1_000}, load, (), ())
    return replace(made, **changes)


def test_a_step_has_the_mean_of_what_was_seen_in_it() -> None:
    history = LoadHistory()
    for after, cpu in ((0, 10.0), (20, 20.0), (40, 60.0), (60, 80.0)):
        history.look(NOON + after, [(busy(cpu), ALIVE)])
    assert history.document(A, 1) == {
        "peer": A,
        "step_seconds": 60,
        "start": NOON,
        "cpu": [0.3, 0.8],
        "memory": [0.752, 0.752],
        "slots": [0.248, 0.248],
        "gpu": None,
        "gpu_memory": None,
        "states": [{"state": "alive", "since": NOON, "until": None}],
    }


def test_a_node_that_is_away_is_a_gap_with_a_state() -> None:
    """As a node that drains, is gone, is forgotten by the mesh, and comes back."""
    history = LoadHistory()
    told = [(ALIVE,), (DRAINING,), (DRAINING, SUSPECT), (DEAD,), (), (ALIVE,)]
    for step, states in enumerate(told):
        history.look(NOON + 60 * step, [])
        for state in states:
            history.look(NOON + 60 * step, [(busy(50.0), state)])
    history.look(NOON + 60 * 8, [(busy(10.0), ALIVE)])
    document = history.document(A, 1)
    assert document["cpu"] == [0.5, 0.5, 0.5, None, None, 0.5, None, None, 0.1]
    assert [
        (one["state"], one["since"] - NOON, one["until"] and one["until"] - NOON) for one in document["states"]
    ] == [
        ("alive", 0, 60),
        ("dead", 60, 360),
        (None, 360, 480),
        ("alive", 480, None),
    ]


def test_a_node_that_was_gone_before_anybody_looked_is_known_as_such() -> None:
    history = LoadHistory()
    history.look(NOON, [(busy(50.0), DEAD)])
    document = history.document(A, 1)
    assert (document["cpu"], [one["state"] for one in document["states"]]) == (None, ["dead"])


def test_who_was_known_in_an_earlier_life_is_given_a_minute_to_be_heard_of() -> None:
    former = LoadHistory()
    former.look(NOON, [(busy(50.0), ALIVE), (busy(50.0, B), ALIVE)])
    history = LoadHistory(former.kept())
    for after in range(120, 240, 5):
        history.look(NOON + after, [(busy(50.0), ALIVE)] if after > 120 else [])
    assert [one["state"] for one in history.document(A, 1)["states"]] == ["alive", None, "alive"]
    assert [one["state"] for one in history.document(B, 1)["states"]] == ["alive", None, "dead"], "it is gone"


def test_a_step_has_the_state_furthest_from_alive() -> None:
    history = LoadHistory()
    for step, states in enumerate([(ALIVE,), (ALIVE, DRAINING), (SUSPECT, ALIVE), (DEAD, SUSPECT), (DRAINING,)]):
        for state in states:
            history.look(NOON + 60 * step, [(busy(50.0), state)])
    states = [one["state"] for one in history.document(A, 1)["states"]]
    assert states == ["alive", "draining", "suspect", "dead", "draining"]


def test_what_is_older_than_a_day_or_than_what_was_asked_for_is_not_told() -> None:
    history = LoadHistory()
    history.look(NOON, [(busy(100.0), ALIVE)])
    history.look(NOON + DAY - 60, [(busy(50.0), ALIVE)])
    whole = history.document(A, 24)
    assert (whole["start"], len(whole["cpu"]), whole["cpu"][0], whole["cpu"][-1]) == (NOON, STEPS, 1.0, 0.5)
    assert history.document(A, 1)["cpu"] == [0.5], "from the first step of which something is known"
    history.look(NOON + DAY, [])
    assert history.document(A, 24)["cpu"] == [0.5, None]
    history.look(NOON + 3 * DAY, [(busy(0.0, B), ALIVE)])
    assert A not in history
    assert history.document(A, 24)["start"] is None
    assert history.document(A, 24)["cpu"] is None
    assert history.document(B, 24)["cpu"] == [0.0]


@given(st.lists(st.integers(-2 * STEPS, 2 * STEPS).filter(bool), max_size=12))
def test_a_clock_that_jumps_leaves_what_was_seen_by_what_it_says_now(jumps: list[int]) -> None:
    """Against a dictionary of steps."""
    history = LoadHistory()
    seen: dict[int, float] = {}
    step = round(NOON / STEP_SECONDS)
    for number, jump in enumerate([0, *jumps]):
        step += jump
        share = number % 11 / 10
        seen = {at: cpu for at, cpu in seen.items() if step - STEPS < at < step} | {step: share}
        history.look(step * STEP_SECONDS, [(busy(100 * share), ALIVE)])
    document = history.document(A, 24)
    begin = document["start"] // STEP_SECONDS
    assert {begin + place: cpu for place, cpu in enumerate(document["cpu"]) if cpu is not None} == seen


def test_a_hosts_gpus_count_together() -> None:
    has = {"gpu": ({"index": 0, "memory": 80}, {"index": 1, "memory": 20}, {"index": 2})}
    load = {"gpu": ({"index": 1, "percent": 100.0, "memory.free": 0}, {"index": 0, "percent": 50, "memory.free": 60})}
    assert figures_of(busy(0.0, capabilities=has, load=load)) == (None, None, 0.25, 0.75, 0.4)


@pytest.mark.parametrize(
    "junk", ["x", None, True, float("nan"), float("inf"), 10**400, -1, b"", (), ("x", {}), ({"index": {}},), {"a": 1}]
)
def test_what_a_node_tells_may_be_anything(junk: Any) -> None:
    load = {"cpu.percent": junk, "memory.available": junk, "gpu": junk}
    gpus = ({"index": junk, "percent": junk, "memory.free": junk},)
    for told in (load, {**load, "gpu": gpus}):
        for has in ({"memory": junk, "gpu": junk}, {"memory": 1, "gpu": ({"index": junk, "memory": junk},)}):
            for slots in (-1, 1, 10**400):
                figures = figures_of(busy(0.0, load=told, capabilities=has, slots=slots, busy=10**400))
                assert all(figure is None or 0 <= figure <= 1 for figure in figures)


def test_two_hundred_nodes_take_two_mebibytes_and_their_number_is_bounded() -> None:
    peers = [PeerId(f"12D3KooW{number:044}") for number in range(NODES_MAX + 5)]
    presences = [(busy(50.0, peer), ALIVE) for peer in peers]
    tracemalloc.start()
    try:
        history = LoadHistory()
        history.look(NOON, presences[:200])
        history.look(NOON + 60, presences[:200])
        assert tracemalloc.get_traced_memory()[0] < 200 * BYTES_PER_NODE_MAX
    finally:
        tracemalloc.stop()
    history.look(NOON + 120, presences[200:])
    assert sum(peer in history for peer in peers) == NODES_MAX
    assert [peer in history for peer in peers[:6]] == [False] * 5 + [True], "who was heard of longest ago goes first"

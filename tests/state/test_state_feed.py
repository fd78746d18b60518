"""The feed: what each entry tells, the ring that keeps it, and bursts."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from mesh.state import feed
from mesh.state.apply import apply
from mesh.state.feed import PROGRESS, Feed, Ring, held, merged
from mesh.state.model import CoordinatorState
from protocols.alerts import (
    AcknowledgeAlert,
    AlertKind,
    ClearAlerts,
    Finding,
    RaiseAlerts,
    Severity,
    alert_id,
)
from protocols.client import FeedEvent
from protocols.commands import (
    Cancel,
    Claim,
    Collected,
    Complete,
    Expire,
    Finish,
    Found,
    Grant,
    RaiseFormat,
    Register,
    Return,
    Submit,
    TaskRange,
)
from protocols.ids import NO_RUN, Cid, LeaseId, PeerId, RunId, TestIndex
from protocols.manifests import RunSpec

W, V = PeerId("w"), PeerId("v")
TREE = Cid("bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi")


def told(*commands: Any, now: float = 50.0) -> list[tuple[int, str, dict[str, Any]]]:
    """ID, name and data of the events of a log that holds these commands."""
    state, made = CoordinatorState(), Feed()
    for index, command in enumerate((Found("m"), *commands), start=1):
        before = held(state, command)
        made.applied(index, command, apply(state, index, command), state, before, now)
    events = made.ring.since(0, 1000, 2**20)
    assert events is not None
    return [(event.index, event.name, json.loads(event.json)) for event in events]


SUBMIT = Submit(b"n", RunSpec(TREE, "suite", "proj", V, priority=70), 40.0)
RUN = RunId(4)
START = (
    Register(W, "worker", 1, 2),
    Register(V, "other", 1, 1),
    SUBMIT,
    Grant(RUN, W, 1, ()),
    Collected(LeaseId(5), TREE, 4, (TaskRange(0, 4),)),
)
"""Entries 2 to 6."""


def test_a_run_from_its_submission_to_its_end() -> None:
    events = told(
        *START,
        Grant(RUN, W, 1, (TaskRange(0, 2),)),
        Grant(RUN, V, 1, (TaskRange(2, 2),)),
        Complete(LeaseId(7), TREE, (TestIndex(0), TestIndex(1)), bytes([0, 1]), (5, 6)),
        Return(LeaseId(8), (TestIndex(3),)),
        Expire(LeaseId(8), "gone"),
        Cancel(RUN, "enough"),
        Finish(RUN, TREE, 2, 61.5, "enough"),
    )
    assert [(index, name) for index, name, _ in events] == [
        (2, "worker-joined"),
        (3, "worker-joined"),
        (4, "run-submitted"),
        (5, "run-leased"),
        (6, "run-collected"),
        (7, "run-leased"),
        (8, "run-leased"),
        (9, PROGRESS),
        (10, "lease-ended"),
        (11, "lease-ended"),
        (12, PROGRESS),
        (13, "run-finished"),
    ]
    data = {index: fields for index, _, fields in events}
    assert data[2] == {"at": 50.0, "worker": W, "name": "worker", "slots": 2}
    submitted = {"run": "4", "name": "suite", "project": "proj", "priority": 70, "submitter": V}
    assert data[4] == {"at": 40.0, **submitted}
    assert (data[5]["tests"], data[5]["collects"], data[7]["tests"], data[7]["lease"]) == (0, True, 2, "7")
    assert (data[9]["done"], data[9]["pending"], data[9]["leased"], data[9]["counts"]["failed"]) == (2, 0, 2, 1)
    assert data[9]["bad"] == [{"index": 1, "outcome": "failed", "worker": W, "attempt": 1}]
    assert (data[10]["why"], data[10]["tests"], data[10]["closed"]) == ("given back", 1, False)
    assert (data[11]["why"], data[11]["tests"], data[11]["worker"], data[11]["closed"]) == ("lost", 1, V, True)
    assert (data[12]["state"], data[12]["bad"]) == ("reporting", [])
    finished = {"run": "4", "state": "cancelled", "exit_code": 2, "wall_seconds": 21.5, "reason": "enough"}
    assert data[13] == data[13] | finished | {"at": 61.5, "report": TREE, "tests": 4}


def test_each_alert_of_a_command_is_told() -> None:
    slow = Finding(AlertKind.SLOW_TEST, "suite a::x", Severity.WARNING, "slow")
    flaky = Finding(AlertKind.FLAKY_TEST, "suite a::y", Severity.INFO, "flips")
    both = (alert_id(3, 0), alert_id(3, 1))
    events = told(
        RaiseFormat(5),
        RaiseAlerts((slow, flaky), 10.0),
        AcknowledgeAlert(both[1], "ada", 11.0),
        ClearAlerts(both, 12.0),
    )
    assert [(index, name, data["alert"]["id"]) for index, name, data in events] == [
        *((3, "alert", str(one)) for one in both),
        (4, "alert", str(both[1])),
        *((5, "alert", str(one)) for one in both),
    ]
    assert [data["alert"]["cleared_at"] for _, _, data in events] == [None, None, None, 12.0, 12.0]
    assert [data["alert"]["acknowledged_by"] for _, _, data in events] == ["", "", "ada", "", "ada"]


def test_what_changes_nothing_tells_nothing() -> None:
    again = Register(W, "worker", 1, 3)
    events = told(*START, SUBMIT, again, Expire(LeaseId(99), "gone"), Claim(RUN, "name", W, 1, 7))
    assert [index for index, _, _ in events] == [2, 3, 4, 5, 6]


def test_of_a_time_that_is_not_known_the_log_tells_the_last() -> None:
    events = told(*START, now=0.0)
    assert [fields["at"] for _, _, fields in events] == [0.0, 0.0, 40.0, 40.0, 40.0]


def test_long_texts_are_cut() -> None:
    spec = RunSpec(TREE, "n" * 250, "p" * 9000, V)
    ((_, _, fields),) = told(Submit(b"n", spec, 1.0))
    assert (len(fields["name"]), len(fields["project"])) == (250, feed.TEXT_CHARACTERS_MAX)


def event(index: int, name: str = "x", run: int = 0, **fields: Any) -> FeedEvent:
    return FeedEvent(index, name, RunId(run), json.dumps(fields).encode())


@given(
    st.lists(st.tuples(st.integers(1, 3), st.booleans()), max_size=60),
    st.integers(0, 130),
    st.integers(1, 5),
    st.integers(1, 12),
)
def test_a_ring_tells_all_after_an_index_or_that_it_can_not(
    steps: list[tuple[int, bool]], after: int, most: int, kept: int
) -> None:
    ring, all_of_them, index = Ring(), [], 0
    was, feed.EVENTS_MAX = feed.EVENTS_MAX, kept
    try:
        for step, is_event in steps:
            index += step
            made = [event(index)] * (step if is_event else 0)
            all_of_them += made
            ring.enter(index, made)
    finally:
        feed.EVENTS_MAX = was
    assert ring.head == index
    newer = [one for one in all_of_them if one.index > after]
    found = ring.since(after, most, 2**20)
    if found is None:
        assert after < ring.floor == all_of_them[-kept - 1].index
        return
    assert list(found) == newer[: len(found)]
    assert len(found) >= min(most, len(newer))
    assert len(found) <= max(most, 3)
    rest = newer[len(found) :]
    assert not rest or rest[0].index > found[-1].index, "an entry's events are told together"


def test_bytes_bound_the_ring_and_an_answer(monkeypatch: Any) -> None:
    monkeypatch.setattr(feed, "EVENT_BYTES_MAX", 100)
    ring = Ring()
    for index in range(1, 11):
        ring.enter(index, [FeedEvent(index, "x", NO_RUN, b"x" * 30)])
    assert (ring.floor, ring.since(6, 9, 999)) == (7, None)
    found = ring.since(7, 9, 70)
    assert found is not None
    assert [one.index for one in found] == [8, 9]
    assert len(ring.since(7, 9, 1) or ()) == 1


def test_a_burst_tells_the_newest_progress_of_each_run_and_all_that_went_wrong() -> None:
    burst = [
        event(1, PROGRESS, 7, done=1, bad=[{"index": 1}]),
        event(2, "run-leased", 7),
        event(3, PROGRESS, 8, done=1, bad=[]),
        event(4, PROGRESS, 7, done=2, bad=[{"index": 2}]),
        event(5, PROGRESS, 7, done=3, bad=[]),
    ]
    found = merged(burst)
    assert [one.index for one in found] == [2, 3, 5]
    assert json.loads(found[2].json) == {"done": 3, "bad": [{"index": 1}, {"index": 2}]}
    assert merged(burst[:2]) == burst[:2]

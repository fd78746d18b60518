"""Snapshots: the whole state and back, canonical, and applying goes on from any of them as if it had never stopped."""

import contextlib
import time
import tracemalloc
from array import array

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from state_builder import ALICE, BOB, CHUNK, MANIFEST, Builder, complete, spec

from mesh.state import verdicts
from mesh.state.apply import apply
from mesh.state.invariants import check
from mesh.state.model import Completion, CoordinatorState, Run, RunPhase, Task
from mesh.state.snapshot import (
    SavedState,
    Versioned,
    assembled,
    capture,
    decode_state,
    encode_state,
    encode_steps,
    state_hash,
)
from protocols.alerts import (
    AcknowledgeAlert,
    AlertKind,
    AlertsTold,
    ClearAlerts,
    Finding,
    Quarantine,
    RaiseAlerts,
    Release,
    Severity,
    alert_id,
)
from protocols.codec import decode, encode
from protocols.commands import (
    Abandon,
    Cancel,
    Claim,
    Collected,
    CollectFailed,
    Command,
    Complete,
    Expire,
    Finish,
    Found,
    Grant,
    Hedge,
    PinKind,
    PinReference,
    PinRoot,
    Placed,
    Placement,
    Preempt,
    RaiseFormat,
    Register,
    Return,
    Settle,
    Submit,
    Unpin,
    Yield,
)
from protocols.errors import RemoteProtocolError
from protocols.ids import Cid, LeaseId, RunId, TestIndex
from protocols.raft import LOG_FORMAT_NEWEST
from tests.properties import examples

SLOW = Finding(AlertKind.SLOW_TEST, "suite a::x", Severity.INFO, "slow", "5 times", "look", RunId(1), "a::x", ALICE)


def everything() -> Builder:
    """A state with something in each field."""
    builder = Builder()
    finished = builder.running(Task(0, 2), nonce=b"1", retries=1)
    lease = builder.grant(finished.id, ALICE, Task(0, 2))
    builder.accept(complete(lease, 0, 1))
    builder.accept(Finish(finished.id, CHUNK, 0, 9.0, "done"))
    failed = builder.submit(b"2")
    builder.accept(CollectFailed(builder.grant(failed.id, BOB), 2, "SyntaxError", CHUNK))
    running = builder.running(Task(0, 9), Task(9, 3, 1), nonce=b"3", retries=2)
    lease = builder.grant(running.id, ALICE, Task(0, 5))
    builder.grant(running.id, BOB, Task(9, 2, 1))
    builder.accept(Complete(lease, CHUNK, (TestIndex(3), TestIndex(1)), b"\1\0", (5, 2**40)))
    builder.accept(Expire(lease, "gone"))
    taken = builder.grant(running.id, ALICE, Task(11, 1, 1))
    builder.accept(Preempt(taken, builder.running(Task(0, 1), nonce=b"6", priority=90).id))
    straggling = builder.running(Task(0, 3), nonce=b"7", hedge=True)
    slow = builder.grant(straggling.id, ALICE, Task(0, 3))
    builder.accept(Hedge(slow, TestIndex(1), BOB, 1))
    cancelled = builder.running(Task(0, 9), nonce=b"4")
    builder.accept(Cancel(cancelled.id, "enough"))
    builder.grant(builder.submit(b"5").id, BOB)
    builder.accept(RaiseFormat(LOG_FORMAT_NEWEST))
    builder.accept(PinRoot(CHUNK, 3, "mine", 10.0))
    builder.accept(Placed((Placement(CHUNK, (BOB, ALICE), (), 77),)))
    builder.accept(RaiseAlerts((Finding(AlertKind.BAD_HOST, BOB, Severity.WARNING, "bad"), SLOW), 11.0))
    host, slow = builder.state.alerts
    builder.accept(Quarantine(BOB, host, 11.0, 99.0))
    builder.accept(ClearAlerts((slow,), 12.0))
    builder.accept(AlertsTold((host,), (slow,)))
    builder.accept(AcknowledgeAlert(slow, "somebody", 13.0))
    return builder


def test_round_trip() -> None:
    state = everything().state
    data = encode_state(state)
    again = decode_state(data)
    assert again == state
    assert encode_state(again) == data
    assert state_hash(again) == state_hash(state)
    check(again)


def test_any_change_changes_the_hash() -> None:
    builder = everything()
    before = state_hash(builder.state)
    builder.accept(Register(ALICE, "other name", 1, 2))
    assert state_hash(builder.state) != before


def test_applying_goes_on_from_any_snapshot() -> None:
    builder = everything()
    for cut in range(len(builder.log) + 1):
        state = CoordinatorState()
        for index, command in builder.log[:cut]:
            apply(state, index, command)
        restored = decode_state(encode_state(state))
        for index, command in builder.log[cut:]:
            assert apply(restored, index, command) == apply(state, index, command)
        assert restored == builder.state


def test_junk_is_refused() -> None:
    data = encode_state(everything().state)
    for damaged in (b"", b"junk", data[:-1], data + b"x", encode(spec())):
        with pytest.raises(RemoteProtocolError):
            decode_state(damaged)


@settings(max_examples=examples(150))
@given(st.data())
def test_damage_gives_a_state_or_a_refusal(data: st.DataObject) -> None:
    encoded = bytearray(_SAMPLE)
    for _ in range(data.draw(st.integers(1, 3))):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(RemoteProtocolError):
        decode_state(bytes(encoded))


_SAMPLE = encode_state(everything().state)


RUNS = st.integers(1, 12).map(RunId)
LEASES = st.integers(1, 30).map(LeaseId)
TESTS = st.lists(st.integers(0, 12).map(TestIndex), max_size=6).map(tuple)
TASKS = st.lists(
    st.builds(Task, st.integers(0, 10), st.integers(1, 6), st.integers(0, 1), st.integers(0, 1)), max_size=3
).map(tuple)
PEERS = st.sampled_from([ALICE, BOB])
HELD = st.lists(PEERS, max_size=2).map(tuple)
ROOTS = st.sampled_from([CHUNK, MANIFEST, spec().bundle])
REFERENCES = st.builds(PinReference, ROOTS, st.sampled_from(PinKind), st.just(0.0))


@st.composite
def completions(draw: st.DrawFn) -> Complete:
    tests = draw(TESTS)
    outcomes = bytes(draw(st.integers(0, 5)) for _ in tests)
    return Complete(draw(LEASES), CHUNK, tests, outcomes, tuple(draw(st.integers(-1, 99)) for _ in tests))


SPECS = st.builds(spec, retries=st.integers(0, 1), priority=st.sampled_from([50, 90]), hedge=st.booleans())
PARTITIONS = [(), (Task(0, 9),), (Task(0, 4), Task(4, 5))]
FINDINGS = st.builds(
    Finding, st.sampled_from([AlertKind.BAD_HOST, AlertKind.FLAKY_TEST]), st.sampled_from("ab"), st.just(Severity.INFO),
    st.sampled_from(["s", "t"]),
)  # fmt: skip
ALERTS = st.builds(alert_id, st.integers(0, 60), st.integers(0, 2))
COMMANDS = st.one_of(
    st.builds(Found, st.sampled_from(["", "x"])),
    st.builds(Yield, st.sampled_from(["", "x"])),
    st.builds(Register, PEERS, st.just("n"), st.integers(0, 3), st.integers(-1, 2)),
    st.builds(Submit, st.binary(max_size=1), SPECS, st.just(0.0)),
    st.builds(Collected, LEASES, st.just(MANIFEST), st.integers(0, 9), st.sampled_from(PARTITIONS)),
    st.builds(CollectFailed, LEASES, st.integers(0, 5), st.just("r")),
    st.builds(Grant, RUNS, PEERS, st.integers(0, 3), TASKS),
    st.builds(Hedge, LEASES, st.integers(-1, 12).map(TestIndex), PEERS, st.integers(0, 3)),
    completions(),
    st.builds(Return, LEASES, TESTS),
    st.builds(Preempt, LEASES, RUNS),
    st.builds(Expire, LEASES, st.just("r")),
    st.builds(Abandon, RUNS, st.integers(-1, 12).map(TestIndex), st.just(CHUNK)),
    st.builds(Cancel, RUNS, st.just("r")),
    st.builds(Finish, RUNS, st.none(), st.integers(0, 12), st.just(0.0)),
    st.builds(Claim, RUNS, st.sampled_from("ab"), PEERS, st.integers(0, 3), st.integers(0, 1)),
    st.builds(PinRoot, ROOTS, st.integers(0, 3), st.just("r"), st.sampled_from([0.0, 1.0])),
    st.builds(Unpin, st.lists(REFERENCES, max_size=3).map(tuple)),
    st.builds(Placed, st.lists(st.builds(Placement, ROOTS, HELD, HELD, st.integers(-1, 9)), max_size=3).map(tuple)),
    st.builds(RaiseAlerts, st.lists(FINDINGS, max_size=3).map(tuple), st.sampled_from([0.0, 1.0])),
    st.builds(ClearAlerts, st.lists(ALERTS, max_size=2).map(tuple), st.sampled_from([0.0, 1.0])),
    st.builds(AcknowledgeAlert, ALERTS, st.sampled_from(["", "me"]), st.just(1.0)),
    st.builds(AlertsTold, st.lists(ALERTS, max_size=2).map(tuple), st.lists(ALERTS, max_size=2).map(tuple)),
    st.builds(Quarantine, PEERS, ALERTS, st.just(1.0), st.just(2.0)),
    st.builds(Release, PEERS),
    st.builds(RaiseFormat, st.integers(2, LOG_FORMAT_NEWEST)),
    st.builds(Settle, RUNS, st.sampled_from("ab"), PEERS, st.integers(0, 1), st.sampled_from([None, CHUNK])),
)  # fmt: skip


@settings(max_examples=examples(150), suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(COMMANDS, max_size=25), st.booleans())
def test_apply_is_total_and_deterministic(commands: list[Command], started: bool) -> None:
    """Any commands in any order, from nothing or from a busy state: no exception, no broken invariant, no difference
    between a voter that was there all the time and one that was restored on the way."""
    state = decode_state(_SAMPLE) if started else CoordinatorState()
    twin = decode_state(encode_state(state))
    for command in commands:
        index = state.applied + 1
        assert apply(state, index, command) == apply(twin, index, command)
        check(state)
        twin = decode_state(encode_state(twin))
    assert encode_state(state) == encode_state(twin)


def test_a_test_takes_few_bytes() -> None:
    tests = 200_000
    state = CoordinatorState(applied=1)
    tracemalloc.start()
    try:
        run = Run(RunId(1), b"n", spec(), 0.0, phase=RunPhase.RUNNING)
        state.runs[run.id] = run
        state.nonces[b"n"] = run.id
        verdicts.open_book(run, tests)
        for first in range(0, tests, 1_000):
            indexes, durations = array("I", range(first, first + 1_000)), array("q", bytes(8_000))
            run.chunks.append(Completion(CHUNK, ALICE, LeaseId(1), indexes, bytes(1_000), durations, bytes(1_000)))
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size < 50 * tests, "a million tests take at most 50 MB"
    begin = time.perf_counter()
    data = encode_state(state)
    assert len(data) < 20 * tests
    assert time.perf_counter() - begin < 5, "far from quadratic"


def test_a_capture_is_of_its_moment_and_its_pieces_join_to_the_encoding() -> None:
    built = Builder()
    run = built.running(Task(0, 700), Task(700, 300))
    lease = built.grant(run.id, ALICE, Task(0, 700))
    for test in range(600):
        built.accept(complete(lease, test))
    before, captured = encode_state(built.state), capture(built.state)
    built.accept(complete(lease, 601, 650))
    built.grant(run.id, BOB, Task(700, 300))
    pieces = list(encode_steps(captured))
    assert b"".join(pieces) == before != encode_state(built.state)
    assert len(pieces) > 5
    assert encode(decode(before, SavedState)) == before, "one form for each value"


def test_pins_are_captured_and_encoded_in_pieces_like_all_else() -> None:
    built = everything()
    for number in range(600):
        built.accept(PinRoot(Cid(f"bafy{number}"), 1, "mine", 1.0))
    captured = capture(built.state)
    before = encode_state(built.state)
    built.accept(Placed((Placement(CHUNK, (), (BOB,)),)))
    pieces = list(encode_steps(captured))
    assert assembled(captured, pieces) == before != encode_state(built.state)
    inner = decode(before, Versioned)
    assert encode(decode(inner.state, SavedState)) == inner.state == b"".join(pieces)
    assert len(decode_state(before).pins) == len(built.state.pins)


def test_a_snapshot_from_before_there_were_pins_is_read() -> None:
    builder = Builder()
    builder.accept(RaiseFormat(3))
    run = builder.running(Task(0, 2))
    data = encode_state(builder.state)
    assert data == encode(Versioned(3, encode(decode(decode(data, Versioned).state, SavedState))))
    state = decode_state(data)
    assert not state.pins
    apply(state, state.applied + 1, RaiseFormat(LOG_FORMAT_NEWEST))
    assert state.pins.keys() == {run.spec.bundle, MANIFEST}, "what is known already is pinned from now on"
    check(state)

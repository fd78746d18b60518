"""Frames from a slot, and the bounds of what a record keeps."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mesh.ports import WorkItem
from mesh.worker import frames, sessions
from mesh.worker.pytest_side import wire
from protocols import manifests
from protocols.ids import LeaseId, PeerId, TestIndex

ITEM = WorkItem(LeaseId(1), TestIndex(0), "a.py::b", "a.py", attempt=2)
PLACE = frames.Place(PeerId("p"), 3)


@given(st.lists(st.integers(1, 40)))
def test_frames_survive_any_chunking(cuts: list[int]) -> None:
    stream = wire.STARTED.pack(b"S", 7, 2.5) + wire.PASSED.pack(b"P", 7, 2.5, 1, 2, 3) + wire.pack_json({"key": 9})
    reader, found = wire.FrameReader(), []
    for cut in [*cuts, len(stream)]:
        found += reader.feed(stream[:cut])
        stream = stream[cut:]
    assert found == [("S", 7, 2.5), ("P", 7, 2.5, 1.0, 2.0, 3.0), ("J", {"key": 9})]


@pytest.mark.parametrize("junk", [b"x", wire.FULL.pack(b"J", 2**31), wire.FULL.pack(b"J", 2) + b"}{"])
def test_bytes_that_no_slot_writes_are_refused(junk: bytes) -> None:
    with pytest.raises(ValueError):
        wire.FrameReader().feed(junk)


@given(st.binary(max_size=3000), st.integers(10, 1000))
def test_clipped_text_keeps_both_ends_and_counts_the_rest(data: bytes, limit: int) -> None:
    text, dropped = wire.clip_bytes(data, limit)
    text.encode()
    assert (dropped == 0) == (len(data) <= limit)
    if dropped:
        assert dropped == len(data) - 2 * (limit // 2)
        assert text.startswith(data[: limit // 2].decode("utf-8", "backslashreplace"))


def test_bounds_are_those_of_records() -> None:
    assert wire.OUTPUT_BYTES_MAX == manifests.OUTPUT_BYTES_MAX


@pytest.mark.parametrize(
    "result", [{}, {"outcome": "great"}, {"outcome": "passed", "stdout": 5}, {"outcome": "passed", "phases": [1]}]
)
def test_a_result_that_no_slot_sends_is_refused(result: dict[str, object]) -> None:
    with pytest.raises((ValueError, TypeError, KeyError)):
        frames.reported(ITEM, PLACE, result)


def test_a_record_of_numbers() -> None:
    record = frames.passed(ITEM, PLACE, (100.0, 0.25, 0.5, 0.25))
    assert (record.duration, record.started, record.slot, record.attempt) == (1.0, 100.0, 3, 2)
    assert [phase.name for phase in record.phases] == ["setup", "call", "teardown"]


def test_a_record_names_what_its_lease_held() -> None:
    item = dataclasses.replace(ITEM, variables=(("CUDA_VISIBLE_DEVICES", "GPU-1,GPU-2"), ("MESH_GPU_SHARE", "2")))
    held = ("mesh.device", "GPU-1,GPU-2")
    assert frames.passed(item, PLACE, (100.0, 0.25, 0.5, 0.25)).properties == (held,)
    told = {"outcome": "passed", "properties": [["a", "b"]]}
    assert frames.reported(item, PLACE, told).properties == (("a", "b"), held)
    assert frames.reported(ITEM, PLACE, told).properties == (("a", "b"),)
    assert frames.DEVICES in sessions.DEVICE_VARIABLES


def test_a_death_in_time_is_an_error_and_a_late_one_a_failure() -> None:
    remains = frames.Remains(-6, "out", "err", "Fatal Python error: Aborted\n\nCurrent thread", 5)
    crash = frames.died(ITEM, PLACE, 1.0, 2.0, remains, 0.0)
    assert (crash.outcome.value, crash.signal, crash.message) == ("error", 6, "the test process died: SIGABRT")
    assert (crash.stdout, crash.dropped) == ("out", 5)
    late = frames.died(ITEM, PLACE, 1.0, 2.0, remains, 1.5)
    assert (late.outcome.value, late.signal, late.message) == ("failed", 0, "timed out after 1.5 s")
    assert late.longrepr == "timed out after 1.5 s\n\nCurrent thread"

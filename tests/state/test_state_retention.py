"""What is kept of finished runs."""

import pytest
from state_builder import ALICE, Builder, complete

from mesh.state import retention
from mesh.state.model import Run, Task
from mesh.state.snapshot import decode_state, encode_state
from protocols.commands import Finish, Submit


def finish_one(builder: Builder, number: int, tests: int = 1, micros: int = 1_000) -> Run:
    run = builder.running(Task(0, tests), nonce=str(number).encode())
    builder.accept(complete(builder.grant(run.id, ALICE, Task(0, tests)), *range(tests), micros=micros))
    builder.accept(Finish(run.id, None, 0, 5.0, "why"))
    return run


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "RUNS_DETAILED_MAX", 3)
    monkeypatch.setattr(retention, "RUNS_SUMMARISED_MAX", 5)
    monkeypatch.setattr(retention, "DETAILED_TESTS_MAX", 20)


@pytest.mark.usefixtures("small")
def test_newest_whole_older_summed_up_oldest_forgotten() -> None:
    builder = Builder()
    open_run = builder.running(Task(0, 1), nonce=b"open")
    runs = [finish_one(builder, i).id for i in range(7)]
    state = builder.state
    assert list(state.runs) == [open_run.id, *runs[-3:]]
    assert list(state.archive) == runs[2:4]
    assert b"0" not in state.nonces
    assert builder.accept(Submit(b"3", open_run.spec, 0.0)).run == runs[3]
    kept = state.archive[runs[3]]
    assert (kept.state, kept.tests, kept.counts, kept.reason, kept.exit_code) == (
        "passed",
        1,
        (1, 0, 0, 0, 0, 0),
        "why",
        0,
    )


@pytest.mark.usefixtures("small")
def test_large_runs_push_each_other_out() -> None:
    builder = Builder()
    first, second = finish_one(builder, 1, tests=12).id, finish_one(builder, 2, tests=12).id
    assert list(builder.state.runs) == [second]
    assert list(builder.state.archive) == [first]
    giant = finish_one(builder, 3, tests=30).id
    assert list(builder.state.runs) == [giant], "the newest stays whole, whatever its size"


@pytest.mark.usefixtures("small")
def test_a_summary_can_be_saved_whatever_durations_workers_told() -> None:
    builder = Builder()
    runs = [finish_one(builder, number, tests=2, micros=2**63 - 1).id for number in range(4)]
    assert decode_state(encode_state(builder.state)) == builder.state
    assert builder.state.archive[runs[0]].microseconds == 2**63 - 1

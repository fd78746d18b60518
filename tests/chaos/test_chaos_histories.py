"""The checker of histories: content with a good one, and not with each of the things that must never be."""

from dataclasses import replace
from typing import Any

import pytest

from mesh.ports import Saved
from mesh.state.apply import apply
from protocols.codec import encode
from protocols.commands import Cancel, Command, Complete, Expire, Finish, TaskRange
from protocols.ids import LeaseId
from protocols.manifests import Outcome
from protocols.raft import Entry, EntryKind, HardState
from tests.chaos import histories
from tests.chaos.histories import Coordinated, History, Stream, check
from tests.state.state_builder import ALICE, BOB, Builder, complete

NAMES = ("t0", "t1", "t2", "t3")
TERM = 3


def story() -> Builder:
    """Four tests; Alice is lost with two of them, and comes back with one when Bob holds it."""
    made = Builder()
    run = made.running(TaskRange(0, 2), TaskRange(2, 2))
    first = made.grant(run.id, ALICE, TaskRange(0, 2))
    made.accept(complete(made.grant(run.id, BOB, TaskRange(2, 2)), 2, 3))
    made.accept(Expire(first, "lost"))
    second = made.grant(run.id, BOB, TaskRange(0, 1, losses=1), TaskRange(1, 1, losses=1))
    made.reject(complete(first, 0, outcome=Outcome.ERROR))
    made.accept(complete(second, 1, 0))
    made.accept(Finish(run.id, None, 0, 200.0))
    return made


def saved(log: list[tuple[int, Command]], commit: int | None = None, term: int = TERM) -> Saved:
    entries = tuple(Entry(index, term, EntryKind.NORMAL, encode(command)) for index, command in log)
    return Saved(HardState(term, None, len(log) if commit is None else commit), None, entries)


def stream(run: int, where: str = "a", tests: tuple[str, ...] = ("t2", "t3", "t0", "t1"), **changes: Any) -> Stream:
    attempts = {"t0": 2, "t1": 2}
    events = [
        {
            "event": "verdict", "test": test, "outcome": "passed", "worker": BOB, "attempt": attempts.get(test, 1),
            "duration": 0.001, **changes,
        }
        for test in tests
    ]  # fmt: skip
    return Stream(str(run), where, tuple(events), whole=len(tests) == 4)


@pytest.fixture
def good() -> History:
    made = story()
    run = next(iter(made.state.runs))
    report = [
        {"test": test, "outcome": "passed", "worker": BOB, "attempt": 1 + (test < "t2")} for test in NAMES
    ]  # fmt: skip
    return History(
        logs={"a": saved(made.log), "b": saved(made.log, commit=5), "c": saved(made.log[:6])},
        committed=len(made.log),
        streams=[stream(run), stream(run, "b", ("t2", "t3"))],
        coordinated=[Coordinated(2, "x", "log"), Coordinated(3, "y", "log"), Coordinated(3, "y", "status")],
        reports={str(run): {"tests": report}},
        expected=dict.fromkeys(NAMES, "passed"),
        killed_tests=False,
    )


def wrong(history: History) -> str:
    return "\n".join(check(history).wrong)


def test_a_good_history(good):
    found = check(good)
    assert found.wrong == []
    assert (found.runs, found.verdicts, found.refused, found.lost_attempts) == (1, 4, 1, 2)


def test_two_coordinators_of_a_term(good):
    said = [*good.coordinated, Coordinated(3, "x", "status of x")]
    assert "term 3 had 2 coordinators" in wrong(replace(good, coordinated=said))


def test_two_committed_entries_at_an_index(good):
    other = [*story().log]
    other[4] = (5, Cancel(next(iter(story().state.runs)), "no"))
    assert "both committed entry 5" in wrong(replace(good, logs={**good.logs, "d": saved(other, 6, term=2)}))


def test_entries_of_a_term_that_differ(good):
    """Not known to be committed by both, and of the same term: one leader made two."""
    other = [*story().log]
    other[7] = (8, Cancel(next(iter(story().state.runs)), "no"))
    assert "agree on an entry after 8, or on its term" in wrong(replace(good, logs={**good.logs, "d": saved(other, 3)}))


def test_entries_that_came_to_nothing_are_no_fault(good):
    log = story().log
    loose = replace(saved(log[:6]), entries=(*saved(log[:6]).entries, Entry(7, 2, EntryKind.NOOP, b"")))
    assert wrong(replace(good, logs={**good.logs, "c": loose})) == ""


def test_a_committed_entry_that_a_majority_does_not_hold(good):
    short = saved(story().log[:6])
    assert "in the logs of ['a'] only" in wrong(replace(good, logs={**good.logs, "b": short, "c": short}))


def test_a_run_that_does_not_end(good):
    log = story().log[:-1]
    logs = {"a": saved(log), "b": saved(log)}
    assert "was accepted and is reporting" in wrong(replace(good, logs=logs, committed=len(log)))


def test_a_run_that_ends_without_its_verdicts(good):
    made = story()
    run = made.submit(b"another")
    lease = made.grant(run.id, ALICE)
    for _ in range(3):
        made.accept(Expire(lease, "lost"))
        lease = made.grant(run.id, ALICE) if run.collect_losses < 3 else lease
    made.accept(Finish(run.id, None, 12, 300.0))
    assert "ended with code 12, 0 of 0 tests" in wrong(
        replace(good, logs={"a": saved(made.log)}, committed=len(made.log))
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tests": ("t3", "t2", "t0", "t1")}, "was told another story than others"),
        ({"tests": ("t2", "t3", "t0", "t2")}, "was streamed with two verdicts"),
        ({"outcome": "failed"}, "was told what the log does not hold"),
        ({"worker": ALICE}, "was told what the log does not hold"),
        ({"attempt": 7}, "its report differs"),
        ({"outcome": "failed"}, "is failed, and should be passed"),
        ({"tests": ("t2", "t3", "t0", "t9")}, "nobody wrote the test t9"),
    ],
)
def test_a_stream_that_tells_otherwise(good, changes, words):
    run = int(good.streams[0].run)
    streams = [stream(run, "z", **changes), stream(run, "a", ("t2",))]
    if "another story" in words:
        streams[1] = stream(run, "a")
    assert words in wrong(replace(good, streams=streams))


def test_a_test_with_two_outcomes_in_a_suite_that_only_runs_know(good):
    streams = [good.streams[0], stream(int(good.streams[0].run), "z", outcome="skipped")]
    assert "t0 is passed and skipped" in wrong(replace(good, streams=streams, expected={}))


def test_a_stream_that_ends_early(good):
    cut = replace(stream(int(good.streams[0].run), "z", ("t2", "t3")), whole=True)
    assert "z was told 2 of 4 verdicts" in wrong(replace(good, streams=[cut]))


def test_a_killed_test_may_be_an_error(good):
    """The log says so too."""
    made = Builder()
    run = made.running(TaskRange(0, 1))
    made.accept(complete(made.grant(run.id, BOB, TaskRange(0, 1)), 0, outcome=Outcome.ERROR))
    made.accept(Finish(run.id, None, 1, 200.0))
    history = replace(
        good, logs={"a": saved(made.log)}, committed=len(made.log), reports={},
        streams=[replace(stream(run.id, tests=("t2",), outcome="error"), whole=True)],
    )  # fmt: skip
    assert "t2 is error, and should be passed" in wrong(history)
    assert wrong(replace(history, killed_tests=True)) == ""


def test_a_report_that_lacks_a_test(good):
    (run, report), *_ = good.reports.items()
    reports = {run: {"tests": report["tests"][1:]}}
    assert "its report has 3 tests, the log 4" in wrong(replace(good, reports=reports))


def test_a_state_that_takes_a_late_attempt(good, monkeypatch):
    """`apply` that expires nothing: what it then records, the ledger does not."""

    def lenient(state: Any, index: int, command: Command) -> Any:
        if isinstance(command, Expire):
            state.applied = index
            return histories.Applied()
        return apply(state, index, command)

    monkeypatch.setattr(histories, "apply", lenient)
    assert "by the leases, tests [0] have other verdicts" in wrong(good)


def test_a_state_that_records_something_else(good, monkeypatch):
    def forgetful(state: Any, index: int, command: Command) -> Any:
        if isinstance(command, Complete):
            command = replace(command, outcomes=bytes(len(command.outcomes) * [Outcome.SKIPPED.code]))
        return apply(state, index, command)

    monkeypatch.setattr(histories, "apply", forgetful)
    assert "have other verdicts" in wrong(good)


def test_a_state_that_fails_to_apply(good, monkeypatch):
    def broken(state: Any, index: int, command: Command) -> Any:
        assert not isinstance(command, Finish), "broken"
        return apply(state, index, command)

    monkeypatch.setattr(histories, "apply", broken)
    assert "after entry 14 of a: broken" in wrong(good)


def test_a_grant_of_what_another_lease_holds():
    made = Builder()
    run = made.running(TaskRange(0, 4))
    made.grant(run.id, ALICE, TaskRange(0, 2))
    ledger = histories._Ledger()
    told = [
        what
        for index, command in made.log
        for what in ledger.apply(index, command, histories.Applied(run=run.id, lease=LeaseId(index)))
    ]
    assert told == []
    again = replace(made.log[-1][1], worker=BOB)
    assert "which another lease holds" in next(ledger.apply(made.index + 1, again, histories.Applied()))

"""Traces: the spans of a run, and their way to a receiver that reads OTLP."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import trio
import trio.testing

from mesh.cli.node_flags import parse
from mesh.monitoring import otlp
from mesh.monitoring.traces import GRACE_SECONDS, Tracing
from mesh.state.feed import Feed
from mesh.state.model import CoordinatorState, Run, Task
from mesh.views import spans
from mesh.views.spans import TESTS_TOLD_MAX, Moments, Ran, Span, chosen, run_spans, span_id, trace_id
from protocols.commands import Finish
from protocols.errors import UsageError
from protocols.ids import Cid, LeaseId, TestIndex
from protocols.manifests import Outcome, Record
from protocols.traceparent import Parent, parse_traceparent
from tests.api.fake_backend import FakeContent
from tests.monitoring.otlp_receiver import receiver
from tests.processes.lab import ROOT
from tests.state.state_builder import ALICE, BOB, Builder, complete

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
TRACEPARENT = f"00-{TRACE}-{SPAN}-01"

SUITE = "import pytest\n\n@pytest.mark.parametrize('n', range(4))\ndef test_it(n):\n    assert n != 2, 'two'\n"


@pytest.mark.parametrize(
    ("text", "parent"),
    [
        (TRACEPARENT, Parent(int(TRACE, 16), int(SPAN, 16), True)),
        (f" 00-{TRACE}-{SPAN}-00\n", Parent(int(TRACE, 16), int(SPAN, 16), False)),
        (f"01-{TRACE}-{SPAN}-03-more", Parent(int(TRACE, 16), int(SPAN, 16), True)),
        ("", None),
        (f"ff-{TRACE}-{SPAN}-01", None),
        (f"00-{'0' * 32}-{SPAN}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (TRACEPARENT.upper(), None),
        (TRACEPARENT[:-1], None),
    ],
)
def test_a_trace_context_is_one_or_none(text: str, parent: Parent | None) -> None:
    assert parse_traceparent(text) == parent


def finished(tests: int, bad: tuple[int, ...] = (), **changes: object) -> tuple[Run, list[LeaseId]]:
    """A run of two workers, half the tests each."""
    builder = Builder()
    run = builder.running(Task(0, tests), **changes)
    half = tests // 2
    leases = [builder.grant(run.id, ALICE, Task(0, half)), builder.grant(run.id, BOB, Task(half, tests - half))]
    for lease, part in zip(leases, (range(half), range(half, tests)), strict=True):
        good = [test for test in part if test not in bad]
        builder.accept(complete(lease, *good))
        if wrong := [test for test in part if test in bad]:
            builder.accept(complete(lease, *wrong, outcome=Outcome.FAILED))
    builder.accept(Finish(run.id, Cid("bafyreport"), 1 if bad else 0, 200.0))
    return run, leases


def ran(run: Run, leases: list[LeaseId], *tests: int) -> list[Ran]:
    made = []
    for test in tests:
        late = test >= run.tests // 2
        outcome = Outcome.of_code(run.outcomes[test])
        text = {"message": "two", "longrepr": "Traceback"} if outcome.bad else {}
        record = Record(
            f"t/test_a.py::C::test_it[{test}]", outcome, 0.5, 110.0 + test, BOB if late else ALICE, 0, 1, **text
        )
        made.append(Ran(TestIndex(test), leases[late], record))
    return made


def test_the_spans_of_a_run() -> None:
    run, leases = finished(4, bad=(2,), trace=TRACEPARENT)
    moments = Moments(102.0, 104.0, {leases[0]: 105.0})
    told = {one.key: one for one in run_spans(run, ran(run, leases, 0, 1, 2, 3), moments, {ALICE: "lab-1"})}
    first, second = f"lease {leases[0]}", f"lease {leases[1]}"
    assert [(one.key, one.parent, one.start, one.end) for one in told.values()] == [
        ("run", "", 100.0, 200.0),
        ("queue", "run", 100.0, 102.0),
        ("collection", "run", 102.0, 104.0),
        (first, "run", 105.0, 111.5),
        (second, "run", 112.0, 113.5),
        (f"test 0 1 {leases[0]}", first, 110.0, 110.5),
        (f"test 1 1 {leases[0]}", first, 111.0, 111.5),
        (f"test 2 1 {leases[1]}", second, 112.0, 112.5),
        (f"test 3 1 {leases[1]}", second, 113.0, 113.5),
        ("report", "run", 113.5, 200.0),
    ]
    root, bad = told["run"], told[f"test 2 1 {leases[1]}"]
    assert root.bad
    assert (root.attributes["test.suite.run.status"], root.attributes["mesh.tests.failed"]) == ("failure", 1)
    assert told[first].name == "lease on lab-1"
    assert (bad.bad, bad.message, bad.traceback) == (True, "two", "Traceback")
    assert bad.attributes.items() >= {
        "test.suite.name": "t/test_a.py", "test.case.name": "C::test_it[2]", "test.case.result.status": "fail",
        "code.file.path": "t/test_a.py", "code.function.name": "test_it",
    }.items()  # fmt: skip
    assert (trace_id("m", run), span_id("m", run, "")) == (int(TRACE, 16), int(SPAN, 16))
    assert len({span_id("m", run, key) for key in told}) == len(told)


def test_without_records_and_a_context_there_is_still_a_trace() -> None:
    run, _ = finished(2)
    assert [one.key for one in run_spans(run, [], Moments(), {})] == ["run"]
    assert trace_id("m", run) == trace_id("m", run) != trace_id("n", run)
    assert span_id("m", run, "") == 0


def test_of_a_large_run_the_bad_and_the_first_are_told() -> None:
    last = TESTS_TOLD_MAX + 499
    run, leases = finished(TESTS_TOLD_MAX + 500, bad=(last,))
    assert chosen(run) == {*range(TESTS_TOLD_MAX), last}
    told = run_spans(run, ran(run, leases, 0, TESTS_TOLD_MAX, last), Moments(), {})
    assert sum(one.key.startswith("test ") for one in told) == 2
    assert (told[0].attributes["mesh.tests"], told[0].attributes["mesh.tests.told"]) == (run.tests, 2)


def test_the_flag_the_environment_and_a_missing_sdk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)

    def asked(*flags: str) -> str | None:
        return parse(["--home", str(tmp_path), *flags])[0].otlp

    assert asked() is None
    assert asked("--otlp", "http://collector:4318") == "http://collector:4318"
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://other:4318")
    assert asked() == ""
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    assert asked() is None
    with pytest.raises(UsageError, match="'collector:4318' is no address of a collector"):
        asked("--otlp", "collector:4318")
    monkeypatch.setattr(otlp, "installed", lambda: False)
    with pytest.raises(UsageError, match=r"pip install 'mesh-test-runner\[otel\]'"):
        asked("--otlp", "http://collector:4318")


@pytest.mark.processes
def test_a_receiver_gets_the_trace_of_a_run(tmp_path: Path) -> None:
    """Of a node inside a command, which waits for it before it ends."""
    (tmp_path / "suite").mkdir()
    (tmp_path / "suite" / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "suite" / "test_n.py").write_text(SUITE)
    with receiver() as got:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("OTEL_")},
            "PYTHONPATH": str(ROOT),
            "XDG_CONFIG_HOME": str(tmp_path / "config"),
            "MESH_HOME": str(tmp_path / "home"),
            "OTEL_EXPORTER_OTLP_ENDPOINT": got.url,
            "TRACEPARENT": TRACEPARENT,
        }
        before = time.time()
        command = [sys.executable, "-m", "mesh", "run", str(tmp_path / "suite"), "-n", "2"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)
        assert done.returncode == 1, done.stdout + done.stderr
        assert set(got.paths) == {"/v1/traces"}
        by_name = {one["name"]: one for one in got.spans}
        tests = [one for one in got.spans if "test.case.name" in one["attributes"]]
        root = by_name["run suite"]
        assert {one["trace"] for one in got.spans} == {TRACE}
        assert root["parent"] == SPAN
        assert root["attributes"]["test.suite.run.status"] == "failure"
        assert len(tests) == 4
        assert {one["id"] for one in got.spans} >= {one["parent"] for one in got.spans if one is not root}
        bad = by_name["test_n.py::test_it[2]"]
        assert bad["error"]
        assert "assert 2 != 2" in bad["events"][0]["exception.stacktrace"]
        assert before <= root["start"] <= bad["start"] <= bad["end"] <= root["end"] <= time.time()
        assert {"queue", "collection", "report"} <= by_name.keys()
        assert got.resources[0].items() >= {"service.name": "mesh"}.items()
        assert got.resources[0].keys() >= {"host.name", "service.instance.id", "service.version"}
    assert spans.TESTS_TOLD_MAX < spans.BAD_TOLD_MAX


class Slow:
    """A collector that never answers, as far as a node can wait."""

    def __init__(self) -> None:
        self.sending = threading.Event()
        self.over = threading.Event()

    def send(self, mesh: str, run: Run, told: Sequence[Span]) -> bool:
        self.sending.set()
        return self.over.wait(20)

    def stop(self) -> None:
        self.over.set()


class Log:
    """What a `Tracing` asks of a group."""

    mesh = "lab"
    is_leader = True
    version = 0

    def __init__(self, state: CoordinatorState) -> None:
        self.state = state
        self.feed = Feed()
        self.changed = trio.Event()

    async def wait_changed(self, since: int) -> int:
        await self.changed.wait()
        self.changed = trio.Event()
        return since


async def test_a_collector_that_hangs_holds_no_node(autojump_clock: trio.testing.MockClock) -> None:
    builder = Builder()
    run = builder.running(Task(0, 1))
    group, slow = Log(builder.state), Slow()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(Tracing(FakeContent({}), lambda: slow).follow, group)
        await trio.testing.wait_all_tasks_blocked()
        builder.accept(complete(builder.grant(run.id, ALICE, Task(0, 1)), 0))
        builder.accept(Finish(run.id, None, 0, 200.0))
        group.changed.set()
        autojump_clock.autojump_threshold = float("inf")
        await trio.to_thread.run_sync(slow.sending.wait)
        autojump_clock.autojump_threshold = 0
        nursery.cancel_scope.cancel()
    assert trio.current_time() == pytest.approx(GRACE_SECONDS)
    assert slow.over.is_set()

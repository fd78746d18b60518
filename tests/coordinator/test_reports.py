"""A run's report, from the log's completions and their chunks."""

import dataclasses
import json
import xml.etree.ElementTree as ElementTree

import pytest
import trio

from mesh.coordinator.history import HINT_SECONDS, History
from mesh.coordinator.reports import FOLDER_CHARACTERS_MAX, ReportBuilder, artifact_folder
from mesh.manifests import Manifests
from mesh.state.apply import apply
from mesh.state.model import CoordinatorState
from protocols.codec import encode
from protocols.commands import (
    Cancel,
    Collected,
    CollectFailed,
    Complete,
    Grant,
    RaiseFormat,
    Register,
    Submit,
    TaskRange,
)
from protocols.ids import Cid, LeaseId, PeerId, RunId, TestIndex
from protocols.manifests import Chunk, CollectedTest, EnvironmentInfo, Manifest, Outcome, Record, RunSpec
from tests.fakes.content import FakeContent, Shelves
from tests.fakes.network import FakeNetwork, Lan

HERE, WORKER = PeerId("coordinator"), PeerId("worker")
SPEC = RunSpec(Cid("bafybundle"), "suite", "suite", PeerId("client"))


class Kept(FakeContent):
    """Remembers what went into directories."""

    def __init__(self) -> None:
        self.shelves = Shelves(Lan())
        super().__init__(self.shelves, HERE)
        for peer in (HERE, WORKER):
            self.shelves.lan.nodes[peer] = FakeNetwork(peer, self.shelves.lan, None)
        self.network = self.shelves.lan.nodes[HERE]
        self.files: dict[str, bytes | Cid] = {}

    async def add_files(self, files):
        given = {n: c.read_bytes() if hasattr(c, "read_bytes") else c for n, c in files.items()}
        self.files = given | self.files  # the seal comes last, beside what is there by then
        return await super().add_files(files)


async def running(
    content: Kept, tests: list[str], retries: int = 0, environment: EnvironmentInfo | None = None
) -> CoordinatorState:
    """Run 2 of worker 1: collected, all tests in lease 5."""
    manifest = Manifest(SPEC.bundle, tuple(CollectedTest(test, "m") for test in tests), environment=environment)
    cid = await content.put(encode(manifest))
    state = CoordinatorState()
    apply(state, 1, Register(WORKER, "w", 1, 2))
    apply(state, 2, Submit(b"n", dataclasses.replace(SPEC, retries=retries), 100.0))
    apply(state, 3, Grant(RunId(2), WORKER, 1, ()))
    apply(state, 4, Collected(LeaseId(3), cid, len(tests), (TaskRange(0, len(tests)),)))
    apply(state, 5, Grant(RunId(2), WORKER, 1, (TaskRange(0, len(tests)),)))
    return state


async def complete(
    content: Kept, state: CoordinatorState, index: int, records: dict[int, Record], keep=True, lease=5
) -> None:
    data = [encode(record) for record in records.values()]
    chunk = encode(Chunk(tuple(TestIndex(i) for i in records), tuple(data)))
    cid = await content.put(chunk) if keep else Cid("bafylost")
    outcomes = bytes(record.outcome.code for record in records.values())
    command = Complete(LeaseId(lease), cid, tuple(TestIndex(i) for i in records), outcomes, (1000,) * len(records))
    apply(state, index, command)


def record(test: str, outcome: Outcome = Outcome.PASSED, attempt: int = 1, **fields: object) -> Record:
    return Record(test, outcome, 0.001, 100.0, WORKER, 0, attempt, **fields)


async def test_every_test_stands_once_in_report_and_junit(tmp_path):
    content = Kept()
    tests = [f"t.py::test_{i}" for i in range(1200)]
    state = await running(content, tests)
    await complete(content, state, 6, {i: record(tests[i]) for i in range(700)})
    left = await content.put(b"screenshot")
    bad = record(tests[700], Outcome.FAILED, message="boom", longrepr="E boom", artifacts=left)
    await complete(content, state, 7, {700: bad} | {i: record(tests[i]) for i in range(701, 1200)})
    finish = await ReportBuilder(content.network, content, History(Manifests(content)), tmp_path / "s").finish(
        state.runs[RunId(2)], 103.0, "host"
    )
    assert (finish.exit_code, finish.at) == (1, 103.0)
    document = json.loads(content.files["report.json"])
    assert [entry["test"] for entry in document["tests"]] == sorted(tests)
    assert document["counts"] == {
        "passed": 1199, "failed": 1, "error": 0, "skipped": 0, "xfailed": 0, "xpassed": 0
    }  # fmt: skip
    cases = ElementTree.fromstring(content.files["junit.xml"]).findall(".//testcase")
    assert len(cases) == 1200
    assert [case.get("name") for case in cases if case.find("failure") is not None] == ["test_700"]
    lines = b"".join(content.files[name] for name in sorted(content.files) if name.startswith("records/")).splitlines()
    assert [json.loads(line)["index"] for line in lines] == list(range(1200))
    assert content.files["artifacts/t.py::test_700"] == left
    assert not list((tmp_path / "s").iterdir())


async def test_warnings_are_told_once_and_flaky_tests_are_marked(tmp_path):
    content = Kept()
    tests = ["at_once", "by_plugin", "by_mesh", "never"]
    state = await running(content, tests, retries=1)
    old = "t.py:1: DeprecationWarning: old"
    await complete(content, state, 6, {2: record("by_mesh", Outcome.FAILED), 3: record("never", Outcome.FAILED)})
    apply(state, 7, Grant(RunId(2), WORKER, 1, (TaskRange(2, 1), TaskRange(3, 1))))
    await complete(content, state, 8, {0: record("at_once", warnings=(old,) * 3), 1: record("by_plugin", reruns=1)})
    again = {2: record("by_mesh", warnings=(old,)), 3: record("never", Outcome.FAILED, warnings=("other",))}
    await complete(content, state, 9, again, lease=7)
    await ReportBuilder(content.network, content, History(Manifests(content)), tmp_path / "s").finish(
        state.runs[RunId(2)], 103.0, "host"
    )
    entries = json.loads(content.files["report.json"])["tests"]
    assert {entry["test"] for entry in entries if entry["flaky"]} == {"by_plugin", "by_mesh"}
    truths = {entry["test"]: entry.get("truth") for entry in entries}
    assert truths == {"at_once": None, "by_plugin": "flaky", "by_mesh": "flaky", "never": "failed"}
    assert json.loads(content.files["warnings.json"]) == {
        "total": 5,
        "warnings": [
            {"text": old, "count": 4, "tests": ["at_once", "by_mesh"]},
            {"text": "other", "count": 1, "tests": ["never"]},
        ],
    }


async def test_what_is_bad_on_one_host_alone_names_it_and_keeps_what_was_bad(tmp_path):
    content = Kept()
    other, names = PeerId("other"), {WORKER: "rig", PeerId("other"): "laptop"}
    content.shelves.lan.nodes[other] = FakeNetwork(other, content.shelves.lan, None)
    state = await running(content, ["fine", "host", "flaky", "never"], retries=2)
    apply(state, 6, RaiseFormat(3))
    apply(state, 7, Register(other, "laptop", 1, 2))
    bad = [record(test, Outcome.FAILED, longrepr="E here", attempt=1) for test in ("host", "flaky", "never")]
    await complete(content, state, 8, {0: record("fine"), **dict(enumerate(bad, 1))})
    apply(state, 9, Grant(RunId(2), other, 1, tuple(TaskRange(test, 1) for test in (1, 2, 3))))
    bad = [record(test, Outcome.ERROR, longrepr="E there", attempt=2) for test in ("flaky", "never")]
    await complete(content, state, 10, {1: record("host"), **dict(enumerate(bad, 2))}, lease=9)
    apply(state, 11, Grant(RunId(2), WORKER, 1, (TaskRange(2, 1), TaskRange(3, 1))))
    last = {2: record("flaky", attempt=3), 3: record("never", Outcome.FAILED, attempt=3)}
    await complete(content, state, 12, last, lease=11)
    finish = await ReportBuilder(content.network, content, History(Manifests(content)), tmp_path / "s").finish(
        state.runs[RunId(2)], 103.0, "host", names
    )
    assert finish.exit_code == 1
    entries = {entry["test"]: entry for entry in json.loads(content.files["report.json"])["tests"]}
    told = {
        test: (
            entry["truth"],
            entry["flaky"],
            entry["blamed_hosts"],
            [(one["attempt"], one["name"], one["outcome"]) for one in entry["attempts"]],
        )
        for test, entry in entries.items()
        if "truth" in entry
    }
    assert told == {
        "host": ("host", True, ["rig"], [(1, "rig", "failed"), (2, "laptop", "passed")]),
        "flaky": ("flaky", True, [], [(1, "rig", "failed"), (2, "laptop", "error"), (3, "rig", "passed")]),
        "never": ("failed", False, [], [(1, "rig", "failed"), (2, "laptop", "error"), (3, "rig", "failed")]),
    }
    tries = [json.loads(line) for line in content.files["tries.jsonl"].splitlines()]
    assert [(one["test"], one["longrepr"]) for one in tries] == [
        ("host", "E here"), ("flaky", "E here"), ("flaky", "E there"), ("never", "E here"), ("never", "E there")
    ]  # fmt: skip
    assert [one["record"] for one in entries["flaky"]["attempts"]][:2] == [tries[1]["record"], tries[2]["record"]]
    retried = json.loads(content.files["retried.json"])
    assert retried["counts"] == {"failed": 1, "flaky": 1, "host": 1}
    assert [one["test"] for one in retried["tests"]] == ["host", "flaky", "never"]
    cases = ElementTree.fromstring(content.files["junit.xml"]).findall(".//testcase")
    properties = {
        case.get("name"): [(one.get("name"), one.get("value")) for one in case.iter("property")] for case in cases
    }
    assert properties == {
        "fine": [("mesh.host", "rig"), ("mesh.attempt", "1")],
        "host": [("mesh.host", "laptop"), ("mesh.attempt", "2"), ("mesh.truth", "host"), ("mesh.blamed_host", "rig")],
        "flaky": [("mesh.host", "rig"), ("mesh.attempt", "3"), ("mesh.truth", "flaky")],
        "never": [("mesh.host", "rig"), ("mesh.attempt", "3"), ("mesh.truth", "failed")],
    }


async def test_a_verdict_outlives_its_record(tmp_path, autojump_clock):
    content = Kept()
    state = await running(content, ["a", "b"])
    await complete(content, state, 6, {0: record("a")})
    await complete(content, state, 7, {1: record("b", Outcome.FAILED)}, keep=False)
    finish = await ReportBuilder(content.network, content, History(Manifests(content)), tmp_path).finish(
        state.runs[RunId(2)], 103.0, "host"
    )
    assert finish.exit_code == 1
    entries = json.loads(content.files["report.json"])["tests"]
    assert [(e["test"], e["outcome"], e["record"] is None) for e in entries] == [
        ("a", "passed", False),
        ("b", "failed", True),
    ]
    assert b"was lost with the nodes" in content.files["junit.xml"]


async def test_a_later_coordinator_fetches_what_the_first_one_was_given(tmp_path, autojump_clock):
    """Artifacts and the list of distributions lie on the worker and on the coordinator of that time."""
    content = Kept()
    worker = content.shelves.of(WORKER)
    listed = await worker.put(b"pytest 9.2.0")
    environment = EnvironmentInfo("ambient", "digest", "CPython", "3.11", "linux-x86_64", listed)
    state = await running(content, ["a", "b"], environment=environment)
    left, lost = await worker.put(b"screenshot"), Cid("bafylost")
    await complete(content, state, 6, {0: record("a", artifacts=left), 1: record("b", artifacts=lost)})
    finish = await ReportBuilder(content.network, content, History(Manifests(content)), tmp_path).finish(
        state.runs[RunId(2)], 103.0, "host"
    )
    assert finish.report is not None
    assert content.files["distributions.txt"] == listed
    assert {name: cid for name, cid in content.files.items() if name.startswith("artifacts/")} == {"artifacts/a": left}
    assert await content.has(left)


async def test_a_run_without_tests_keeps_what_pytest_said(tmp_path):
    content = Kept()
    said = await content.put(b"ERROR collecting t.py")
    state = CoordinatorState()
    apply(state, 1, Register(WORKER, "w", 1, 2))
    apply(state, 2, Submit(b"n", SPEC, 100.0))
    apply(state, 3, Grant(RunId(2), WORKER, 1, ()))
    apply(state, 4, CollectFailed(LeaseId(3), 2, "1 error in 0.1s", said))
    finish = await ReportBuilder(content.network, content, History(Manifests(content)), tmp_path).finish(
        state.runs[RunId(2)], 103.0, "host"
    )
    assert (finish.exit_code, finish.reason) == (2, "1 error in 0.1s")
    assert content.files["collection.txt"] == b"ERROR collecting t.py"


async def test_a_cancelled_run_reports_the_verdicts_it_has(tmp_path):
    content = Kept()
    state = await running(content, ["a", "b"])
    await complete(content, state, 6, {0: record("a")})
    apply(state, 7, Cancel(RunId(2), "cancelled by a user"))
    finish = await ReportBuilder(content.network, content, History(Manifests(content)), tmp_path).finish(
        state.runs[RunId(2)], 103.0, "host"
    )
    assert finish.exit_code == 2
    assert [entry["test"] for entry in json.loads(content.files["report.json"])["tests"]] == ["a"]


async def test_a_run_whose_tests_are_on_no_node_any_more_ends_without_a_report(tmp_path, autojump_clock):
    """A mesh that was founded anew, and has no content: the run must end, and later ones must not wait for it."""
    content = Kept()
    state = await running(content, ["a"])
    await complete(content, state, 6, {0: record("a")})
    bare = Kept()
    history = History(Manifests(bare))
    finish = await ReportBuilder(content.network, bare, history, tmp_path).finish(state.runs[RunId(2)], 103.0, "host")
    assert (finish.report, finish.exit_code) == (None, 12)
    assert "so that no report could be built" in finish.reason
    apply(state, 7, finish)
    assert (state.runs[RunId(2)].state, state.runs[RunId(2)].done) == ("error", 1)
    start = trio.current_time()
    await history.estimates(state, SPEC.project, Manifest(SPEC.bundle, (CollectedTest("b", "m"),)))
    assert trio.current_time() - start <= HINT_SECONDS


async def test_a_cancelled_run_without_its_tests_keeps_its_reason(tmp_path, autojump_clock):
    content = Kept()
    state = await running(content, ["a"])
    apply(state, 6, Cancel(RunId(2), "cancelled by a user"))
    bare = Kept()
    finish = await ReportBuilder(content.network, bare, History(Manifests(bare)), tmp_path).finish(
        state.runs[RunId(2)], 103.0, "host"
    )
    assert (finish.report, finish.exit_code, finish.reason) == (None, 2, "cancelled by a user")


@pytest.mark.parametrize(
    ("test", "folder"),
    [
        ("tests/a.py::test_x", "tests/a.py::test_x"),
        ("a.py::test_x[../../etc]", "a.py::test_x[..%2F..%2Fetc]"),
        ("../a.py::test", "%2E%2E/a.py::test"),
        ("a.py::t[\x00\n]", "a.py::t[%00%0A]"),
    ],
)
def test_an_artifact_folder_stays_below_artifacts(test, folder):
    assert artifact_folder(test) == folder


def test_long_names_stay_apart():
    one, other = (artifact_folder("a.py::test[" + "x" * 1000 + end) for end in ("1]", "2]"))
    assert one != other
    assert len(one) <= FOLDER_CHARACTERS_MAX + 13

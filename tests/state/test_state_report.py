"""Reports: documents that other tools read."""

import dataclasses
import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from state_builder import ALICE, BOB, CHUNK, MANIFEST, Builder, complete

from mesh.state import junit, report
from mesh.state.model import Run, RunPhase, Task
from mesh.state.retention import summary
from protocols.commands import Abandon, Cancel, CollectFailed, Expire, Finish
from protocols.ids import Cid, PeerId, TestIndex
from protocols.manifests import CollectedTest, EnvironmentInfo, Manifest, Outcome, Phase, Record


def manifest(*tests: str) -> Manifest:
    return Manifest(Cid("bafybundle"), tuple(CollectedTest(test, test.partition("::")[0]) for test in tests))


def mixed() -> Run:
    builder = Builder()
    run = builder.running(Task(0, 4))
    builder.accept(Expire(builder.grant(run.id, ALICE, Task(0, 1)), "gone"))
    builder.accept(complete(builder.grant(run.id, BOB, Task(0, 1, 0, 1)), 0, outcome=Outcome.FAILED, micros=1_500_000))
    builder.accept(complete(builder.grant(run.id, ALICE, Task(1, 1)), 1))
    builder.accept(complete(builder.grant(run.id, ALICE, Task(2, 1)), 2, outcome=Outcome.SKIPPED))
    builder.accept(Abandon(run.id, TestIndex(3), CHUNK))
    assert run.phase is RunPhase.REPORTING
    return run


FIELDS = ("test", "outcome", "duration", "worker", "attempt", "record", "flaky")


def test_report_json() -> None:
    run = mixed()
    records = [Cid(f"bafk{i}") for i in range(4)]
    names = {PeerId("bob"): "rig", PeerId("carol"): "elsewhere"}
    tests = manifest("b.py::x", "b.py::a", "a.py::z", "c.py::q")
    pieces = report.report_json(run, tests, records.__getitem__, 103.25, names=names)
    document = json.loads(b"".join(pieces))
    assert document == {
        "run": str(run.id), "name": "suite", "project": "suite", "command": None, "submitted_at": run.submitted_at,
        "state": "failed", "exit_code": 1, "reason": "",
        "counts": {"passed": 1, "failed": 1, "error": 1, "skipped": 1, "xfailed": 0, "xpassed": 0},
        "teardowns": 0, "wall_seconds": 3.25, "bundle": "bafybundle", "manifest": MANIFEST, "workers": ["alice", "bob"],
        "names": {"bob": "rig"}, "environment": None,
        "tests": [
            dict(zip(FIELDS, ("a.py::z", "skipped", 0.001, "alice", 1, "bafk2", False), strict=True)),
            dict(zip(FIELDS, ("b.py::a", "passed", 0.001, "alice", 1, "bafk1", False), strict=True)),
            dict(zip(FIELDS, ("b.py::x", "failed", 1.5, "bob", 2, "bafk0", False), strict=True)),
            dict(zip(FIELDS, ("c.py::q", "error", 0.0, None, 1, "bafk3", False), strict=True)),
        ],
    }  # fmt: skip


def test_report_json_tells_the_environment() -> None:
    info = EnvironmentInfo("uv", "d1", "cpython", "3.12.1", "linux-x86_64", Cid("bafkl"))
    made = dataclasses.replace(manifest("b.py::x", "b.py::a", "a.py::z", "c.py::q"), environment=info)
    document = json.loads(b"".join(report.report_json(mixed(), made, lambda test: None, 103.25)))
    assert document["environment"] == {
        "kind": "uv", "digest": "d1", "implementation": "cpython", "python": "3.12.1", "platform": "linux-x86_64",
        "distributions": "bafkl",
    }  # fmt: skip


@pytest.mark.parametrize("tests", [0, 1, 999, 1000, 1001, 2500])
def test_report_json_in_pieces(tests: int) -> None:
    builder = Builder()
    run = builder.running(*([Task(0, tests)] if tests else []))
    if tests:
        builder.accept(complete(builder.grant(run.id, ALICE, Task(0, tests)), *range(tests)))
    names = [f"m.py::t{i}" for i in range(tests)]
    pieces = list(report.report_json(run, manifest(*names), lambda test: CHUNK, 0.0))
    assert max(piece.count(b'"test"') for piece in pieces) <= report.TESTS_PER_PIECE
    document = json.loads(b"".join(pieces))
    assert [entry["test"] for entry in document["tests"]] == sorted(names)
    assert document["wall_seconds"] == 0.0
    assert document["exit_code"] == (0 if tests else 5)


def test_a_cancelled_run_lists_what_it_has() -> None:
    builder = Builder()
    run = builder.running(Task(0, 2))
    builder.accept(complete(builder.grant(run.id, ALICE, Task(0, 1)), 0))
    builder.accept(Cancel(run.id, "enough"))
    document = json.loads(b"".join(report.report_json(run, manifest("a::b", "a::c"), [CHUNK, None].__getitem__, 100.0)))
    assert (document["state"], document["exit_code"], document["reason"]) == ("cancelled", 2, "enough")
    assert [entry["test"] for entry in document["tests"]] == ["a::b"]


def test_exit_codes() -> None:
    builder = Builder()
    run = builder.running(Task(0, 2))
    builder.accept(complete(builder.grant(run.id, ALICE, Task(0, 2)), 0, 1, outcome=Outcome.XPASSED))
    assert report.exit_code(run) == 0
    failed = builder.submit(b"2")
    builder.accept(CollectFailed(builder.grant(failed.id, ALICE), 4, "usage"))
    assert report.exit_code(failed) == 4
    assert report.exit_code(builder.running(nonce=b"3")) == 5
    assert report.exit_code(mixed()) == 1


def test_finished_event_is_the_same_from_a_summary() -> None:
    builder = Builder()
    run = builder.running(Task(0, 1))
    builder.accept(complete(builder.grant(run.id, ALICE, Task(0, 1)), 0))
    builder.accept(Finish(run.id, CHUNK, 0, 104.5))
    event = report.finished_event(run)
    assert event == {
        "event": "finished", "run": str(run.id), "state": "passed", "exit_code": 0,
        "counts": {"passed": 1, "failed": 0, "error": 0, "skipped": 0, "xfailed": 0, "xpassed": 0},
        "tests": 1, "reused": 0, "wall_seconds": 4.5, "report": CHUNK, "bundle": "bafybundle", "manifest": MANIFEST,
        "reason": "",
    }  # fmt: skip
    assert report.finished_event(summary(run)) == event


def record(test: str = "a.py::t", outcome: Outcome = Outcome.PASSED, **changes: object) -> Record:
    return Record(test, outcome, 0.5, 100.0, PeerId("alice"), 0, 1, **changes)  # type: ignore[arg-type]


def document(*records: Record) -> ElementTree.Element:
    counts = [sum(r.outcome.code == code for r in records) for code in range(6)]
    return ElementTree.fromstring(
        junit.head(counts, 1.25, 0.0, 'host "1"') + b"".join(map(junit.case, records)) + junit.tail()
    )


def test_junit_suite() -> None:
    suite = document(*(record(outcome=outcome) for outcome in Outcome))[0]
    assert suite.attrib == {
        "name": "pytest", "errors": "1", "failures": "1", "skipped": "2", "tests": "6", "time": "1.250",
        "timestamp": "1970-01-01T00:00:00+00:00", "hostname": 'host "1"',
    }  # fmt: skip
    assert [[child.tag for child in case] for case in suite] == [
        [],
        ["failure"],
        ["error"],
        ["skipped"],
        ["skipped"],
        [],
    ]


def test_junit_case() -> None:
    failed = record(
        outcome=Outcome.FAILED,
        message='assert "<a>" == 1\n',
        longrepr="E  a & b\x00\x1b[31m",
        stdout="out]]>",
        stderr="err",
        log="a warning",
        properties=(("k", "v\n1"),),
    )
    case = document(failed)[0][0]
    assert case.attrib == {"classname": "a", "name": "t", "time": "0.500"}
    assert [child.tag for child in case] == ["properties", "failure", "system-out", "system-err"]
    assert case[0][0].attrib == {"name": "k", "value": "v\n1"}
    assert (case[1].get("message"), case[1].text) == ('assert "<a>" == 1\n', "E  a & b#x00#x1B[31m")
    assert case[2].text == "out]]>\n--- Captured Log ---\na warning"
    assert case[3].text == "err"


def test_junit_messages() -> None:
    phases = (Phase("setup", "failed", 0.1),)
    error, crash, skip, xfail = document(
        record(outcome=Outcome.ERROR, message="boom", phases=phases),
        record(outcome=Outcome.ERROR, message="killed by SIGABRT"),
        record(outcome=Outcome.SKIPPED, message="no gpu", longrepr="a.py:3: no gpu"),
        record(outcome=Outcome.XFAILED, message="known", longrepr="a traceback"),
    )[0]
    assert error[0].get("message") == 'failed on setup with "boom"'
    assert crash[0].get("message") == "killed by SIGABRT"
    assert (skip[0].attrib, skip[0].text) == ({"type": "pytest.skip", "message": "no gpu"}, "a.py:3: no gpu")
    assert (xfail[0].attrib, xfail[0].text) == ({"type": "pytest.xfail", "message": "known"}, None)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]) | st.characters(max_codepoint=0x20), max_size=30)


@given(TEXTS, TEXTS, TEXTS)
def test_junit_holds_any_text(name: str, said: str, text: str) -> None:
    case = document(record(f"a.py::t[{name}]", Outcome.FAILED, message=said, longrepr=text))[0][0]
    legal = {c for c in name + said + text if c in "\t\n\r" or " " <= c <= "~" or ord(c) >= 0xA0}
    kept = (case.get("name") or "") + (case[0].get("message") or "") + (case[0].text or "")
    assert {c for c in legal if c not in "\ufffe\uffff"} <= set(kept)


SUITE = """
import pytest
class TestC:
    @pytest.mark.parametrize("x", ["a::b", "c/d.py", "[", "e]f"])
    def test_m(self, x): pass
def test_plain(): pass
"""


def test_junit_names_are_pytests_own(tmp_path: Path) -> None:
    """Against the real thing: pytest's junit.xml of the same node IDs."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "test_x.py").write_text(SUITE)
    (tmp_path / "sub" / "test_whole.py").write_text("import pytest\npytest.importorskip('no_such_module')\n")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        ".",
        "--junitxml",
        "j.xml",
        "-rA",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=True)
    ids = [line.removeprefix("PASSED ") for line in done.stdout.splitlines() if line.startswith("PASSED ")]
    theirs = {
        (case.get("classname"), case.get("name")) for case in ElementTree.parse(tmp_path / "j.xml").iter("testcase")
    }
    assert len(ids) == 5
    ids.append("sub/test_whole.py")
    assert {junit.names(test) for test in ids} == theirs


def test_a_shell_command_is_all_name() -> None:
    case = ElementTree.fromstring(junit.case(record("sub/check.py [fast]::x"), shell=True))
    assert (case.get("classname"), case.get("name")) == ("", "sub/check.py [fast]::x")


def test_record_line() -> None:
    line = report.record_line(TestIndex(3), record(stdout="é", signal=6), Cid("bafkr"))
    assert line.endswith(b"\n")
    document = json.loads(line)
    assert (document["index"], document["stdout"], document["signal"], document["record"]) == (3, "é", 6, "bafkr")

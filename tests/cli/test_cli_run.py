"""`mesh run` and `mesh watch` against a served fake node: what is submitted, what is shown, how it ends."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from mesh.cli import client as client_module
from mesh.cli.run_screen import RunPicture
from mesh.cli.tally import Tally
from mesh.views.run_watching import RunWatching, Underway
from tests.api.fake_backend import PEER, RECORD, TREE, verdict
from tests.cli.served_node import ROOT, Ended, Node, command

Mesh = Callable[..., Ended]


def submitted(node: Node):
    (spec,) = node.backend.submitted.values()
    return spec


def test_the_bundle_and_the_spec(node: Node, mesh: Mesh, suite: Path) -> None:
    flags = [
        "--priority",
        "70",
        "--test-type",
        "model",
        "--worker-count",
        "2",
        "--retries",
        "1",
        "--hedge",
        "--timeout",
        "9",
        "--env",
        "ambient",
        "-n",
        "2",
    ]
    ended = mesh("run", *flags, "--requires", "gpu.memory >= 8GiB", "--prefers", "ssd", "--", "-k", "a or b", "-x")
    assert ended.code == 1
    assert node.content.added == [(suite, ["pyproject.toml", "tests/test_a.py"])]
    spec = submitted(node)
    assert (spec.bundle, spec.name, spec.project, spec.submitter) == (TREE, "project", "project", PEER)
    assert spec.arguments == ("-k", "a or b", "-x")
    assert (spec.priority, spec.test_type, spec.worker_count, spec.retries) == (70, "model", 2, 1)
    assert (spec.timeout, spec.environment, spec.hedge) == (9.0, "ambient", True)
    assert (spec.requires, spec.prefers, spec.command) == ("gpu.memory >= 8GiB", "ssd", None)


@pytest.mark.parametrize(
    ("where", "words", "arguments"),
    [
        (".", [], ()),
        (".", ["."], ()),
        (".", ["tests"], ("tests",)),
        (".", ["tests/test_a.py::test_good"], ("tests/test_a.py::test_good",)),
        (".", ["tests", "--", "-x"], ("tests", "-x")),
        (".", ["--", "--pyargs", "networkx"], ("--pyargs", "networkx")),
        ("tests", [], ("tests",)),
        ("tests", ["test_a.py"], ("tests/test_a.py",)),
        ("tests", ["--", "test_a.py::test_good"], ("tests/test_a.py::test_good",)),
        ("tests", ["--", "-k", "test_a.py"], ("tests", "-k", "test_a.py")),
        ("tests", ["..", "--", "--ignore=test_a.py"], ("--ignore=tests/test_a.py",)),
        ("tests", ["--", "--pyargs", "networkx"], ("--pyargs", "networkx")),
        (".", ["--", "{root}/tests/test_a.py::test_good", "-c", "{root}/pyproject.toml"],
         ("tests/test_a.py::test_good", "-c", "pyproject.toml")),
        (".", ["--", "--basetemp=/somewhere", "--basetemp", "/somewhere"],
         ("--basetemp=/somewhere", "--basetemp", "/somewhere")),
    ],
)  # fmt: skip
def test_paths_are_relative_to_the_root(
    node: Node,
    mesh: Mesh,
    suite: Path,
    monkeypatch: pytest.MonkeyPatch,
    where: str,
    words: list[str],
    arguments: tuple[str, ...],
) -> None:
    monkeypatch.chdir(suite / where)
    mesh("run", *(word.replace("{root}", str(suite)) for word in words))
    assert submitted(node).arguments == arguments


def test_exec(node: Node, mesh: Mesh, suite: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(suite / "tests")
    assert mesh("run", "--exec", "cat {}", "--each", "test_a.py", "../pyproject.toml").code == 1
    spec = submitted(node)
    assert (spec.command, spec.files, spec.arguments) == ("cat {}", ("tests/test_a.py", "pyproject.toml"), ())


def test_json_streams_events_and_nothing_else(node: Node, mesh: Mesh, suite: Path) -> None:
    ended = mesh("run", "--json")
    assert ended.code == 1
    events = ended.lines
    assert [event["event"] for event in events] == ["submitted", "collected", *["started", "verdict"] * 3, "finished"]
    assert {event["run"] for event in events} == {"17"}
    assert events[1]["tests"] == 3
    assert {"test", "outcome", "duration", "worker", "attempt"} <= set(events[3])
    finished = {"state", "exit_code", "counts", "tests", "wall_seconds", "report", "bundle", "manifest"}
    assert finished <= set(events[-1])


def test_piped_output_is_plain_lines_and_a_summary(node: Node, mesh: Mesh, suite: Path) -> None:
    out = mesh("run").out
    assert "\033" not in out
    assert "\r" not in out
    lines = out.splitlines()
    assert lines[:2] == ["run 17", "3 tests collected"]
    assert lines[2] == "FAILED tests/test_a.py::test_bad"
    assert lines[3].startswith("[100%] 3 of 3 tests, 1 failed in ")
    assert "E       assert 1 == 2" in out
    assert "printed before" in out
    assert "FAILED tests/test_a.py::test_bad - assert 1 == 2" in lines
    assert re.search(r"^=+ 1 failed, 1 passed, 1 skipped in 1\.50s =+$", out, re.MULTILINE)
    assert f"report {TREE}" in lines


def test_records_named_by_the_verdicts_need_no_report(node: Node, mesh: Mesh, suite: Path) -> None:
    node.backend.tests = [{**verdict("a.py::test_bad", "error"), "record": RECORD}]
    node.backend.report = None
    node.backend.reason = "the mesh lost its way"
    out = mesh("run").out
    assert "assert 1 == 2" in out
    assert "the mesh lost its way" in out
    assert "report bafy" not in out


def test_failures_without_their_records_are_still_listed(node: Node, mesh: Mesh, suite: Path) -> None:
    del node.content.files["report.json"]
    ended = mesh("run")
    assert ended.code == 1
    assert "FAILED tests/test_a.py::test_bad\n" in ended.out
    assert "report.json" in ended.err


@pytest.mark.parametrize(("state", "code"), [("passed", 0), ("error", 12), ("cancelled", 2), ("failed", 5)])
def test_the_exit_code_is_the_runs(node: Node, mesh: Mesh, suite: Path, state: str, code: int) -> None:
    node.backend.tests = []
    node.backend.state, node.backend.exit_code = state, code
    ended = mesh("run")
    assert ended.code == code
    assert "no tests ran" in ended.out


def test_progress_off(node: Node, mesh: Mesh, suite: Path) -> None:
    lines = mesh("run", "--progress", "off").out.splitlines()
    assert "FAILURES" in lines[0]


def test_detach(node: Node, mesh: Mesh, suite: Path) -> None:
    node.backend.hang_at = 0
    assert mesh("run", "--detach", "--json").document == {"event": "submitted", "run": "17"}
    assert "run 17 is submitted" in mesh("run", "--detach").out
    assert node.backend.cancelled == []


def test_detach_needs_a_node(home: Path, mesh: Mesh, suite: Path) -> None:
    ended = mesh("run", "--detach")
    assert ended.code == 12
    assert "--detach" in ended.err


def test_reports_are_written(node: Node, mesh: Mesh, suite: Path) -> None:
    mesh("run", "--junitxml", "junit.xml", "--report-dir", "out", "--progress", "off")
    assert (suite / "junit.xml").read_text() == "<testsuites/>"
    assert (suite / "out" / "report.json").exists()


def test_watch_shows_the_same_and_its_code(node: Node, mesh: Mesh) -> None:
    ended = mesh("watch", "17")
    assert ended.code == 1
    assert "1 failed, 1 passed, 1 skipped" in ended.out
    assert mesh("watch", "17", "--json").lines[-1]["event"] == "finished"
    assert mesh("watch", "18").code == 4


def test_a_lost_quorum_ends_with_its_code(node: Node, mesh: Mesh, suite: Path) -> None:
    node.backend.cut_at = 1
    assert mesh("run").code == 11


def test_a_node_that_restarts_amid_a_run_is_waited_for(
    node: Node, mesh: Mesh, suite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "RETRY_SECONDS", 0.01)
    node.backend.drop_at = 2
    node.backend.drop = lambda: node.drop_connections()
    events = mesh("run", "--json").lines
    assert [event["event"] for event in events] == ["submitted", "collected", *["started", "verdict"] * 3, "finished"]


def test_a_node_that_stays_away_fails_the_run(
    node: Node, mesh: Mesh, suite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "RECONNECT_SECONDS_MAX", 0.2)
    monkeypatch.setattr(client_module, "RETRY_SECONDS", 0.01)
    node.backend.drop_at = 1
    node.backend.drop = lambda: node.drop_connections(again=False)
    ended = mesh("run")
    assert ended.code == 12
    assert "run 17 goes on" in ended.err


def test_timeout_before_the_verb_bounds_the_whole(node: Node, mesh: Mesh, suite: Path) -> None:
    node.backend.hang_at = 1
    ended = mesh("--timeout", "1", "run", "--timeout", "30")
    assert ended.code == 12
    assert "1 s (--timeout)" in ended.err
    assert submitted(node).timeout == 30.0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_cancels_the_run(node: Node, suite: Path, number: int) -> None:
    node.backend.hang_at = 1
    process = command("run", "--json", cwd=suite)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if json.loads(line)["event"] == "verdict":
                break
        process.send_signal(number)
        process.send_signal(number)  # as `timeout` does: one stroke
        out, err = process.communicate(timeout=20)
    finally:
        process.kill()
    assert process.returncode == 2
    assert node.backend.cancelled == [17]
    assert json.loads(out.splitlines()[-1])["state"] == "cancelled"
    assert "cancelling run 17" in err
    assert "Traceback" not in err


def test_ctrl_c_leaves_a_watched_run_alone(node: Node, suite: Path) -> None:
    node.backend.hang_at = 1
    process = command("watch", "17", "--json", cwd=suite)
    try:
        assert process.stdout is not None
        assert [json.loads(process.stdout.readline())["event"] for _ in range(4)][-1] == "verdict"
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    finally:
        process.kill()
    assert (process.returncode, err) == (2, "mesh: interrupted\n")
    assert node.backend.cancelled == []


def test_a_terminal_gets_a_bar_and_colours(node: Node, suite: Path) -> None:
    node.backend.tests = [verdict(f"t.py::test_{n}", "passed") for n in range(200)]
    node.backend.exit_code, node.backend.state = 0, "passed"
    main_end, terminal = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "COLUMNS": "100"}
    environment.pop("NO_COLOR", None)
    process = subprocess.Popen(
        [sys.executable, "-m", "mesh", "run"], stdout=terminal, stderr=terminal, env=environment, cwd=suite
    )
    os.close(terminal)
    shown = b""
    while select.select([main_end], [], [], 20)[0]:
        try:
            shown += os.read(main_end, 65536)
        except OSError:  # Linux's way to say that the other end is closed
            break
    os.close(main_end)
    assert process.wait(20) == 0
    text = shown.decode()
    assert "\033[?25h" in text, "the cursor is shown again"
    assert "of 200 tests" in text or "collected" in text
    assert "\033[32;1m" in text
    assert "200 passed in 1.50s" in text


def test_under_the_bar_is_what_runs_where_and_what_waits() -> None:
    tally = Tally("17", total=10)
    watching = RunWatching(
        running=tuple(Underway(f"t.py::test_{n}", f"lab-{n}", time.monotonic() - 90.0 + n) for n in range(6)),
        running_total=6,
        reasons=((3, "a free slot"),),
    )
    console = Console(width=50, height=24, color_system=None, force_terminal=True)
    with console.capture() as text:
        console.print(RunPicture(tally, watching, whole=False))
    head, *lines = (line.rstrip() for line in text.get().splitlines())
    assert "0 of 10 tests" in head
    assert lines == [
        "  lab-0  1 min 30 s  t.py::test_0",
        "  lab-1  1 min 29 s  t.py::test_1",
        "  lab-2  1 min 28 s  t.py::test_2",
        "  more            3",
        "  3  waiting: a free slot",
    ]

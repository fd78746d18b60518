"""`mesh run` with a Python, or several: what is submitted, and how several runs look and end as one."""

import json
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.served_node import Ended, Node, command

Mesh = Callable[..., Ended]
BOTH = ("--python", "3.12", "--python", "3.13")


def test_one_python(node: Node, mesh: Mesh, suite: Path) -> None:
    ended = mesh("run", "--python", "python3.12", "--requires", "gpu")
    assert ended.code == 1
    assert ended.out.startswith("run 17\n3 tests collected\n")
    (spec,) = node.backend.submitted.values()
    assert (spec.python, spec.requires) == ("3.12", "(python == 3.12 or 3.12 in pythons) and (gpu)")


def test_a_path_is_made_absolute(node: Node, mesh: Mesh, suite: Path) -> None:
    mesh("run", "--python", "venv/bin/python")
    (spec,) = node.backend.submitted.values()
    assert (spec.python, spec.requires) == (str(suite / "venv/bin/python"), "")


def test_uv_takes_the_python_that_the_project_pins(node: Node, mesh: Mesh, suite: Path) -> None:
    pins = {"3.13.1\n": "3.13.1", "pypy3.10": "", "": "", "../x": ""}
    for pinned in pins:
        (suite / ".python-version").write_text(pinned)
        mesh("run", "--env", "uv")
    mesh("run", "--env", "uv", "--python", "3.9")
    mesh("run")
    specs = list(node.backend.submitted.values())
    assert [spec.python for spec in specs] == [*pins.values(), "3.9", ""]
    assert [spec.environment for spec in specs] == ["uv"] * 5 + ["ambient"]
    assert specs[1].requires == "uv"


def test_uv_needs_something_to_install(node: Node, mesh: Mesh, suite: Path) -> None:
    (suite / "pyproject.toml").rename(suite / "tox.ini")
    ended = mesh("run", "--env", "uv")
    assert ended.code == 4
    assert "has none of uv.lock, pyproject.toml and requirements.txt" in ended.err
    assert node.backend.submitted == {}


def test_each_version_has_a_run_of_one_bundle(node: Node, mesh: Mesh, suite: Path) -> None:
    node.backend.exit_codes = {"3.13": 0}
    ended = mesh("run", "--json", *BOTH, "--python", "3.12")
    assert ended.code == 1, "the worst"
    assert len(node.content.added) == 1
    assert [spec.python for spec in node.backend.submitted.values()] == ["3.12", "3.13"]
    for run in ("17", "18"):
        events = [event["event"] for event in ended.lines if event["run"] == run]
        assert events == ["submitted", "collected", *["started", "verdict"] * 3, "finished"]
    assert {event["run"] for event in ended.lines} == {"17", "18"}
    assert ended.lines[-1]["event"] == "finished"


@pytest.mark.parametrize(("codes", "worst"), [((0, 0), 0), ((1, 0), 1), ((1, 5), 5), ((10, 1), 10)])
def test_the_worst_exit_code_is_everyones(
    node: Node, mesh: Mesh, suite: Path, codes: tuple[int, int], worst: int
) -> None:
    node.backend.exit_codes = dict(zip(("3.12", "3.13"), codes, strict=True))
    assert mesh("run", "--json", *BOTH).code == worst


def test_each_version_is_summarised_and_a_table_ends_it(node: Node, mesh: Mesh, suite: Path) -> None:
    node.backend.exit_codes = {"3.13": 0}
    lines = mesh("run", *BOTH).out.splitlines()
    assert lines[:2] == ["python 3.12: run 17", "python 3.13: run 18"]
    for label in ("python 3.12", "python 3.13"):
        assert f"{label}: 3 tests collected" in lines
        assert f"{label}: FAILED tests/test_a.py::test_bad" in lines
        assert any(line.startswith(f"{label}: [100%] 3 of 3 tests, 1 failed in ") for line in lines)
    assert lines.count("FAILED tests/test_a.py::test_bad - assert 1 == 2") == 2
    assert lines.index("python 3.12 (run 17)") < lines.index("python 3.13 (run 18)")
    assert lines[-2:] == [f"python {one}  1 failed, 1 passed, 1 skipped in 1.50s" for one in ("3.12", "3.13")]
    quiet = mesh("run", "--progress", "off", *BOTH).out
    assert "collected" not in quiet
    assert quiet.splitlines()[-1].startswith("python 3.13  1 failed")


def test_files_of_reports_have_the_version_in_their_names(node: Node, mesh: Mesh, suite: Path) -> None:
    mesh("run", "--junitxml", "out.xml", "--report-dir", "report", *BOTH)
    assert sorted(path.name for path in suite.glob("out*")) == ["out-3.12.xml", "out-3.13.xml"]
    assert sorted(path.name for path in suite.glob("report*")) == ["report-3.12", "report-3.13"]


def test_all_are_left_to_themselves(node: Node, mesh: Mesh, suite: Path) -> None:
    ended = mesh("run", "--json", "--detach", *BOTH)
    assert ended.code == 0
    assert [(event["event"], event["run"]) for event in ended.lines] == [("submitted", "17"), ("submitted", "18")]


@pytest.mark.timeout(60)
def test_ctrl_c_cancels_all(node: Node, suite: Path) -> None:
    node.backend.hang_at = 1
    process = command("run", "--json", *BOTH, cwd=suite)
    try:
        assert process.stdout is not None
        verdicts = 0
        for line in process.stdout:
            verdicts += json.loads(line)["event"] == "verdict"
            if verdicts == 2:
                break
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 2, err
    assert [json.loads(line)["state"] for line in out.splitlines() if '"finished"' in line] == ["cancelled"] * 2
    assert sorted(node.backend.cancelled) == [17, 18]
    assert "Traceback" not in err

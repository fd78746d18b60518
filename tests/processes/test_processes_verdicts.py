"""What a suite of misbehaving tests comes to: run on two nodes, judged by the report as another node hands it back."""

import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import junitparser
import psutil
import pytest

from protocols.manifests import OUTPUT_BYTES_MAX
from tests.processes.lab import PATIENCE, Lab, lab

pytestmark = [pytest.mark.processes, pytest.mark.timeout(240)]

NODE_BYTES_MAX = 200 * 1024 * 1024
"""Of a node's own memory, whatever its tests print."""

AWKWARD = r"""
import os, signal, subprocess, sys, time
import pytest

def test_pass(): ...
def test_fail():
    print("to out")
    print("to err", file=sys.stderr)
    assert 1 == 2, "one is not two"
@pytest.fixture
def bad_setup(): raise RuntimeError("setup broke")
@pytest.fixture
def bad_teardown():
    yield
    raise RuntimeError("teardown broke")
def test_setup_error(bad_setup): ...
def test_teardown_error(bad_teardown): ...
def test_skip(): pytest.skip("not today")
@pytest.mark.xfail(reason="known")
def test_xfail(): assert False
@pytest.mark.xfail(reason="surprise")
def test_xpass(): ...
@pytest.mark.xfail(strict=True, reason="strict")
def test_xpass_strict(): ...
def test_dies_abort():
    print("before abort", flush=True)
    os.abort()
def test_dies_sigkill(): os.kill(os.getpid(), signal.SIGKILL)
def test_dies_exit(): os._exit(3)
def test_dies_hanging():
    print("hanging", flush=True)
    time.sleep(1000)
@pytest.mark.timeout(1)
def test_dies_by_its_marker(): time.sleep(1000)
@pytest.mark.timeout(60)
def test_50_mb():
    for _ in range(50_000): print("x" * 999)
    print("THE END")
def test_non_utf8():
    os.write(1, b"caf\xe9\n")
    assert False
def test_child(tmp_path):
    subprocess.Popen(["sleep", "1000"], cwd=tmp_path)
@pytest.mark.parametrize("text", ["\u00fc", "a::b", "new\nline", "<&>"])
def test_ids(text): ...
"""

ARTIFACTS = """
import os
def test_artifacts(mesh_artifacts):
    (mesh_artifacts / "deep").mkdir()
    (mesh_artifacts / "deep" / "picture.bin").write_bytes(bytes(range(256)))
    os.mkfifo(mesh_artifacts / "deep" / "pipe")
"""

MODULE_SKIP = "import pytest\npytest.importorskip('nothing_of_that_name')\ndef test_never(): ...\n"

OUTCOMES = {
    "failed": ("fail", "xpass_strict", "dies_hanging", "dies_by_its_marker", "non_utf8"),
    "error": ("setup_error", "teardown_error", "dies_abort", "dies_sigkill", "dies_exit"),
    "skipped": ("skip",),
    "xfailed": ("xfail",),
    "xpassed": ("xpass",),
}


@dataclass
class Awkward:
    """The run of the awkward suite, as node "b" tells it; "a" submitted it."""

    exit_code: int
    out: str
    report: dict[str, Any]
    records: dict[str, dict[str, Any]]
    """By the test's name after "test_"."""
    folder: Path
    peak: int
    """Bytes of the largest node."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with lab(tmp_path_factory.mktemp("verdicts")) as made:
        made.variables = {name: {"PYTEST_PLUGINS": "pytest_timeout"} for name in "ab"}
        made.form("a", "b")
        yield made


@pytest.fixture(scope="module")
def suite(made: Lab) -> Path:
    return write(made, "suite", test_awkward=AWKWARD, test_artifacts=ARTIFACTS, test_absent=MODULE_SKIP)


@pytest.fixture(scope="module")
def awkward(made: Lab, suite: Path) -> Awkward:
    nodes = [psutil.Process(process.pid) for process in made.nodes.values()]
    out = made.folder / "out.txt"
    command = made.command("run", str(suite), "--timeout", "2", "--progress", "plain", home="a")
    options = {key: value for key, value in made.options().items() if key != "capture_output"}
    peak = 0
    with out.open("wb") as file, subprocess.Popen(command, stdout=file, stderr=file, **options) as process:
        while process.poll() is None:
            peak = max(peak, *(node.memory_info().rss for node in nodes))
            try:
                process.wait(timeout=0.05)
            except subprocess.TimeoutExpired:
                continue
    text = out.read_text()
    cid = next(line.split()[1] for line in text.splitlines() if line.startswith("report "))
    folder = made.folder / "report"
    made.mesh("results", cid, "-o", str(folder), home="b")
    lines = [line for path in sorted((folder / "records").iterdir()) for line in path.read_text().splitlines()]
    records = {record["test"].partition("::test_")[2]: record for record in map(json.loads, lines)}
    report = json.loads((folder / "report.json").read_text())
    return Awkward(process.returncode, text, report, records, folder, peak)


def write(made: Lab, name: str, **modules: str) -> Path:
    """A suite in a folder of its own."""
    folder = made.folder / name
    folder.mkdir()
    (folder / "pytest.ini").write_text("[pytest]\n")
    for module, text in modules.items():
        (folder / f"{module}.py").write_text(text)
    return folder


def finished(made: Lab, *arguments: str, code: int = 0) -> dict[str, Any]:
    """The last event of a `mesh run`."""
    split = arguments.index("--") if "--" in arguments else len(arguments)
    done = made.mesh("run", *arguments[:split], "--json", *arguments[split:], home="b", check=False)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    event: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert (event["event"], event["exit_code"]) == ("finished", code)
    return event


def outcomes(made: Lab, *arguments: str, code: int = 0) -> dict[str, str]:
    """Test -> outcome of a `mesh run`, from its events."""
    split = arguments.index("--") if "--" in arguments else len(arguments)
    done = made.mesh("run", *arguments[:split], "--json", *arguments[split:], home="b", check=False)
    assert done.returncode == code, done.stdout + done.stderr
    events = map(json.loads, done.stdout.splitlines())
    return {event["test"]: event["outcome"] for event in events if event["event"] == "verdict"}


# The awkward suite


def test_each_test_has_the_verdict_that_it_earned(awkward: Awkward) -> None:
    expected = {name: outcome for outcome, names in OUTCOMES.items() for name in names}
    told = {entry["test"].partition("::test_")[2]: entry["outcome"] for entry in awkward.report["tests"]}
    assert told == {
        name: expected.get(name, "skipped" if not name else "passed") for name in awkward.records
    }  # the file that skips itself has no name
    assert {name: record["outcome"] for name, record in awkward.records.items()} == told
    assert set(expected) <= set(told)
    counts = {outcome: len(names) for outcome, names in OUTCOMES.items()}
    counts["skipped"] += 1
    assert awkward.report["counts"] == {**counts, "passed": len(told) - sum(counts.values())}
    assert awkward.exit_code == 1


def test_each_record_says_what_happened(awkward: Awkward) -> None:
    records = awkward.records
    assert "one is not two" in records["fail"]["message"]
    assert 'assert 1 == 2, "one is not two"' in records["fail"]["longrepr"]
    assert (records["fail"]["stdout"], records["fail"]["stderr"]) == ("to out\n", "to err\n")
    assert "setup broke" in records["setup_error"]["message"]
    assert "teardown broke" in records["teardown_error"]["message"]
    assert records["skip"]["message"] == "not today"
    assert records["xfail"]["message"] == "known"
    assert records["xpass"]["message"] == "surprise"
    assert "strict" in records["xpass_strict"]["message"]
    assert "nothing_of_that_name" in records[""]["message"]
    assert "SIGABRT" in records["dies_abort"]["message"]
    assert "before abort" in records["dies_abort"]["stdout"]
    assert "test_dies_abort" in records["dies_abort"]["longrepr"]
    assert "SIGKILL" in records["dies_sigkill"]["message"]
    assert "exit code 3" in records["dies_exit"]["message"]
    assert "timed out after 2 s" in records["dies_hanging"]["message"]
    assert (
        "time.sleep" in records["dies_hanging"]["longrepr"]
        or "test_dies_hanging" in (records["dies_hanging"]["longrepr"])
    )
    assert "hanging" in records["dies_hanging"]["stdout"]
    assert "caf\\xe9" in records["non_utf8"]["stdout"]


def test_output_is_bounded_and_both_ends_of_it_are_kept(awkward: Awkward) -> None:
    loud = awkward.records["50_mb"]
    assert OUTPUT_BYTES_MAX // 2 < len(loud["stdout"]) <= OUTPUT_BYTES_MAX + 1000
    assert loud["stdout"].endswith("THE END\n")
    assert loud["dropped"] > 49_000_000
    assert awkward.peak < NODE_BYTES_MAX


def test_artifacts_are_in_the_report(awkward: Awkward) -> None:
    found = awkward.folder / "artifacts" / "test_artifacts.py::test_artifacts" / "deep" / "picture.bin"
    assert found.read_bytes() == bytes(range(256))
    assert len(list((awkward.folder / "artifacts").iterdir())) == 1
    warnings = json.loads((awkward.folder / "warnings.json").read_text())["warnings"]
    assert "mesh_artifacts: deep/pipe not kept: no file, directory or link" in str(warnings)


def test_two_readers_of_junit_xml_count_the_same(awkward: Awkward) -> None:
    counts = awkward.report["counts"]
    total = sum(counts.values())
    cases = ElementTree.parse(awkward.folder / "junit.xml").getroot().findall(".//testcase")
    assert len(cases) == total
    kinds = [child.tag for case in cases for child in case if child.tag in ("failure", "error", "skipped")]
    assert (kinds.count("failure"), kinds.count("error")) == (counts["failed"], counts["error"])
    assert kinds.count("skipped") == counts["skipped"] + counts["xfailed"]
    suites = list(junitparser.JUnitXml.fromfile(str(awkward.folder / "junit.xml")))
    assert sum(suite.tests for suite in suites) == total
    assert sum(suite.failures for suite in suites) == counts["failed"]
    assert sum(suite.errors for suite in suites) == counts["error"]
    assert sum(suite.skipped for suite in suites) == counts["skipped"] + counts["xfailed"]
    assert sum(len(list(suite)) for suite in suites) == total


def test_one_serial_pytest_comes_to_the_same(awkward: Awkward, suite: Path, tmp_path: Path) -> None:
    """All but the tests that pytest does not survive, and the one that needs a fixture of the mesh."""
    xml = tmp_path / "serial.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={xml}"]
    subprocess.run(
        [*command, "-k", "not dies and not artifacts", f"--basetemp={tmp_path}/base"],
        cwd=suite, capture_output=True, check=False, timeout=PATIENCE,
    )  # fmt: skip
    for process in psutil.process_iter(["cmdline"]):  # the child that a plain pytest leaves behind
        if process.info["cmdline"] == ["sleep", "1000"] and process.cwd().startswith(str(tmp_path)):
            process.kill()

    def told(path: Path) -> dict[str | None, str]:
        found = {}
        for case in ElementTree.parse(path).iter("testcase"):
            name = case.get("name") or ""
            if "dies" not in name and "artifacts" not in name:
                kinds = [child.tag for child in case if child.tag in ("failure", "error", "skipped")]
                # pytest mangles the name of a file that skips itself, as it does a class's
                found[name.removesuffix(".py").rpartition(".")[2]] = kinds[0] if kinds else "passed"
        return found

    assert told(awkward.folder / "junit.xml") == told(xml)


def test_the_screen_shows_failures_and_the_way_to_the_rest(awkward: Awkward) -> None:
    assert "FAILED test_awkward.py::test_fail - " in awkward.out
    assert "ERROR test_awkward.py::test_dies_exit - " in awkward.out
    assert "5 failed" in awkward.out
    assert "Traceback (most recent call last)" not in awkward.out
    assert len(awkward.out) < 2 * OUTPUT_BYTES_MAX


# Other suites, and what of them is run


def test_errors_while_collecting_are_shown(made: Lab) -> None:
    broken = write(made, "broken", test_ok="def test_ok(): ...", test_broken="import nothing_of_that_name")
    done = made.mesh("run", str(broken), home="b", check=False)
    assert done.returncode == 2
    assert "ERROR collecting test_broken.py" in done.stdout
    assert "E   ModuleNotFoundError: No module named 'nothing_of_that_name'" in done.stdout
    assert "no tests ran" in done.stdout
    assert done.stderr.count("\n") == 1
    assert "errors while collecting, the first: ModuleNotFoundError" in done.stderr
    run = done.stdout.split()[1]
    assert "ERROR collecting test_broken.py" in made.mesh("logs", run, home="a").stdout


def test_a_suite_without_tests_ends_as_with_pytest(made: Lab) -> None:
    done = made.mesh("run", str(write(made, "empty", test_none="x = 1")), home="b", check=False)
    assert done.returncode == 5
    assert "nothing was collected" in done.stderr


CHOICE = """
import pytest
def test_alpha(): ...
@pytest.mark.slow
def test_beta(): ...
class TestGroup:
    def test_gamma(self): ...
"""


def test_what_of_a_suite_is_run(made: Lab) -> None:
    """-k and -m after "--", a test by its ID, and a second run of what was edited."""
    folder = write(made, "choice", test_one=CHOICE, test_two="def test_delta(): ...")
    (folder / "pytest.ini").write_text("[pytest]\nmarkers = slow\n")
    passed = "passed"
    assert outcomes(made, str(folder), "--", "-k", "alpha or beta or delta", "-m", "not slow") == {
        "test_one.py::test_alpha": passed,
        "test_two.py::test_delta": passed,
    }
    assert outcomes(made, f"{folder}/test_one.py::TestGroup::test_gamma") == {
        "test_one.py::TestGroup::test_gamma": passed
    }
    deselected = made.mesh("run", str(folder), "--", "-k", "omega", home="b", check=False)
    assert (deselected.returncode, "4 deselected" in deselected.stderr) == (5, True)
    (folder / "test_two.py").write_text("def test_delta(): assert False, 'edited'")
    after = outcomes(made, str(folder), code=1)
    assert len(after) == 4
    assert after["test_two.py::test_delta"] == "failed"


def test_commands_for_each_file(made: Lab, tmp_path: Path) -> None:
    folder = write(made, "commands")
    (folder / "full.txt").write_text("something")
    (folder / "empty.txt").write_text("")
    files = [str(folder / "full.txt"), str(folder / "empty.txt")]
    done = made.mesh("run", str(folder), "--exec", "test -s {}", "--json", "--each", *files, home="b", check=False)
    assert done.returncode == 1, done.stderr
    events = [json.loads(line) for line in done.stdout.splitlines()]
    told = {event["test"]: event["outcome"] for event in events if event["event"] == "verdict"}
    assert told == {"full.txt": "passed", "empty.txt": "failed"}


def test_the_report_beside_the_run(made: Lab, tmp_path: Path) -> None:
    folder = write(made, "beside", test_one="def test_one(): ...")
    event = finished(made, str(folder), "--junitxml", str(tmp_path / "j.xml"), "--report-dir", str(tmp_path / "report"))
    assert event["counts"]["passed"] == event["tests"] == 1
    assert (tmp_path / "j.xml").read_bytes() == (tmp_path / "report" / "junit.xml").read_bytes()
    assert json.loads((tmp_path / "report" / "report.json").read_text())["counts"] == event["counts"]
    assert sum(suite.tests for suite in junitparser.JUnitXml.fromfile(str(tmp_path / "j.xml"))) == 1


def test_no_process_of_a_test_is_left(awkward: Awkward, made: Lab) -> None:
    def sleepers() -> list[int]:
        found = []
        for process in psutil.process_iter(["cmdline", "pid"]):
            try:
                if process.info["cmdline"] == ["sleep", "1000"] and "PYTEST_XDIST_WORKER" in process.environ():
                    found += [process.pid] if str(made.folder) in process.environ()["XDG_CONFIG_HOME"] else []
            except psutil.Error:
                continue
        return found

    assert awkward.records["child"]["outcome"] == "passed"
    made.until(lambda: not sleepers(), "the child of test_child is gone")

"""Every example as a user runs it: a process of its own, the real mesh, and nothing left behind."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import psutil
import pytest

from tests.processes.lab import ROOT, Lab, lab

pytestmark = [pytest.mark.processes, pytest.mark.timeout(240)]

EXAMPLES = ROOT / "examples"
SUITE = EXAMPLES / "suite_with_requirements"
SUMMARY = "7 passed, 1 skipped, 1 xfailed"


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Everything that an example makes lies below the test's folder."""
    (tmp_path / "tmp").mkdir()
    return {
        **{key: value for key, value in os.environ.items() if key != "MESH_HOME"},
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "TMPDIR": str(tmp_path / "tmp"),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # as in the lab; the demo runs once with all that are installed
        "COLUMNS": "120",
    }


def run(tmp_path: Path, environment: dict[str, str], *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *command], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=200
    )


def nothing_left(tmp_path: Path) -> bool:
    """No file in the folder for temporary files, no process that names the test's folder."""
    lines = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
    return not any((tmp_path / "tmp").iterdir()) and not any(str(tmp_path / "tmp") in line for line in lines)


def test_the_demo(tmp_path, environment):
    del environment["PYTEST_DISABLE_PLUGIN_AUTOLOAD"]
    done = run(tmp_path, environment, str(EXAMPLES / "demo.py"), "algorithms/bipartite")
    assert done.returncode == 0, done.stdout + done.stderr
    out = tmp_path / "demo-out"
    report = json.loads((out / "report" / "report.json").read_text())
    assert report["counts"]["passed"] > 100
    assert report["counts"]["failed"] == report["counts"]["error"] == 0
    assert f"{report['counts']['passed']} passed" in done.stdout
    assert "\nreport's CID      bafy" in done.stdout
    for picture in (out / "topology.png", out / "overview.png"):
        assert str(picture) in done.stdout
        assert picture.read_bytes().startswith(b"\x89PNG")
    assert nothing_left(tmp_path)


@pytest.mark.parametrize("line", ["Starting a mesh", "tests collected"])
def test_the_demo_interrupted(tmp_path, environment, line):
    """One Ctrl-C, while the mesh starts and while it runs tests."""
    command = [sys.executable, str(EXAMPLES / "demo.py"), "algorithms/bipartite"]
    with subprocess.Popen(
        command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as demo:
        assert demo.stdout is not None
        assert any(line in said for said in demo.stdout)
        demo.send_signal(signal.SIGINT)
        rest = demo.stdout.read()
    assert demo.returncode == 2, rest
    assert "Traceback" not in rest
    assert not (tmp_path / "demo-out").exists()
    assert nothing_left(tmp_path)


def test_the_demo_says_something_at_once(tmp_path, environment):
    started = time.monotonic()
    with subprocess.Popen(
        [sys.executable, str(EXAMPLES / "demo.py"), "classes"],
        env=environment, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    ) as demo:  # fmt: skip
        assert demo.stdout is not None
        assert demo.stdout.readline().startswith("Starting a mesh")
        waited = time.monotonic() - started
        demo.send_signal(signal.SIGTERM)
        demo.stdout.read()
    assert waited < 2
    assert demo.returncode == 2
    assert nothing_left(tmp_path)


def test_lab_on_one_host(tmp_path, environment):
    done = run(tmp_path, environment, str(EXAMPLES / "lab_on_one_host.py"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert SUMMARY in done.stdout
    assert nothing_left(tmp_path)


@pytest.mark.namespaces
@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("ip") is None, reason="needs root and the ip command")
def test_lab_in_namespaces(tmp_path, environment):
    done = run(tmp_path, environment, str(EXAMPLES / "lab_in_namespaces.py"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert SUMMARY in done.stdout
    assert nothing_left(tmp_path)


def test_lab_in_namespaces_says_what_it_needs(tmp_path, environment):
    done = run(tmp_path, {**environment, "PATH": str(tmp_path)}, str(EXAMPLES / "lab_in_namespaces.py"))
    assert done.returncode == 1
    assert done.stderr == "network namespaces need root and the `ip` command (iproute2): run this with sudo on Linux\n"


def test_a_suite_with_requirements_its_report_and_the_topology(tmp_path, environment):
    """The suite by hand on a lab; its report by CID and the picture by the other examples, on another node."""
    with lab(tmp_path) as made:
        made.start("plain")
        made.start("camera", "--join", made.ticket("plain"), "--label", "camera=front")
        made.until(lambda: has_camera(made), "both nodes see the camera")
        cid, camera = run_suite(made)
        fetched = run(tmp_path, environment, str(EXAMPLES / "fetch_result.py"), cid, str(made.home("camera")), "out")
        assert fetched.returncode == 0, fetched.stderr
        picture = str(tmp_path / "mesh.png")
        plotted = run(tmp_path, environment, str(EXAMPLES / "plot_topology.py"), str(made.home("camera")), picture)
        assert plotted.returncode == 0, plotted.stderr
        made.mesh("results", cid, "-o", str(tmp_path / "whole"), home="plain")
    assert fetched.stdout.startswith(f"{SUMMARY}\nthe slowest:\n")
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    places = {entry["test"]: entry["worker"] for entry in report["tests"]}
    assert places["test_devices.py::test_takes_a_picture"] == camera
    assert len(ElementTree.parse(tmp_path / "out" / "junit.xml").getroot().findall(".//testcase")) == len(places) == 9
    assert [path.read_text() for path in (tmp_path / "whole" / "artifacts").rglob("picture.txt")] == [
        f"seen by {camera}\n"
    ]
    assert Path(picture).read_bytes().startswith(b"\x89PNG")
    assert "nearest to all: " in plotted.stdout


def has_camera(made: Lab) -> bool:
    statuses = [made.status(name) or {"nodes": []} for name in ("plain", "camera")]
    return all(any("camera" in node["capabilities"] for node in status["nodes"]) for status in statuses)


def run_suite(made: Lab) -> tuple[str, str]:
    """(the report's CID, the peer ID of the node with the camera)."""
    finished = list(made.events("run", str(SUITE), home="plain"))[-1]
    assert finished["state"] == "passed"
    return finished["report"], made.peer("camera")

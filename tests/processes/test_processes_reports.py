"""Reports of a real run on three nodes: coverage is that of a serial run, and every form is read by what reads it."""

import json
import os
import subprocess
import sys
import textwrap
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import junitparser
import pytest
import xmlschema
import xunitparser

from tests.processes.lab import Lab, lab
from tests.reporters.test_reporters import SCHEMA, with_properties

pytestmark = [pytest.mark.processes, pytest.mark.timeout(240)]

PACKAGE = """
def size(x):
    if x > 1:
        return "big"
    if x < -5:
        return "tiny"
    for _ in range(x):
        pass
    return "small"

def never():
    return 1
"""
SUITE = {
    "pyproject.toml": """
        [tool.coverage.run]
        branch = true
        source = ["pkg"]
        [tool.mesh]
        retries = 1
        reports = ["junit:out/junit.xml", "jenkins:out/jenkins.xml", "coverage:out/coverage", "html:out/report.html"]
        """,
    "pkg/__init__.py": PACKAGE,
    "pkg/unused.py": "def f():\n    return 1\n",
    "test_a.py": """
        import pkg, pytest
        @pytest.mark.requires("label.spot == a")
        def test_big(): assert pkg.size(5) == "big"
        """,
    "test_b.py": """
        import pkg, pytest
        @pytest.mark.requires("label.spot == b")
        def test_tiny(record_property):
            record_property("k", "v")
            pkg.size(-9)
        """,
    "test_c.py": """
        import pkg, pytest
        pytestmark = pytest.mark.requires("label.spot == c")
        def test_left(mesh_artifacts): (mesh_artifacts / "x.txt").write_text("left")
        def test_bad():
            print("said")
            assert pkg.size(1) == "large"
        """,
}


def lines(xml: Path) -> dict[str, list[tuple[str | None, ...]]]:
    """File -> (line, hits above none, branches of it that ran) of a coverage.xml."""
    found = {}
    for file in ElementTree.parse(xml).iter("class"):
        counted = [
            (line.get("number"), str(line.get("hits") != "0"), line.get("condition-coverage"))
            for line in file.iter("line")
        ]
        found[Path(file.get("filename", "")).name] = counted
    return found


def coverage_is_in_the_history(mesh: Lab, report: str, percent: float) -> None:
    """Of each voter, as soon as it has taken the run in; in the report itself; and in words."""

    def part(name: str) -> float | None:
        told = json.loads(mesh.mesh("history", "--project", "tree", "--json", home=name).stdout)["runs"]
        return told[-1]["coverage"] if told else None

    for name in "abc":
        mesh.until(lambda name=name: part(name) is not None, f"{name} tells what was covered")  # type: ignore[misc]
        assert part(name) == pytest.approx(percent / 100)
    assert json.loads(mesh.mesh("cat", f"{report}/coverage.json", home="c").stdout) == {"percent": percent}
    assert f"{percent:.1f}% covered" in mesh.mesh("history", home="a").stdout


def test_coverage_over_three_nodes_and_every_form_of_report(tmp_path: Path) -> None:
    with lab(tmp_path) as mesh:
        mesh.variables = {name: {"PYTEST_PLUGINS": "pytest_cov.plugin"} for name in "abc"}
        mesh.start("a", "--label", "spot=a")
        for name in "bc":
            mesh.start(name, "--join", mesh.ticket("a"), "--label", f"spot={name}")
        mesh.agreed("a", "b", "c")
        tree = mesh.folder / "tree"
        for name, text in SUITE.items():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            (tree / name).write_text(textwrap.dedent(text))
        done = mesh.mesh("run", "tree", "--json", "--", "--cov=pkg", "--cov-report=json", home="b", check=False)
        assert done.returncode == 1, done.stderr
        finished = json.loads(done.stdout.splitlines()[-1])
        total = json.loads((tree / "coverage.json").read_text())["totals"]["percent_covered"]
        coverage_is_in_the_history(mesh, finished["report"], total)
        written = mesh.mesh("results", finished["report"], "-o", "fetched", "--report", "coverage:away", home="c")
        assert "coverage report: " in written.stderr
    report = json.loads((mesh.folder / "fetched" / "report.json").read_text())
    ran = {entry["worker"] for entry in report["tests"]}
    assert len(ran) == 3, "each node had a part of it"
    command = [sys.executable, "-m", "pytest", "-q", "--cov=pkg", "--cov-report=xml:serial.xml"]
    variables = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTEST_PLUGINS": "pytest_cov.plugin"}
    serially = (tree / "test_c.py").read_text().replace("mesh_artifacts", "tmp_path")
    (tree / "test_c.py").write_text(serially)
    subprocess.run(command, cwd=tree, env=variables, check=False, capture_output=True)
    serial = lines(tree / "serial.xml")
    assert serial["__init__.py"]
    assert lines(tree / "out" / "coverage" / "coverage.xml") == serial
    assert lines(mesh.folder / "away" / "coverage.xml") == serial
    assert "/mesh-tree-" not in (mesh.folder / "away" / "coverage.xml").read_text()
    assert "SF:pkg/__init__.py" in (tree / "out" / "coverage" / "coverage.lcov").read_text()
    assert (tree / "out" / "coverage" / "html" / "index.html").exists()
    junit_is_read(tree / "out", report["names"])
    page = (tree / "out" / "report.html").read_text()
    assert "test_c.py::test_bad" in page
    assert (mesh.folder / "fetched" / "report.html").exists()


def junit_is_read(folder: Path, names: dict[str, str]) -> None:
    with_properties().validate(str(folder / "junit.xml"))
    xmlschema.XMLSchema10(SCHEMA).validate(str(folder / "jenkins.xml"))
    cases = {
        case.get("name"): {one.get("name"): one.get("value", "") for one in case.iter("property")}
        for case in ElementTree.parse(folder / "junit.xml").iter("testcase")
    }
    assert {told["mesh.host"] for told in cases.values()} == set(names.values())
    assert cases["test_tiny"]["k"] == "v"
    assert cases["test_left"]["mesh.artifacts"].startswith("bafy")
    assert cases["test_bad"]["mesh.attempt"] == "2"
    assert [case.name for suite in junitparser.JUnitXml.fromfile(str(folder / "junit.xml")) for case in suite] == list(
        cases
    )
    for name in ("junit.xml", "jenkins.xml"):
        with (folder / name).open("rb") as file:
            first, _ = xunitparser.parse(file)
        assert {case.methodname: case.result for case in first} == {
            "test_big": "success", "test_tiny": "success", "test_left": "success", "test_bad": "failure"
        }  # fmt: skip

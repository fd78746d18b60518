"""The same outcomes as one plain pytest, test by test, on a real suite with the plugins that are installed here."""

import dataclasses
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import networkx
import pytest
import trio
from runner_harness import job, run_all

from mesh.state import junit

PARTS = ("readwrite/json_graph", "linalg/tests", "classes/tests/test_digraph.py", "-k", "not cytoscape")
"""Among the files of `linalg` are some that skip themselves whole (they need scipy)."""


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """With the bytecode that lies there, but for what pytest wrote: some environments would compile all each time."""
    source = Path(networkx.__file__).parent
    return Path(shutil.copytree(source, tmp_path / "networkx", ignore=shutil.ignore_patterns("*-pytest-*.pyc")))


def plain(tree: Path, *arguments: str) -> dict[tuple[str, str], str]:
    """What a serial run says: class and name of each test -> outcome."""
    report = tree.parent / "serial.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *arguments]
    subprocess.run(command, cwd=tree, check=False, capture_output=True)
    outcomes = {}
    for case in ElementTree.parse(report).iter("testcase"):
        child = case[0].tag if len(case) else "passed"
        outcomes[case.get("classname", ""), case.get("name", "")] = {"failure": "failed"}.get(child, child)
    return outcomes


@pytest.mark.parametrize("arguments", [PARTS, ("--pyargs", "networkx.utils.tests.test_misc")])
async def test_as_serial(tree: Path, arguments: tuple[str, ...]) -> None:
    expected = await trio.to_thread.run_sync(plain, tree, *arguments)
    the_job = dataclasses.replace(job(tree, *arguments), variables={})
    assert {junit.names(one.test): one.outcome.value for one in await run_all(the_job)} == expected
    assert len(expected) > 25

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

PARTS = ("readwrite/json_graph", "classes/tests/test_digraph.py", "-k", "not cytoscape")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    source = Path(networkx.__file__).parent
    return Path(shutil.copytree(source, tmp_path / "networkx", ignore=shutil.ignore_patterns("__pycache__")))


def plain(tree: Path, *arguments: str) -> dict[str, str]:
    """What a serial run says: class and name of each test -> outcome."""
    report = tree.parent / "serial.xml"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}", *arguments]
    subprocess.run(command, cwd=tree, check=False, capture_output=True)
    outcomes = {}
    for case in ElementTree.parse(report).iter("testcase"):
        child = case[0].tag if len(case) else "passed"
        outcomes[f"{case.get('classname')}.{case.get('name')}"] = {"failure": "failed"}.get(child, child)
    return outcomes


def as_in_junit(test: str) -> str:
    path, _, rest = test.partition("::")
    name, bracket, parameters = rest.partition("[")
    return f"{path.removesuffix('.py').replace('/', '.')}.{name.replace('::', '.')}{bracket}{parameters}"


@pytest.mark.parametrize("arguments", [PARTS, ("--pyargs", "networkx.utils.tests.test_misc")])
async def test_as_serial(tree: Path, arguments: tuple[str, ...]) -> None:
    expected = await trio.to_thread.run_sync(plain, tree, *arguments)
    the_job = dataclasses.replace(job(tree, *arguments), variables={})
    found = {as_in_junit(record.test): record.outcome.value for record in await run_all(the_job)}
    whole_modules = {name for name in expected if name.startswith(".")}
    assert found == {name: outcome for name, outcome in expected.items() if name not in whole_modules}
    assert len(found) > 25

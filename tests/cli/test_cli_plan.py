"""`mesh plan` against a served fake node: what it asks for, what it collects, what it says."""

import os
from collections.abc import Callable
from pathlib import Path

from protocols.codec import decode
from protocols.manifests import Manifest
from tests.api.fake_backend import TREE
from tests.cli.served_node import Ended, Node

Mesh = Callable[..., Ended]


def test_nothing_is_bundled_or_submitted(node: Node, mesh: Mesh, suite: Path) -> None:
    ended = mesh("plan", "tests", "--requires", "gpu", "--priority", "70", "--timeout", "9", "--", "-k", "good")
    assert ended.code == 0, ended.err
    assert (node.backend.submitted, node.content.added) == ({}, [])
    (((spec,), manifests),) = node.backend.planned
    assert (spec.requires, spec.priority, spec.timeout, spec.arguments) == ("gpu", 70, 9.0, ("tests", "-k", "good"))
    assert manifests == [None]
    assert "3 tests as in run 12" in ended.out
    assert "about 250 ms for the tests" in ended.out


def test_json(node: Node, mesh: Mesh, suite: Path) -> None:
    document = mesh("plan", "--json", "tests").document
    assert document["makespan_seconds"] == 0.25
    assert document["nodes"][0]["tests"] == 3
    assert document["runs"][0]["prediction_error"]["median_relative"] == 0.08


def test_what_the_mesh_never_ran_is_collected_here_and_leaves_nothing_behind(
    node: Node, mesh: Mesh, suite: Path
) -> None:
    node.backend.unknown = True
    (suite / "tests" / "test_b.py").write_text(
        "import pytest\n@pytest.mark.requires('gpu')\n@pytest.mark.parametrize('n', range(3))\ndef test_n(n): ...\n"
    )
    before = sorted(path for path in suite.rglob("*"))
    kept: list[Manifest] = []
    add = node.content.add_path

    async def adding(path: Path, names: object = None) -> object:
        kept.append(decode(path.read_bytes(), Manifest))
        return await add(path)

    node.content.add_path = adding  # type: ignore[method-assign,assignment]
    ended = mesh("plan", "--json")
    assert ended.document["runs"][0]["source"] == "collected"
    assert "collecting project here" in ended.err
    (manifest,) = kept
    assert [test.id for test in manifest.tests] == [
        "tests/test_a.py::test_good",
        *(f"tests/test_b.py::test_n[{n}]" for n in range(3)),
    ]
    assert manifest.requirements[manifest.tests[1].requirement] == ("gpu", "")
    assert [manifests for _, manifests in node.backend.planned] == [[None], [TREE]]
    assert node.backend.pinned == {}
    assert not node.content.added[0][0].exists(), "the file itself was temporary"
    assert sorted(path for path in suite.rglob("*")) == before


def test_what_can_not_be_collected_stays_unknown(node: Node, mesh: Mesh, suite: Path) -> None:
    node.backend.unknown = True
    (suite / "tests" / "test_a.py").write_text("import nothing_of_that_name\n")
    ended = mesh("plan")
    assert ended.code == 0
    assert "it can't be collected here: errors while collecting, the first: ModuleNotFoundError" in ended.err
    assert "its tests are unknown" in ended.out
    assert len(node.backend.planned) == 1
    os.remove(suite / "tests" / "test_a.py")
    (suite / "requirements.txt").write_text("pytest\n")
    ended = mesh("plan", "--env", "uv")
    assert "collecting" not in ended.err, "not in this environment"


def test_an_exit_code_for_what_nobody_could_take(node: Node, mesh: Mesh, suite: Path) -> None:
    one = {"requirement": "gpu", "tests": 2, "workers": [], "more_workers": 0, "helps": [], "capable": False}
    node.backend.would_wait = [one]
    ended = mesh("plan")
    assert (ended.code, "2 tests would wait for a worker with gpu" in ended.out) == (10, True)
    node.backend.would_wait = [{**one, "capable": True}]
    assert mesh("plan").code == 0


def test_every_python_is_a_run_of_its_own(node: Node, mesh: Mesh, suite: Path) -> None:
    assert mesh("plan", "--python", "3.11", "--python", "3.12").code == 0
    ((specs, manifests),) = node.backend.planned
    assert ([spec.python for spec in specs], manifests) == (["3.11", "3.12"], [None, None])


def test_bad_input_is_named_before_anything_is_asked(node: Node, mesh: Mesh, suite: Path) -> None:
    for words, said in (
        (["--requires", "gpu >="], "--requires"),
        (["nowhere"], "nowhere"),
        (["--slots", "2"], "--slots"),
    ):
        ended = mesh("plan", *words)
        assert (ended.code, ended.out) == (4, "")
        assert said in ended.err
    assert node.backend.planned == []

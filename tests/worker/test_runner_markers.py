"""Markers that say what a test needs, of which type it is, and for which others it waits; what is wrong with them."""

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from runner_harness import collect, job, write

import mesh.worker.pytest_side
from mesh.ports import CollectionFailed
from mesh.state import dependencies
from mesh.worker.runner import PytestRunner
from mesh.worker.selecting import select
from protocols.ids import Cid
from protocols.manifests import CollectedTest, Dependency, Manifest, Needs, Selection


class Marks:
    """`pytest.mark` for names that this suite does not have."""

    def __getattr__(self, name: str) -> Callable[..., pytest.Mark]:
        return lambda *args, **kwargs: pytest.Mark(name, args, kwargs, _ispytest=True)


class FakeItem:
    """As much of an item as markers are asked of."""

    nodeid = "test_x.py::test_a"

    def __init__(self, marks: list[pytest.Mark]) -> None:
        self.marks = marks
        self.config = self

    def iter_markers(self, name: str) -> Iterator[pytest.Mark]:
        return (mark for mark in self.marks if mark.name == name)

    def get_closest_marker(self, name: str) -> pytest.Mark | None:
        return next(self.iter_markers(name), None)

    def getini(self, name: str) -> str:
        raise ValueError(name)


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The modules that are loaded inside pytest, by the name that they have there."""
    monkeypatch.setitem(sys.modules, "_mesh_pytest_side", mesh.worker.pytest_side)
    for name in ("kinds", "markers", "ordering"):
        module = importlib.import_module(f"mesh.worker.pytest_side.{name}")
        monkeypatch.setitem(sys.modules, f"_mesh_pytest_side.{name}", module)
    return mesh.worker.pytest_side


def suite(body: str) -> dict[str, str]:
    return {"test_x.py": f"import pytest\nmark = pytest.mark\n{body}\n"}


async def manifest_of(root: Path, body: str, *arguments: str, **more: object) -> Manifest:
    return await collect(job(write(root, suite(body)), *arguments, **more))


def waits(manifest: Manifest) -> dict[str, set[str]]:
    """Who waits for whom, by name; with "?" for who need not pass, and "missing" for what is not there."""
    names = [test.id.partition("::")[2] for test in manifest.tests]
    found: dict[str, set[str]] = {}
    for one in manifest.dependencies:
        for test in range(one.first, one.first + one.count):
            others = names[one.on : one.on + one.on_count] or ["missing"]
            found.setdefault(names[test], set()).update(other + "?" * (not one.passed) for other in others)
    return found


async def test_needs_of_a_test(tmp_path: Path) -> None:
    body = """
@mark.resources(memory="1.5 GiB", gpu=0.25)
@mark.exclusive("rig")
class TestA:
    @mark.resources(cpu=0.5, disk=1)
    @mark.exclusive("camera-1", "camera-2")
    def test_all(self): ...
    @mark.resources(gpu=2, network=0.1, memory=5, hosts=3)
    def test_closer(self): ...
def test_nothing(): ...
"""
    manifest = await manifest_of(tmp_path, body)
    assert [manifest.needs_of(test.requirement) for test in manifest.tests] == [
        Needs(cpu=500, memory=1536 * 2**20, gpu=250, disk=1000, locks=("camera-1", "camera-2", "rig")),
        Needs(memory=5, gpu=2000, network=100, locks=("rig",), hosts=3),
        Needs(),
    ]


@pytest.mark.parametrize(
    ("marker", "words"),
    [
        ("exclusive()", "marker exclusive() takes the name of a lock"),
        ("exclusive(5)", "marker exclusive(5) takes the name of a lock"),
        ("resources(4)", "marker resources(4) takes names and amounts, such as resources(cpu=2"),
        ("resources(cpus=4)", "marker resources(cpus=4) takes cpu, memory, gpu, disk, network and hosts, not cpus"),
        ("resources(hosts=9)", "takes as hosts how many at once, 1 to 8"),
        ("resources(hosts=True)", "takes as hosts how many at once, 1 to 8"),
        ("resources(hosts=0)", "takes as hosts how many at once, 1 to 8"),
        ("resources(memory='4 apples')", 'takes memory as text such as "4GiB", or in bytes'),
        ("resources(gpu=1.5)", "takes as gpu a whole number up to 64, or a share of one such as 0.5"),
        ("resources(cpu='2')", "marker resources(cpu='2') takes a number as cpu"),
        ("resources(cpu=0)", "takes as cpu how many processors"),
        ("resources(disk=2)", "takes as disk a share from 0 to 1"),
        ("priority('high')", "marker priority('high') takes a whole number from -1000 to 1000"),
        ("task_type('modell')", "marker task_type('modell') takes one of the types model, hardware, api"),
        ("depends()", "marker depends() takes node IDs or names of tests"),
        ("depends('test_b')", "marker depends('test_b') takes node IDs or names of tests, and there is none"),
    ],
)
def test_a_marker_that_makes_no_sense_is_named_with_its_test(inside: Any, marker: str, words: str) -> None:
    item = FakeItem([eval(f"mark.{marker}", {"mark": Marks()})])

    def look() -> None:
        inside.markers.kind_name(item, inside.kinds.BUILT_IN)
        inside.markers.needs(item, None)
        inside.ordering.dependencies([item], [])

    with pytest.raises(pytest.UsageError) as error:
        look()
    text = str(error.value)
    assert text.startswith(f"test_x.py::test_a: marker {marker.replace(chr(34), chr(39))} takes ")
    assert words in text
    assert len(text.splitlines()) == 1, "one sentence"


async def test_a_wrong_marker_ends_the_collection(tmp_path: Path) -> None:
    failed = await PytestRunner().collect(job(write(tmp_path, suite("@mark.exclusive()\ndef test_a(): ..."))))
    assert isinstance(failed, CollectionFailed)
    assert failed.exit_code == 4
    assert failed.output == 'ERROR: test_x.py::test_a: marker exclusive() takes the name of a lock, such as "camera-1"'


async def test_who_depends_on_whom(tmp_path: Path) -> None:
    body = """
@mark.parametrize("n", range(3))
def test_a(n): ...
@mark.depends("test_a")
def test_all(): ...
@mark.depends("test_x.py::test_a[1]", "TestB::test_c")
def test_some(): ...
class TestB:
    def test_c(self): ...
@mark.dependency(name="set-up")
def test_d(): ...
@mark.depends("set-up")
def test_e(): ...
"""
    manifest = await manifest_of(tmp_path, body)
    assert waits(manifest) == {
        "test_all": {"test_a[0]", "test_a[1]", "test_a[2]"},
        "test_some": {"test_a[1]", "TestB::test_c"},
        "test_e": {"test_d"},
    }
    assert Dependency(3, 1, 0, 3) in manifest.dependencies, "parameters side by side are one"


async def test_depends_on_a_test_that_was_deselected_is_a_skip_and_no_error(tmp_path: Path) -> None:
    body = "def test_a(): ...\n@mark.depends('test_a')\ndef test_b(): ..."
    manifest = await manifest_of(tmp_path, body, "-k", "test_b")
    assert waits(manifest) == {"test_b": {"missing"}}


async def test_names_in_several_files(tmp_path: Path) -> None:
    files = {"test_a.py": "def test_one(): ...\ndef test_two(): ...", "test_b.py": "def test_one(): ..."}
    body = "import pytest\n@pytest.mark.depends('{}')\ndef test_c(): ..."
    manifest = await collect(job(write(tmp_path, {**files, "test_c.py": body.format("test_two")})))
    assert waits(manifest) == {"test_c": {"test_two"}}
    failed = await PytestRunner().collect(job(write(tmp_path, {"test_c.py": body.format("test_one")})))
    assert isinstance(failed, CollectionFailed)
    assert "node IDs where tests of several files have the name" in failed.output


async def test_the_marker_of_pytest_dependency(tmp_path: Path) -> None:
    body = """
@mark.dependency
def test_a(): ...
def test_unmarked(): ...
@mark.dependency(depends=["test_a", "test_unmarked"])
def test_b(): ...
class TestC:
    @mark.dependency
    def test_d(self): ...
    @mark.dependency(depends=["test_d"], scope="class")
    def test_e(self): ...
    @mark.dependency(depends=["TestC::test_d", "test_a"])
    def test_f(self): ...
@mark.dependency(depends=["test_x.py::TestC::test_e"], scope="session")
def test_g(): ...
"""
    manifest = await manifest_of(tmp_path, body)
    assert waits(manifest) == {
        "test_b": {"test_a", "missing"},
        "TestC::test_e": {"TestC::test_d"},
        "TestC::test_f": {"TestC::test_d", "test_a"},
        "test_g": {"TestC::test_e"},
    }


async def test_the_marker_of_pytest_order(tmp_path: Path) -> None:
    body = """
@mark.order("last")
def test_last(): ...
@mark.order(2)
def test_two(): ...
@mark.order(2)
def test_two_more(): ...
def test_free(): ...
@mark.order("second")
def test_one(): ...
@mark.order(after="test_free")
def test_after(): ...
@mark.order(before="test_last")
def test_before(): ...
@mark.order(index=-2)
def test_nearly_last(): ...
"""
    manifest = await manifest_of(tmp_path, body)
    assert waits(manifest) == {
        "test_two": {"test_one?"},
        "test_two_more": {"test_one?"},
        "test_free": {"test_two?", "test_two_more?"},
        "test_after": {"test_free?"},
        "test_last": {"test_before?", "test_nearly_last?"},
        "test_nearly_last": {"test_free?"},
    }
    assert dependencies.cycle(manifest.dependencies) == []


TYPES = """
[tool.mesh.types.camera]
markers = ["camera", "lens"]
requires = "label.rig == optics"
resources = { memory = "1GiB", hosts = 2 }
exclusive = "camera-1"
timeout = 60
priority = 5
[tool.pytest.ini_options]
markers = ["camera", "lens"]
"""
TYPED = """
@mark.camera
def test_a(): ...
@mark.requires("gpu")
@mark.timeout(3)
@mark.task_type("camera")
def test_b(): ...
@mark.task_type("api")
def test_c(): ...
def test_d(): ...
"""


async def test_a_type_gives_what_the_test_itself_does_not_say(tmp_path: Path) -> None:
    write(tmp_path, {"pyproject.toml": TYPES})
    manifest = await manifest_of(tmp_path, TYPED)
    assert [(manifest.requirements[test.requirement][0], test.timeout) for test in manifest.tests] == [
        ("label.rig == optics", 60.0),
        ("(label.rig == optics) and (gpu)", 3.0),
        ("", 0.0),
        ("", 0.0),
    ]
    camera = Needs(memory=2**30, locks=("camera-1",), priority=5, hosts=2)
    assert [manifest.needs_of(test.requirement) for test in manifest.tests] == [camera, camera, Needs(), Needs()]


@pytest.mark.parametrize(
    ("wanted", "tests"), [("", "abcd"), ("camera", "ab"), ("api", "c"), ("model", "d"), ("hardware", "d")]
)
def test_a_run_of_a_type(inside: Any, tmp_path: Path, wanted: str, tests: str) -> None:
    """Its tests alone; in a suite that has none of it, those without a type are taken for it."""
    write(tmp_path, {"pyproject.toml": TYPES})
    names = inside.kinds.chosen(wanted, ["camera", "camera", "api", ""], inside.kinds.known(str(tmp_path)))
    assert "".join(test for test, name in zip("abcd", names, strict=True) if name != inside.kinds.DROPPED) == tests
    assert wanted in ("", *names)


async def test_a_run_of_a_type_that_the_suite_lacks_takes_its_tests_for_it(tmp_path: Path) -> None:
    write(tmp_path, {"pyproject.toml": TYPES})
    manifest = await manifest_of(tmp_path, TYPED, test_type="model")
    assert [test.id for test in manifest.tests] == ["test_x.py::test_d"]
    assert manifest.requirements[manifest.tests[0].requirement] == ("", "gpu")


@pytest.mark.parametrize(
    ("text", "wanted", "words"),
    [
        ("", "modell", "--test-type 'modell' is none of the types model, hardware, api"),
        ("[tool.mesh.types]\nx = 1", "", "pyproject.toml: tool.mesh.types.x must be a table"),
        ("[tool.mesh.types.x]\nneeds = 1", "", "has an unknown key 'needs'; known are markers"),
        ("[tool.mesh.types.x]\ntimeout = 'long'", "", "timeout of tool.mesh.types.x must be a number of seconds"),
        (
            "[tool.mesh.types.x]\nresources = { cpu = 'x' }",
            "",
            "resources of tool.mesh.types.x must be a table with a number",
        ),
        ("[tool.mesh.types.x]\ntimeout = inf", "", "timeout of tool.mesh.types.x must be a number of seconds"),
        (f"[tool.mesh.types.x]\nexclusive = {[str(n) for n in range(17)]}", "", "must be at most 16 names"),
        (f"[tool.mesh.types.x]\nexclusive = '{101 * 'x'}'", "", "must be at most 16 names of up to 100 characters"),
        ("[tool.mesh.types.x", "", "pyproject.toml: "),
    ],
)
def test_a_type_that_makes_no_sense_is_named(inside: Any, tmp_path: Path, text: str, wanted: str, words: str) -> None:
    write(tmp_path, {"pyproject.toml": text})
    with pytest.raises(pytest.UsageError) as error:
        inside.kinds.chosen(wanted, [""], inside.kinds.known(str(tmp_path)))
    assert words in str(error.value)


def test_a_selection_keeps_the_dependencies_between_what_is_selected() -> None:
    tests = tuple(CollectedTest(f"t.py::{name}", "t.py") for name in "abcdef")
    waits = (Dependency(4, 2, 0, 3), Dependency(1, 1, 5, 1, False), Dependency(3, 1, 0, 0), Dependency(5, 1, 3, 1))
    manifest = Manifest(Cid(""), tests, dependencies=waits)
    some = select(manifest, Selection(("t.py::a", "t.py::c", "t.py::e", "t.py::f")))
    assert isinstance(some, Manifest)
    assert waits_of(some) == {("e", "a"), ("e", "c"), ("f", "a"), ("f", "c")}
    everything = select(manifest, Selection(("t.py::f", "t.py::c"), first=True))
    assert isinstance(everything, Manifest)
    assert waits_of(everything) == waits_of(manifest)


def waits_of(manifest: Manifest) -> set[tuple[str, str]]:
    names = [test.id[-1] for test in manifest.tests]
    return {
        (names[test], other)
        for one in manifest.dependencies
        for test in range(one.first, one.first + one.count)
        for other in names[one.on : one.on + one.on_count] or ["missing"]
    }

"""Collecting: pytest's order, markers as requirements, and a sentence for what is wrong."""

import sys
from pathlib import Path

import pytest
from runner_harness import collect, job, run_all, take, work, write

from mesh.ports import CollectionFailed
from mesh.worker.runner import PytestRunner
from protocols.manifests import NOTHING, Dependency, Needs, Outcome

MARKED = """
    import pytest

    @pytest.mark.requires("gpu.cuda >= 12")
    class TestGpu:
        def test_one(self): ...

        @pytest.mark.requires("memory >= 8GiB")
        @pytest.mark.prefers("ssd")
        def test_two(self): ...

    @pytest.mark.timeout(2.5)
    @pytest.mark.xdist_group("db")
    def test_three(): ...

    @pytest.mark.resources(cpu=2)
    @pytest.mark.exclusive("camera")
    @pytest.mark.priority(3)
    @pytest.mark.depends("test_three")
    @pytest.mark.task_type("model")
    def test_four(): ...
"""


async def test_a_manifest_has_scopes_limits_and_requirements(tmp_path: Path) -> None:
    write(tmp_path, {"b/test_b.py": "def test_b(): ...", "a/test_a.py": MARKED})
    manifest = await collect(job(tmp_path, "--strict-markers"))
    assert [(test.id, test.scope, test.timeout) for test in manifest.tests] == [
        ("a/test_a.py::TestGpu::test_one", "a/test_a.py", 0.0),
        ("a/test_a.py::TestGpu::test_two", "a/test_a.py", 0.0),
        ("a/test_a.py::test_three", "@db", 2.5),
        ("a/test_a.py::test_four", "a/test_a.py", 0.0),
        ("b/test_b.py::test_b", "b/test_b.py", 0.0),
    ]
    assert [manifest.requirements[test.requirement] for test in manifest.tests] == [
        ("gpu.cuda >= 12", ""),
        ("(memory >= 8GiB) and (gpu.cuda >= 12)", "ssd"),
        ("", ""),
        ("", "gpu"),
        ("", ""),
    ]
    assert [manifest.needs_of(test.requirement) for test in manifest.tests[2:]] == [
        NOTHING,
        Needs(cpu=2000, locks=("camera",), priority=3),
        NOTHING,
    ]
    assert manifest.dependencies == (Dependency(3, 1, 2, 1),)


@pytest.mark.parametrize(
    ("text", "arguments", "code", "words"),
    [
        ("def helper(): ...", (), 5, "no tests ran"),
        ("import nothing_of_that_name", (), 2, "nothing_of_that_name"),
        ("def test_a(): ...", ("--no-such-option",), 4, "--no-such-option"),
        ("def test_a(): ...", ("missing.py",), 4, "missing.py"),
        ("def test_a(): ...", ("--pdb",), 4, "pytest argument --pdb can't be used in a mesh"),
        (
            "import pytest\n@pytest.mark.requires(5)\ndef test_a(): ...",
            (),
            4,
            "test_x.py::test_a: marker requires(5) takes one string",
        ),
        ("import os\nos._exit(9)", (), 2, "the collecting process died: exit code 9"),
    ],
)
async def test_what_cannot_be_collected(
    tmp_path: Path, text: str, arguments: tuple[str, ...], code: int, words: str
) -> None:
    write(tmp_path, {"test_x.py": text})
    failed = await PytestRunner().collect(job(tmp_path, *arguments))
    assert isinstance(failed, CollectionFailed)
    assert (failed.exit_code, words in failed.output) == (code, True), failed.output
    assert code == 2 or "Traceback" not in failed.output


async def test_a_missing_interpreter_is_named(tmp_path: Path) -> None:
    failed = await PytestRunner().collect(job(tmp_path, python="/nowhere/python"))
    assert failed == CollectionFailed(4, f"can't start /nowhere/python in {tmp_path}: No such file or directory")


async def test_the_configuration_of_a_folder_above_is_not_taken(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "pytest.ini": "[pytest]\npython_files = none_*.py",
            "conftest.py": "raise RuntimeError",
            "tree/test_x.py": "def test_a(): ...",
        },
    )
    manifest = await collect(job(tmp_path / "tree"))
    assert [test.id for test in manifest.tests] == ["test_x.py::test_a"]
    assert sorted(path.name for path in (tmp_path / "tree").iterdir() if path.name != "__pycache__") == ["test_x.py"]


async def test_commands_are_not_collected(tmp_path: Path) -> None:
    runner = PytestRunner()
    each = await runner.collect(job(tmp_path, command="cat {}", files=("a", "b")))
    assert not isinstance(each, CollectionFailed)
    assert [(test.id, test.scope) for test in each.tests] == [("a", "a"), ("b", "b")]
    one = await runner.collect(job(tmp_path, command="make check", python=sys.executable))
    assert not isinstance(one, CollectionFailed)
    assert [test.id for test in one.tests] == ["make check"]


SKIPPING = 'import pytest\npytest.importorskip("nothing_of_that_name")\ndef test_never(): ...'


async def test_a_file_that_skips_itself_is_one_skipped_test(tmp_path: Path) -> None:
    """pytest's summary counts it so; another host may come to another end with it."""
    write(tmp_path, {"a/test_a.py": SKIPPING, "test_b.py": "def test_b(): ..."})
    ended = {record.test: record for record in await run_all(job(tmp_path))}
    assert {test: record.outcome for test, record in ended.items()} == {
        "a/test_a.py": Outcome.SKIPPED,
        "test_b.py::test_b": Outcome.PASSED,
    }
    record = ended["a/test_a.py"]
    assert record.message == "could not import 'nothing_of_that_name': No module named 'nothing_of_that_name'"
    assert "test_a.py:2: Skipped: could not import" in record.longrepr


async def test_nothing_stays_set_up_for_a_file_that_skips_itself(tmp_path: Path) -> None:
    """The folder `a` was kept for its second file; the test after that is in another folder."""
    fixture = "@pytest.fixture(scope='package', autouse=True)\ndef f():\n    yield\n    raise OSError('left')"
    files = {"a/__init__.py": "", "a/conftest.py": f"import pytest\n{fixture}", "a/test_1.py": "def test_1(): ..."}
    write(tmp_path, {**files, "a/test_2.py": SKIPPING, "b/test_3.py": "def test_3(): ..."})
    one = job(tmp_path, slots=1)
    items = sorted(work(await collect(one)), key=lambda item: item.id)
    async with PytestRunner().session(one) as session:
        session.submit(items)
        ended = {event.record.test: event.record for event in await take(session, 3)}
    assert {test: record.outcome for test, record in ended.items()} == {
        "a/test_1.py::test_1": Outcome.PASSED,
        "a/test_2.py": Outcome.ERROR,
        "b/test_3.py::test_3": Outcome.PASSED,
    }
    assert ended["a/test_2.py"].message == "failed on teardown with OSError: left"


async def test_files_that_skip_themselves_are_no_tests_alone(tmp_path: Path) -> None:
    write(tmp_path, {"test_a.py": SKIPPING})
    failed = await PytestRunner().collect(job(tmp_path))
    assert isinstance(failed, CollectionFailed)
    assert failed.exit_code == 5


@pytest.mark.parametrize("strict", ["addopts = --strict-config", "filterwarnings = error"])
async def test_a_suite_that_has_no_cache(tmp_path: Path, strict: str) -> None:
    """Then pytest knows no option of the cache, and strict suites take what is unknown for an error."""
    root = write(tmp_path, {"pytest.ini": f"[pytest]\n{strict}\n", "test_it.py": "def test_it(): pass\n"})
    manifest = await collect(job(root, "-p", "no:cacheprovider"))
    assert [test.id for test in manifest.tests] == ["test_it.py::test_it"]


async def test_parameters_that_are_paths_of_the_tree_are_named_alike_on_all_hosts(tmp_path: Path) -> None:
    text = """
        import pathlib, pytest
        here = pathlib.Path(__file__).parent

        @pytest.mark.parametrize("path", [str(here / "data" / "a.txt"), here, f"x:{here}/{'b' * 90}", "/elsewhere"])
        def test_it(path): assert "/" in str(path)
    """
    found = []
    for name in ("one", "another-longer-one"):
        manifest = await collect(job(write(tmp_path / name, {"sub/test_it.py": text})))
        found.append([test.id.partition("::")[2] for test in manifest.tests])
    assert found[0] == found[1]
    assert found[0][:2] == ["test_it[sub/data/a.txt]", "test_it[path1]"]
    assert found[0][3] == "test_it[/elsewhere]"

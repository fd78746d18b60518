"""What each test read, as real processes tell it: files, modules, directories, and what can't be compared later."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from runner_harness import collect, job, take, work, write

from mesh.worker.reading import SlotInputs
from mesh.worker.runner import PytestRunner

COMMON = {"pytest.ini": "[pytest]\n", "conftest.py": ""}


async def inputs_of(
    tree: Path, *arguments: str, slots: int = 1, runner: PytestRunner | None = None, **more: object
) -> dict[str, set[str]]:
    """Test (without its file) -> what it read; all of them must pass."""
    what = job(tree, *arguments, slots=slots, reads=True, **more)
    items = work(await collect(what, runner))
    async with (runner or PytestRunner()).session(what) as session:
        session.submit(items)
        found = await take(session, len(items))
    bad = [event.record.longrepr for event in found if event.record.outcome != "passed"]
    assert not bad, bad[0]
    return {event.record.test.rpartition("::")[2]: set(event.inputs or ()) for event in found}


def files(inputs: set[str]) -> set[str]:
    return {name.removeprefix("file:") for name in inputs if name.startswith("file:")}


def unseen(inputs: set[str]) -> set[str]:
    return {name.partition(":")[0] for name in inputs} & {"network", "files", "processes"}


async def suite(tmp_path: Path, tree: Mapping[str, str], *arguments: str, **more: object) -> dict[str, set[str]]:
    """The same, in the process that has collected, as on a node."""
    async with PytestRunner() as runner:
        return await inputs_of(write(tmp_path / "tree", {**COMMON, **tree}), *arguments, runner=runner, **more)


MODULES = {
    "lib/__init__.py": "",
    "lib/core.py": "from lib import deep\nfrom .other import VALUE",
    "lib/deep.py": "import json",
    "lib/other.py": "VALUE = 1",
    "lib/late.py": "import lib.deep",
    "lib/unused.py": "",
    "test_a.py": "import lib.core\ndef test_a(): ...",
    "test_b.py": """
        import pytest
        from lib.other import VALUE
        def test_b(): ...
        def test_late():
            import lib.late
        def test_later():
            from lib import late
        def test_named():
            import importlib
            importlib.import_module("lib.late")
        def test_missing():
            with pytest.raises(ImportError):
                import lib.missing
            with pytest.raises(ImportError):
                import numpy_but_newer
    """,
    "test_c.py": "def test_c(): ...",
}


@pytest.mark.parametrize("slots", [1, 2])
async def test_a_test_has_read_its_module_and_what_that_imports_and_no_other(tmp_path: Path, slots: int) -> None:
    found = await inputs_of(write(tmp_path, {**COMMON, **MODULES}), slots=slots)
    base = {"pytest.ini", "conftest.py"}
    lib = {"lib/__init__.py", "lib/other.py"}
    late = {"lib/late.py", "lib/deep.py"}
    assert files(found["test_a"]) == base | lib | {"test_a.py", "lib/core.py", "lib/deep.py"}
    assert files(found["test_b"]) == base | lib | {"test_b.py"}
    for name in ("test_late", "test_later", "test_named"):  # loaded once in each process, an input of each of them
        assert files(found[name]) >= base | lib | late | {"test_b.py"}
    assert files(found["test_c"]) == base | {"test_c.py"}
    assert {"name:lib", "name:json"} <= found["test_a"]
    assert {"name:missing", "name:numpy_but_newer"} <= found["test_missing"]
    assert not set().union(*map(unseen, found.values()))


DATA = {
    "data/a.txt": "a",
    "data/b.txt": "b",
    "data/sub/c.txt": "c",
    "reader.py": """
        import functools, pathlib
        HERE = pathlib.Path(__file__).parent
        TEXT = (HERE / "data/a.txt").read_text()
        def read(name):
            return (HERE / name).read_text()
        @functools.cache
        def cached():
            return read("data/b.txt")
    """,
    "test_data.py": """
        import os, pathlib, importlib.resources, pytest
        HERE = os.path.dirname(__file__)
        def test_relative(): assert open("data/a.txt").read() == "a"
        def test_elsewhere(monkeypatch):
            monkeypatch.chdir("data/sub")
            assert open("../b.txt", "rb").read() == b"b"
        def test_os():
            os.close(os.open(os.path.join(HERE, "data", "a.txt"), os.O_RDONLY))
        def test_path(): assert pathlib.Path(HERE, "data/sub/c.txt").read_text() == "c"
        def test_resource(): assert importlib.resources.files("pkg").joinpath("d.txt").read_text() == "d"
        def test_listing(): assert os.listdir("data")
        def test_globbing(): assert list(pathlib.Path("data").glob("*.txt"))
        def test_nothing(): ...
        def test_absent():
            with pytest.raises(FileNotFoundError):
                open("data/z.txt")
    """,
    "test_helper.py": """
        from reader import cached, read
        def test_plain(): read("data/sub/c.txt")
        def test_first(): cached()
        def test_second(): cached()
    """,
    "pkg/__init__.py": "",
    "pkg/d.txt": "d",
}


async def test_files_and_directories_however_they_are_reached(tmp_path: Path) -> None:
    found = await suite(tmp_path, DATA)
    base = {"pytest.ini", "conftest.py", "test_data.py"}
    assert files(found["test_relative"]) == base | {"data/a.txt"}
    assert files(found["test_elsewhere"]) == base | {"data/b.txt"}
    assert files(found["test_os"]) == base | {"data/a.txt"}
    assert files(found["test_path"]) == base | {"data/sub/c.txt"}
    assert files(found["test_resource"]) == base | {"pkg/__init__.py", "pkg/d.txt"}
    assert files(found["test_nothing"]) == base
    assert "list:data" in found["test_listing"] & found["test_globbing"]
    assert "none:data/z.txt" in found["test_absent"]
    assert not set().union(*map(unseen, found.values()))


async def test_what_an_import_read_and_what_a_cache_keeps_is_of_all_who_use_it(tmp_path: Path) -> None:
    found = await suite(tmp_path, DATA)
    base = {"pytest.ini", "conftest.py", "test_helper.py", "reader.py", "data/a.txt"}
    assert files(found["test_plain"]) == base | {"data/sub/c.txt"}
    assert files(found["test_first"]) == base | {"data/b.txt"}
    assert "data/b.txt" in files(found["test_second"]), "though the function was not called again"


async def test_a_tree_that_was_moved_with_its_bytecode_is_heard_as_before(tmp_path: Path) -> None:
    conftest = """
        import functools, pytest
        @functools.cache
        def kept():
            return open("data.txt").read()
        @pytest.fixture
        def data():
            return kept()
    """
    tests = "def test_first(data): ...\ndef test_second(data): ..."
    tree = write(tmp_path / "tree", {**COMMON, "conftest.py": conftest, "data.txt": "", "test_a.py": tests})
    variables = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONDONTWRITEBYTECODE": ""}
    await inputs_of(tree, variables=variables)
    for number in range(2):
        tree = tree.rename(tmp_path / f"moved-{number}")
        found = await inputs_of(tree, variables=variables)
        assert "data.txt" in files(found["test_second"])


FIXTURES = {
    "conftest.py": """
        import pytest
        @pytest.fixture(scope="session")
        def base(): return open("base.txt").read()
        @pytest.fixture(scope="module")
        def wide(base): return open("wide.txt").read()
        @pytest.fixture
        def narrow(): return open("narrow.txt").read()
    """,
    "base.txt": "",
    "wide.txt": "",
    "narrow.txt": "",
    "sub/conftest.py": "",
    "sub/test_under.py": "def test_under(): ...",
    "hooks/conftest.py": "def pytest_collection_modifyitems(items): ...",
    "test_fixtures.py": """
        def test_one(wide): ...
        def test_two(wide): ...
        def test_three(narrow): ...
        def test_four(request): request.getfixturevalue("base")
        def test_five(): ...
    """,
}


async def test_a_fixture_s_inputs_are_of_every_test_that_uses_it(tmp_path: Path) -> None:
    found = await suite(tmp_path, FIXTURES)
    base = {"pytest.ini", "conftest.py", "hooks/conftest.py"}  # whose hook concerns all tests
    own = base | {"test_fixtures.py"}
    assert files(found["test_one"]) == files(found["test_two"]) == own | {"base.txt", "wide.txt"}
    assert files(found["test_three"]) == own | {"narrow.txt"}
    assert files(found["test_four"]) == own | {"base.txt"}
    assert files(found["test_five"]) == own
    assert files(found["test_under"]) == base | {"sub/conftest.py", "sub/test_under.py"}


OUTSIDE = {
    "test_outside.py": """
        import os, pathlib, socket, sqlite3, subprocess, sys, tempfile, multiprocessing, shutil
        import pytest
        SOMEWHERE = os.environ["SOMEWHERE"]
        def test_fine(tmp_path):
            (tmp_path / "x").write_text("x")
            assert (tmp_path / "x").read_text() == "x"
            assert os.listdir(tmp_path)
            open("/dev/null").close()
            open("/proc/self/status").close()
            open(os.__file__).close()
            open(pytest.__file__).close()
            with tempfile.TemporaryDirectory() as folder:
                pathlib.Path(folder, "y").write_text("y")
                assert pathlib.Path(folder, "y").read_text() == "y"
                pathlib.Path(folder, "z").mkdir()
                pathlib.Path(folder, "z", "test_outside.py").write_text("")
            with tempfile.NamedTemporaryFile("w+") as file:
                file.write("z")
                open(file.name).close()
            sqlite3.connect(tmp_path / "db").close()
        def test_read(): open(SOMEWHERE).close()
        def test_list(): os.listdir(os.path.dirname(SOMEWHERE))
        def test_link(tmp_path):
            (tmp_path / "link").symlink_to(SOMEWHERE)
            (tmp_path / "link").read_text()
        def test_writes(): open("made.txt", "w").close()
        def test_removes(): os.remove("made.txt")
        def test_connects():
            with pytest.raises(OSError), socket.socket() as one:
                one.connect(("127.0.0.1", 9))
        def test_resolves(): socket.getaddrinfo("localhost", 80)
        def test_spawns(): subprocess.run([sys.executable, "-c", ""], check=True)
        def test_system(): os.system("true")
        def test_forks():
            pid = os.fork()
            if pid == 0:
                os._exit(0)
            os.waitpid(pid, 0)
        def test_own_link(tmp_path):
            (tmp_path / "link").symlink_to(os.path.abspath("inside.txt"))
            (tmp_path / "link").read_text()
    """,
    "inside.txt": "",
}


async def test_what_can_t_be_compared_later_is_told(tmp_path: Path) -> None:
    somewhere = tmp_path / "elsewhere" / "file.txt"
    write(tmp_path, {"elsewhere/file.txt": ""})
    variables = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "SOMEWHERE": str(somewhere)}
    found = await suite(tmp_path, OUTSIDE, variables=variables)
    assert unseen(found["test_fine"]) == set(), found["test_fine"]
    for name in ("test_read", "test_list", "test_link", "test_writes", "test_removes"):
        assert unseen(found[name]) == {"files"}, name
    assert unseen(found["test_connects"]) == unseen(found["test_resolves"]) == {"network"}
    for name in ("test_spawns", "test_system", "test_forks"):
        assert unseen(found[name]) == {"processes"}, name
    assert unseen(found["test_own_link"]) == set()
    assert "inside.txt" in files(found["test_own_link"])


async def test_what_a_package_of_the_environment_does_while_it_is_imported_is_a_part_of_it(tmp_path: Path) -> None:
    prefix = tmp_path / "prefix"  # its site-packages are made a part of the environment
    site = prefix / "lib" / f"python{sys.version_info[0]}.{sys.version_info[1]}" / "site-packages"
    write(tmp_path, {"elsewhere/cache.txt": ""})
    package = """
        import os, subprocess, sys
        def look():
            open(os.environ["SOMEWHERE"]).close()
            subprocess.run([sys.executable, "-c", ""], check=True)
        look()
    """
    write(site, {"fontish.py": package, "sitecustomize.py": f"import site\nsite.PREFIXES.append({str(prefix)!r})"})
    tree = {
        "test_a.py": "import fontish\ndef test_imports(): ...",
        "test_b.py": "import fontish\ndef test_calls(): fontish.look()",
    }
    variables = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(site)}
    variables["SOMEWHERE"] = str(tmp_path / "elsewhere/cache.txt")
    found = await suite(tmp_path, tree, variables=variables)
    assert unseen(found["test_imports"]) == set()
    assert unseen(found["test_calls"]) == {"files", "processes"}


async def test_without_being_asked_nothing_is_told_and_imports_are_python_s_own(tmp_path: Path) -> None:
    tree = {"test_a.py": "import builtins\ndef test(): assert type(builtins.__import__).__name__.startswith('builtin')"}
    what = job(write(tmp_path / "tree", tree))
    items = work(await collect(what))
    async with PytestRunner().session(what) as session:
        session.submit(items)
        (event,) = await take(session, 1)
    assert (event.record.outcome, event.inputs) == ("passed", None)


async def test_a_warning_is_told_of_who_imports(tmp_path: Path) -> None:
    tree = {
        "old.py": "import warnings\nwarnings.warn('old is old', DeprecationWarning, stacklevel=2)",
        "test_a.py": """
            import warnings
            def test():
                with warnings.catch_warnings(record=True) as told:
                    warnings.simplefilter("always")
                    import old
                assert [warning.filename for warning in told] == [__file__]
        """,
    }
    await suite(tmp_path, tree)


def test_junk_from_a_slot_is_refused() -> None:
    inputs = SlotInputs()
    for junk in (
        {"key": 1, "set": 0, "names": [7], "numbers": []},
        {"key": 1, "set": 0, "names": ["no kind"], "numbers": [0]},
        {"key": 1, "set": 0, "names": ["file:a"], "numbers": [1]},
        {"key": "x", "set": 0},
    ):
        with pytest.raises(ValueError, match=r"invalid|words|not there"):
            inputs.hear(json.loads(json.dumps(junk)))
    inputs.hear({"key": 1, "set": 3, "names": ["file:b"], "numbers": [1]})
    inputs.hear({"key": 2, "set": 3})
    assert (inputs.take(1), inputs.take(2), inputs.take(2)) == (None, ("file:b",), None)

"""`pytest --mesh` beside plain pytest, on one real node: the same outcomes, summaries, junit.xml and exit codes."""

import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

import pytest

import mesh.pytest_plugin
from mesh.cli.companion import companion
from mesh.worker.pytest_side import wire
from tests.worker.runner_harness import write

pytestmark = [pytest.mark.processes, pytest.mark.timeout(180)]

SECONDS_MAX = 120.0

ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "MESH_"))},
    "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    "PYTEST_PLUGINS": "mesh.pytest_plugin",
    "COLUMNS": "100",
}

MANY = {
    "pytest.ini": "[pytest]\njunit_family = xunit1\naddopts = -rA -p no:cacheprovider\n",
    "tests/test_many.py": """
        import logging, sys, unittest, warnings
        import pytest

        @pytest.fixture
        def noisy():
            print("in set-up")
            yield 3
            print("in teardown", file=sys.stderr)

        @pytest.fixture
        def bad_setup():
            raise RuntimeError("no set-up")

        @pytest.fixture
        def bad_teardown():
            yield
            raise ValueError("no teardown")

        class TestClass:
            def test_method(self, noisy):
                print("hello")
                logging.getLogger("here").warning("logged %d", noisy)

            @pytest.mark.parametrize("x", ["a::b", "c d", "é"])
            def test_param(self, x):
                assert x != "c d", "words"

        def test_setup(bad_setup): pass
        def test_teardown(bad_teardown): pass
        def test_both(bad_teardown): assert 0
        @pytest.mark.skip(reason="not now")
        def test_skip(): pass
        def test_skip_inside(): pytest.skip("inside")
        @pytest.mark.xfail(reason="known")
        def test_xfail(): assert 0
        @pytest.mark.xfail
        def test_xpass(): pass
        @pytest.mark.xfail(strict=True, reason="strict")
        def test_strict(): pass
        def test_properties(record_property):
            record_property("a", 1)
            record_property("b", "two")
        def test_warns():
            warnings.warn("look out", UserWarning)
        def test_chain():
            try:
                1 / 0
            except ZeroDivisionError as e:
                raise ValueError("chained") from e
        class TestUnit(unittest.TestCase):
            def test_one(self): self.assertEqual(1, 2)
            def test_subs(self):
                for i in range(3):
                    with self.subTest(i=i):
                        self.assertNotEqual(i, 1)
    """,
    "tests/sub/test_skipped.py": "import pytest\npytest.skip('whole module', allow_module_level=True)\n",
    "tests/sub/base_of_tests.py": "class Base:\n    def test_base(self): pass\n    def test_fails(self): assert 0\n",
    "tests/sub/test_import.py": """
        import warnings
        warnings.warn("at import")
        from base_of_tests import Base
        class TestInherited(Base): pass
    """,
}


@dataclass(frozen=True)
class Ended:
    code: int
    out: str

    def summary(self) -> str:
        """The last line, without its time."""
        return re.sub(r" in [0-9.]+s.*", "", self.out.strip().splitlines()[-1]).strip("= ")

    def lines(self, *beginnings: str) -> list[str]:
        return sorted(line for line in self.out.splitlines() if line.startswith(beginnings))


Run = Callable[..., Ended]


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The home of a node with two slots."""
    home = tmp_path_factory.mktemp("node")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
        with companion(home, 2):
            yield home


@pytest.fixture
def run(tmp_path: Path, node: Path) -> Run:
    """`pytest …` in the suite."""

    def run(*words: object) -> Ended:
        command = [sys.executable, "-m", "pytest", *map(str, words)]
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env={**ENVIRONMENT, "MESH_HOME": str(node)},
            text=True,
            stdout=-1,
            stderr=-2,
            timeout=SECONDS_MAX,
            check=False,
        )
        return Ended(done.returncode, done.stdout)

    return run


def junit(path: Path) -> tuple[dict[str, str], list[str]]:
    """The suite's numbers, and its cases in order of name; without times, hosts and addresses of objects."""
    suite = ElementTree.parse(path).getroot()[0]
    for element in suite.iter():
        for name in ("time", "timestamp", "hostname"):
            element.attrib.pop(name, None)
    cases = [re.sub("0x[0-9a-f]+", "0x", ElementTree.tostring(case, "unicode")) for case in suite]
    return dict(suite.attrib), sorted(cases)


def test_as_if_the_tests_ran_here(run: Run, tmp_path: Path) -> None:
    write(tmp_path, MANY)
    say = "import sys\ndef pytest_sessionfinish():\n    print('\\nLOADED', {'trio', 'mesh.cli'} & set(sys.modules))\n"
    (tmp_path / "conftest.py").write_text(say)
    plain = run("--junitxml", "plain.xml")
    there = run("--mesh", "--junitxml", "mesh.xml")
    assert (plain.code, there.code) == (1, 1)
    assert "LOADED set()" in plain.out
    assert there.summary() == plain.summary()
    said = ("PASSED", "FAILED", "ERROR", "SKIPPED", "XFAIL", "XPASS", "SUBFAIL", "collected")
    assert there.lines(*said) == plain.lines(*said)
    assert there.lines("E  ") == plain.lines("E  ")
    assert junit(tmp_path / "mesh.xml") == junit(tmp_path / "plain.xml")


@pytest.mark.parametrize("limit", ["-x", "--maxfail=2"])
def test_nothing_starts_after_the_limit(run: Run, tmp_path: Path, limit: str) -> None:
    text = """
        import pathlib, time
        import pytest

        @pytest.mark.parametrize("i", range(100))
        def test_one(i):
            time.sleep(0.03)
            (pathlib.Path({folder!r}) / str(i)).touch()
            assert i not in (3, 5, 9, 12)
    """
    folder = tmp_path.parent / (tmp_path.name + "-started")
    folder.mkdir()
    write(tmp_path, {"pytest.ini": MANY["pytest.ini"], "test_limit.py": dedent(text).format(folder=str(folder))})
    ended = run("--mesh", limit)
    number = 1 if limit == "-x" else 2
    assert ended.code == 1
    assert f"stopping after {number} failures" in ended.out
    assert re.match(rf"{number} failed, \d+ passed", ended.summary())
    assert len(ended.lines("FAILED")) == number
    assert len(list(folder.iterdir())) < 40


def test_collection_errors(run: Run, tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "pytest.ini": MANY["pytest.ini"],
            "test_broken.py": "import no_such_module\n",
            "test_syntax.py": "def test(:\n",
            "test_good.py": "def test_a(): pass\n",
        },
    )
    plain = run("--junitxml", "plain.xml")
    there = run("--mesh", "--junitxml", "mesh.xml")
    assert (plain.code, there.code) == (2, 2)
    assert there.summary() == plain.summary()
    assert there.lines("ERROR", "E  ", "collected", "!!!") == plain.lines("ERROR", "E  ", "collected", "!!!")
    assert junit(tmp_path / "mesh.xml") == junit(tmp_path / "plain.xml")


def test_last_failed(run: Run, tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "pytest.ini": "[pytest]\naddopts = -q -q -ra --mesh-hedge\n",
            "test_some.py": "def test_good(): pass\ndef test_bad(): assert 0\n",
            "test_broken.py": "import no_such_module\n",
        },
    )
    here = ("--mesh",)
    assert run(*here).code == 2
    (tmp_path / "test_broken.py").write_text("def test_mended(): pass\n")
    assert run(*here).summary().startswith("FAILED test_some.py::test_bad")
    again = run(*here, "--lf", "-v", "-v", "-v")
    assert "run-last-failure: rerun previous 1 failure" in again.out
    assert "collected 3 items / 2 deselected / 1 selected" in again.out
    (tmp_path / "test_some.py").write_text("def test_good(): pass\ndef test_bad(): pass\n")
    assert run(*here, "--lf").code == 0
    assert json.loads((tmp_path / ".pytest_cache/v/cache/lastfailed").read_text()) == {}


def test_a_crash_is_an_error_and_no_more(run: Run, tmp_path: Path) -> None:
    text = """
        import os
        def test_dies():
            print('last words', flush=True)
            os.kill(os.getpid(), 9)
        def test_b(): pass
    """
    write(tmp_path, {"pytest.ini": MANY["pytest.ini"], "test_crash.py": text})
    ended = run("--mesh", "--durations=1")
    assert ended.code == 1
    assert ended.summary() == "1 passed, 1 error"
    assert "ERROR test_crash.py::test_dies - the test process died: SIGKILL" in ended.out
    assert "last words" in ended.out


def test_errors_after_the_last_test_count(run: Run, node: Path, tmp_path: Path) -> None:
    """Here every slot has the fixture, where serial pytest has it once: so there may be two of them."""
    fixture = """
        import pytest

        @pytest.fixture(scope="session", autouse=True)
        def database():
            yield
            raise RuntimeError("the database is gone")
    """
    write(tmp_path, {"conftest.py": fixture, "test_it.py": "def test_it():\n    pass\n"})
    plain, there = run("--junitxml", "plain.xml"), run("--mesh", "--junitxml", "mesh.xml")
    assert (plain.code, there.code) == (1, 1)
    assert plain.summary() == there.summary() == "1 passed, 1 error"
    assert there.lines("E  ") == plain.lines("E  ")
    for line in (*plain.lines("ERROR "), *there.lines("ERROR ")):
        assert line.endswith(" - RuntimeError: the database is gone")
    assert {junit(tmp_path / f"{name}.xml")[0]["errors"] for name in ("plain", "mesh")} == {"1"}
    command = [sys.executable, "-m", "mesh", "run", str(tmp_path), "--home", str(node), "--report-dir", "report"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=SECONDS_MAX, check=False)
    assert done.returncode == 1
    assert "RuntimeError: the database is gone" in done.stdout
    assert "failed: 1 error in fixtures torn down after the last test, on" in done.stdout
    document = json.loads((tmp_path / "report" / "report.json").read_text())
    assert (document["exit_code"], document["counts"]["passed"], document["counts"]["error"]) == (1, 1, 0)
    assert junit(tmp_path / "report" / "junit.xml")[0]["errors"] == "1"


def test_what_passed_in_a_second_try_is_told(run: Run, tmp_path: Path) -> None:
    text = """
        import pathlib
        def test_unsure():
            pathlib.Path({told!r}).open("a").write("x")
            assert pathlib.Path({told!r}).read_text() != "x"
        def test_sure(): pass
    """
    told = str(tmp_path.parent / (tmp_path.name + "-tries"))
    write(tmp_path, {"pytest.ini": MANY["pytest.ini"], "test_tries.py": dedent(text).format(told=told)})
    ended = run("--mesh", "--mesh-retries=1", "--mesh-hedge")
    assert (ended.code, ended.summary()) == (0, "2 passed")
    assert "= tried again =" in ended.out
    (line,) = ended.lines("FLAKY")
    assert re.fullmatch(r"FLAKY test_tries.py::test_unsure - failed on (\S+), passed on \1", line)
    (tmp_path / "pytest.ini").write_text(f"{MANY['pytest.ini']}  --mesh-report=html:out/page.html\n")
    ended = run("--mesh", "--mesh-report=markdown:out/summary.md")
    assert "tried again" not in ended.out
    assert f"markdown report: {tmp_path}/out/summary.md" in ended.out
    assert "2 passed" in (tmp_path / "out" / "summary.md").read_text()
    assert (tmp_path / "out" / "page.html").exists()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--mesh-requires", "gpu >>"], 4, "--requires"),
        (["--mesh-priority", "101"], 4, "--mesh-priority 101"),
        (["--mesh-env", "conda"], 4, "--mesh-env 'conda' is none of ambient, uv"),
        (["--mesh-python", "twelve"], 4, "'twelve' is neither a version of Python"),
        (["--mesh-slots", "none"], 4, "--mesh-slots"),
        (["--pdb"], 4, "--pdb needs the tests in this process"),
        (["test_none.py"], 4, "file or directory not found: test_none.py"),
        (["-k", "nothing"], 5, "1 deselected"),
        (["--collect-only"], 0, "test_a.py::test_a"),
    ],
)
def test_other_ends(run: Run, tmp_path: Path, words: list[str], code: int, said: str) -> None:
    files = {"pytest.ini": "[pytest]\naddopts = -p no:cacheprovider -q\n"}
    write(tmp_path, {**files, "test_a.py": "def test_a(): pass\n"})
    ended = run("--mesh", *words)
    assert ended.code == code, ended.out
    assert said in ended.out
    assert "Traceback" not in ended.out


def test_slots_know_the_clients_options() -> None:
    source = Path(wire.__file__).with_name("plugin.py").read_text()
    named = re.search(r"CLIENT_OPTIONS = \((.*?)\)", source, re.DOTALL)
    assert named is not None
    assert re.findall(r'"([a-z-]+)"', named[1]) == [name for name, *_ in mesh.pytest_plugin.OPTIONS]


def test_retry(node: Path, tmp_path: Path) -> None:
    def command(*words: str) -> tuple[int, list[dict[str, object]]]:
        done = subprocess.run(
            [sys.executable, "-m", "mesh", *words, "--home", str(node), "--json"],
            cwd=tmp_path,
            env=ENVIRONMENT,
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
            check=False,
        )
        return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]

    write(
        tmp_path,
        {"pytest.ini": "[pytest]\n", "test_a.py": "def test_a(): pass\ndef test_b(): assert 0\n"},
    )
    code, events = command("run")
    assert code == 1
    code, again = command("retry", str(events[0]["run"]))
    assert code == 1
    assert [event["test"] for event in again if event["event"] == "verdict"] == ["test_a.py::test_b"]
    assert again[-1]["tests"] == 1
    assert again[-1]["bundle"] == events[-1]["bundle"]


def test_coverage_is_that_of_the_workers(run: Run, tmp_path: Path) -> None:
    text = "def f(x):\n    if x:\n        return 1\n    return 2\n"
    write(
        tmp_path,
        {
            "pytest.ini": "[pytest]\naddopts = -p no:cacheprovider -p pytest_cov.plugin\n",
            "lib.py": text,
            "test_lib.py": "import lib\ndef test_a(): assert lib.f(1) == 1\n",
        },
    )
    asked = ("--cov=.", "--cov-report=term-missing")
    plain, there = run(*asked), run("--mesh", *asked)
    assert (there.code, there.summary()) == (0, "1 passed")
    assert there.lines("lib.py", "TOTAL") == plain.lines("lib.py", "TOTAL")
    assert "75%" in there.out

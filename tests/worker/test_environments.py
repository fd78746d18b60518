"""Real environments, built by the real uv from wheels that need no index, and the processes that run in them."""

import dataclasses
import json
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import trio
from runner_harness import gone, job, run, write
from wheelhouse import pack, uv_variables, write_wheel

from mesh.hardware.python import installed
from mesh.hardware.uv import find_uv
from mesh.worker import environments
from mesh.worker.environments import META, Environment, Environments
from mesh.worker.uv import BuildFailed, HostFailed
from protocols.errors import MeshFailed, NoCapableWorker, UsageError
from protocols.ids import Cid, PeerId
from protocols.manifests import Outcome, RunSpec

SPEC = RunSpec(Cid("bafybundle"), "tree", "project", PeerId("client"), environment="uv")
PROJECT = '[project]\nname = "demo"\nversion = "1.2"\n'
LOCK = 'version = 1\nrevision = 3\nrequires-python = ">=3.99"\n'


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """pytest and what it needs, and `hello`, which needs nothing; with uv's cache beside them."""
    folder = pack(tmp_path_factory.mktemp("uv") / "wheels")
    write_wheel(folder, "hello-3.1", {"hello.py": b"WORD = 'hello'\n"})
    write_wheel(folder, "pytest-7.3.2", {"pytest.py": b""})
    return folder


@pytest.fixture(autouse=True)
def configured(wheels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in uv_variables(wheels, wheels.parent / "cache").items():
        monkeypatch.setenv(name, text)


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "home" / "environments"


def store(kept: Path, uv: str | None = None) -> Environments:
    return Environments(kept, dict, lambda: uv or find_uv())


def logging_uv(tmp_path: Path, after: str = "") -> str:
    """uv that notes its calls in a file first, and may never come to an end."""
    path = tmp_path / "uv"
    after = after or f'exec {find_uv()} "$@"'
    path.write_text(f'#!/bin/sh\necho "$$ $*" >> {tmp_path}/calls\n{after}\n')
    path.chmod(0o755)
    return str(path)


def calls(tmp_path: Path) -> list[list[str]]:
    path = tmp_path / "calls"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


async def until(path: Path) -> None:
    with trio.fail_after(30):
        while not (path.exists() and path.read_bytes()):  # noqa: ASYNC110 - another process writes it
            await trio.sleep(0.01)


async def make(environments: Environments, root: Path, spec: RunSpec = SPEC) -> Environment:
    async with environments.hold(spec, root) as environment:
        return environment


async def test_a_suite_runs_in_what_its_requirements_say(tmp_path: Path, kept: Path) -> None:
    root = write(
        tmp_path / "tree",
        {
            "requirements.txt": "hello\n-r more/extra.txt\n",
            "more/extra.txt": "pytest\n",
            "test_x.py": """
                import os, subprocess, sys, hello
                def test_where():
                    assert hello.WORD == "hello"
                    assert sys.prefix == os.environ["VIRTUAL_ENV"]
                def test_path():
                    said = subprocess.check_output(["python", "-c", "import sys; print(sys.prefix)"], text=True)
                    assert said.strip() == sys.prefix
                def test_nothing_shows_through():
                    try:
                        import trio
                    except ImportError:
                        return
                    raise AssertionError(trio)
            """,
        },
    )
    async with store(kept).hold(SPEC, root) as environment:
        assert (environment.kind, environment.python) == ("uv", str(kept / environment.digest / "bin" / "python"))
        assert {"hello 3.1", f"pytest {pytest.__version__}"} <= set(environment.distributions)
        variables = {**dict(environment.variables), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        records = await run(job(root, python=environment.python, variables=variables))
    assert {name: record.outcome for name, record in records.items()} == dict.fromkeys(
        ("test_where", "test_path", "test_nothing_shows_through"), Outcome.PASSED
    ), [record.longrepr for record in records.values()]


async def test_it_is_built_once(tmp_path: Path, kept: Path) -> None:
    """By two runs at once, and by a later one of a node that has been started again."""
    root = write(tmp_path / "tree", {"requirements.txt": "pytest\n"})
    uv = logging_uv(tmp_path)
    one, found = store(kept, uv), []

    async def prepare(spec: RunSpec) -> None:
        found.append(await make(one, root, spec))

    async with trio.open_nursery() as nursery:
        for bundle in ("bafyone", "bafytwo"):  # the tree is no part of it
            nursery.start_soon(prepare, dataclasses.replace(SPEC, bundle=Cid(bundle)))
    found.append(await make(store(kept, uv), root))
    assert found[0] == found[1] == found[2]
    assert [words[1] for words in calls(tmp_path)] == ["venv", "pip"]
    (root / "requirements.txt").write_text("pytest\nhello\n")
    assert (await make(one, root)).digest != found[0].digest


async def test_a_project_and_its_groups_without_a_lock(tmp_path: Path, kept: Path) -> None:
    mesh = '[tool.mesh]\ngroups = ["checks"]\n'
    groups = '[dependency-groups]\ndev = ["no-such-thing"]\nchecks = ["pytest", "hello"]\n'
    root = write(tmp_path / "tree", {"pyproject.toml": f"{PROJECT}{groups}{mesh}"})
    environment = await make(store(kept), root)
    assert {line.split()[0] for line in environment.distributions} >= {"pytest", "hello"}


async def test_a_lock_is_kept_to(tmp_path: Path, kept: Path, wheels: Path) -> None:
    """And one that does not fit, or can't be read, is the suite's fault, in uv's words."""
    platforms = "[tool.uv]\nenvironments = [\"sys_platform != 'win32'\"]\n"
    project = f'{PROJECT}requires-python = ">=3.11"\n{platforms}[dependency-groups]\ndev = ["pytest", "hello"]\n'
    root = write(tmp_path / "tree", {"pyproject.toml": project})
    await trio.run_process([str(find_uv()), "lock", "--python", sys.executable], cwd=root, capture_stderr=True)
    one = store(kept)
    assert "hello 3.1" in (await make(one, root)).distributions
    (root / "pyproject.toml").write_text(project.replace("hello", "hello>=3"))
    with pytest.raises(BuildFailed, match=r"the uv environment can't be built: .*uv\.lock") as outdated:
        await make(one, root)
    assert str(root) not in str(outdated.value)
    (root / "uv.lock").write_text("no lock at all")
    with pytest.raises(BuildFailed, match=r"can't be built: Failed to parse.*uv\.lock") as broken:
        await make(one, root)
    assert "TOML" in broken.value.output
    assert len(list(kept.iterdir())) == 1


async def test_a_tree_that_is_installed_has_its_own(tmp_path: Path, kept: Path) -> None:
    """An environment points into the tree that is installed in it: another bundle, another environment."""
    backend = """
        def get_requires_for_build_editable(settings=None): return []
        def build_editable(folder, settings=None, metadata=None):
            import os, sys
            sys.path.insert(0, "tools")
            from wheelhouse import write_wheel
            from pathlib import Path
            write_wheel(Path(folder), "demo-1.2", {"demo.pth": os.getcwd().encode()})
            return "demo-1.2-py3-none-any.whl"
    """
    built = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    found = {}
    one = store(kept)
    for bundle in ("bafyone", "bafytwo"):
        root = write(
            tmp_path / bundle,
            {
                "pyproject.toml": f'{PROJECT}{built}[dependency-groups]\ndev = ["pytest"]\n',
                "backend.py": backend,
                "tools/wheelhouse.py": Path(__file__).with_name("wheelhouse.py").read_text(),
                "demo.py": f"WORD = {bundle!r}",
                "tests/test_x.py": f"import demo\ndef test_word(): assert demo.WORD == {bundle!r}",
            },
        )
        async with one.hold(dataclasses.replace(SPEC, bundle=Cid(bundle)), root) as environment:
            word = [environment.python, "-c", "import demo; print(demo.WORD)"]
            said = await trio.run_process(word, cwd=tmp_path, capture_stdout=True)
            assert said.stdout.decode().strip() == bundle
            found[bundle] = kept / environment.digest
    await one.forget(Cid("bafyone"))
    assert {bundle: path.exists() for bundle, path in found.items()} == {"bafyone": False, "bafytwo": True}


@pytest.mark.parametrize(
    ("files", "sentence"),
    [
        ({"requirements.txt": "hello"}, "the suite's uv environment has no pytest: add it"),
        ({"requirements.txt": "pytest==7.3.2"}, "has pytest 7.3.2, which is older than 7.4: add"),
        ({"requirements.txt": "hello==9"}, "can't be built: No solution found .* hello==9"),
        ({"requirements.txt": "-r gone.txt"}, "the requirement file gone.txt is not in the tree"),
        ({"pyproject.toml": "[tool.mesh]\ngroups = 5"}, r"groups in \[tool.mesh\] of pyproject.toml must be a list"),
        ({"pyproject.toml": "no toml"}, "pyproject.toml can't be read"),
        ({"pyproject.toml": "[tool.ruff]"}, "finds nothing to install"),
    ],
)
async def test_what_is_wrong_is_said_in_one_sentence(
    tmp_path: Path, kept: Path, files: dict[str, str], sentence: str
) -> None:
    with pytest.raises(UsageError, match=sentence) as told:
        await make(store(kept), write(tmp_path / "tree", files))
    assert told.value.exit_code == 4
    assert "\n" not in str(told.value)


async def test_a_command_needs_no_pytest(tmp_path: Path, kept: Path) -> None:
    root = write(tmp_path / "tree", {"requirements.txt": "hello\n"})
    environment = await make(store(kept), root, dataclasses.replace(SPEC, command="python -c 'import hello'"))
    records = await run(job(root, command="python -c 'import hello'", variables=dict(environment.variables)))
    assert [record.outcome for record in records.values()] == [Outcome.PASSED]


async def test_without_the_network_it_is_the_hosts_fault_unless_the_cache_has_all(
    tmp_path: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("UV_OFFLINE")
    monkeypatch.delenv("UV_NO_INDEX")
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    root = write(tmp_path / "tree", {"requirements.txt": "only-on-an-index\n"})
    with pytest.raises(HostFailed, match="can't be built") as failed:
        await make(store(kept), root)
    assert failed.value.exit_code == 12
    assert not list(kept.iterdir())
    (root / "requirements.txt").write_text("hello\n")
    fails_once = f'case "$*" in *--offline*|venv*) exec {find_uv()} "$@";; esac; echo error: Failed to fetch; exit 2'
    await make(store(kept, logging_uv(tmp_path, fails_once)), root, dataclasses.replace(SPEC, command="true"))
    assert [words[-1] == "--offline" for words in calls(tmp_path)] == [False, False, True]


@pytest.mark.parametrize("lock", [True, False])
async def test_a_project_for_another_python_may_go_to_another_host(tmp_path: Path, kept: Path, lock: bool) -> None:
    newer = f'{PROJECT}requires-python = ">=3.99"\ndependencies = ["hello"]\n[build-system]\nrequires = []\n'
    root = write(tmp_path / "tree", {"pyproject.toml": newer, "demo.py": "", **({"uv.lock": LOCK} if lock else {})})
    with pytest.raises(HostFailed, match=r"3\.99") as failed:
        await make(store(kept), root)
    assert failed.value.exit_code == 10


async def test_a_build_that_is_cancelled_leaves_nothing(tmp_path: Path, kept: Path) -> None:
    root = write(tmp_path / "tree", {"requirements.txt": "pytest\n"})
    one = store(kept, logging_uv(tmp_path, "exec sleep 1000"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(make, one, root)
        await until(tmp_path / "calls")
        nursery.cancel_scope.cancel()
    assert not list(kept.iterdir())
    assert await gone(int(calls(tmp_path)[0][0]))


async def test_a_disk_that_fails_is_the_hosts_fault(tmp_path: Path, kept: Path) -> None:
    kept.parent.mkdir()
    kept.write_text("in the way")
    root = write(tmp_path / "tree", {"requirements.txt": "pytest\n"})
    with pytest.raises(MeshFailed, match=r"can't be built: .*environments: "):
        await make(store(kept), root)


async def test_a_build_has_an_end(tmp_path: Path, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "BUILD_SECONDS_MAX", 0.5)
    root = write(tmp_path / "tree", {"requirements.txt": "pytest\n"})
    with pytest.raises(MeshFailed, match="took longer than"):
        await make(store(kept, logging_uv(tmp_path, "exec sleep 1000")), root)
    assert not list(kept.iterdir())


KILLED = """
import sys, trio
from pathlib import Path
from mesh.worker.environments import Environments
from protocols.manifests import RunSpec

async def main(kept, root, uv):
    spec = RunSpec("b", "n", "p", "x", environment="uv")
    async with Environments(Path(kept), dict, lambda: uv).hold(spec, Path(root)):
        pass

trio.run(main, *sys.argv[1:])
"""


async def test_a_killed_node_leaves_nothing_half_made(tmp_path: Path, kept: Path) -> None:
    root = write(tmp_path / "tree", {"requirements.txt": "pytest\n"})
    half = f'test "$1" = venv && {find_uv()} "$@"; echo > {tmp_path}/half; exec sleep 1000'
    async with trio.open_nursery() as nursery:
        command = [sys.executable, "-c", KILLED, str(kept), str(root), logging_uv(tmp_path, half)]
        node: trio.Process = await nursery.start(partial(trio.run_process, command, check=False))
        await until(tmp_path / "half")
        node.send_signal(signal.SIGKILL)
    (left,) = kept.iterdir()
    assert left.name.startswith(".")
    if sys.platform.startswith("linux"):
        assert await gone(int(calls(tmp_path)[-1][0]))
    (kept / "0123").mkdir()  # folders that a crash of the host cut short
    (kept / "4567").mkdir()
    (kept / "4567" / META).touch()
    again = store(kept)
    assert not list(kept.iterdir())
    assert Path((await make(again, root)).python).exists()


def fabricate(kept: Path, name: str, idle: float, size: int = 1) -> Path:
    home = kept / name
    home.mkdir(parents=True)
    (home / META).write_text(json.dumps({"bytes": size, "bundle": ""}))
    then = time.time() - idle
    os.utime(home / META, (then, then))
    return home


async def test_old_ones_are_removed_but_never_those_in_use(
    tmp_path: Path, kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environments, "ENVIRONMENTS_MAX", 4)
    monkeypatch.setattr(environments, "BYTES_MAX", 2**30)
    hour = 3600.0
    root = write(tmp_path / "tree", {"requirements.txt": "pytest\n"})
    one = store(kept)
    async with one.hold(SPEC, root) as used:
        then = time.time() - 900 * hour
        os.utime(kept / used.digest / META, (then, then))
        for name, idle in (("resting", 0.01), ("new", 1), ("newer", 0.5), ("third", 2), ("fourth", 3)):
            fabricate(kept, name, idle * hour)
        fabricate(kept, "ancient", 400 * hour)
        fabricate(kept, "huge", 0.7 * hour, size=2**31)
        (root / "requirements.txt").write_text("pytest\nhello\n")
        other = await make(one, root)
        left = {path.name for path in kept.iterdir()}
    assert left == {other.digest, used.digest, "resting", "newer", "new"}


async def test_the_nodes_own_python_is_taken_as_it_is(tmp_path: Path, kept: Path) -> None:
    for python in ("", f"{sys.version_info[0]}.{sys.version_info[1]}", sys.executable):
        own = await make(store(kept), tmp_path, dataclasses.replace(SPEC, environment="ambient", python=python))
        assert (own.kind, own.python, own.variables) == ("ambient", sys.executable, ())
        assert f"pytest {pytest.__version__}" in own.distributions
    assert not kept.exists()


async def test_another_python_must_be_there_and_have_pytest(tmp_path: Path, kept: Path) -> None:
    """Else others may have it: the worker gives the run back, and a run that nobody can take ends with code 10."""
    bare = tmp_path / "bare"
    await trio.run_process([str(find_uv()), "venv", "-q", "--python", sys.executable, str(bare)])
    found = {"3.7.16": Path("/old"), "3.99.1": bare / "bin" / "python", "3.99.0": Path("/other")}
    one = Environments(kept, lambda: found, find_uv)

    async def refused(python: str) -> str:
        with pytest.raises(NoCapableWorker) as told:
            await make(one, tmp_path, dataclasses.replace(SPEC, environment="ambient", python=python))
        return str(told.value)

    assert await refused("/nowhere/python") == "has no interpreter /nowhere/python"
    assert await refused("3.98") == "has no Python 3.98 (it has 3.7.16, 3.99.1, 3.99.0)"
    (tmp_path / "liar").write_text("#!/bin/sh\necho '{}'\n")
    (tmp_path / "liar").chmod(0o755)
    assert await refused(str(tmp_path / "liar")) == f"its interpreter {tmp_path}/liar does not work: ValueError"
    assert await refused("3.99.0") == "its interpreter /other does not work: FileNotFoundError"
    assert "has no pytest" in await refused(str(bare / "bin" / "python"))
    spec = dataclasses.replace(SPEC, environment="ambient", python="3.99.1", command="true")
    named = await make(one, tmp_path, spec)
    assert (named.python, named.version) == (str(bare / "bin" / "python"), sys.version.split()[0])
    with pytest.raises(NoCapableWorker, match="has no uv"):
        await make(Environments(kept, dict, lambda: None), write(tmp_path / "t", {"requirements.txt": "pytest"}))


async def test_a_suite_runs_under_another_python(tmp_path: Path, kept: Path) -> None:
    """The newest that is here, which is the node's own where there is no other."""
    others = {version: path for version, path in installed().items() if int(version.split(".")[1]) >= 10}
    version = next(reversed(others), sys.version.split()[0])
    root = write(
        tmp_path / "tree",
        {
            "requirements.txt": "pytest\n",
            "test_x.py": """
                import os, platform, pytest
                def test_version(): assert platform.python_version() == os.environ["WANTED"]
                def test_fails(): assert 1 == 2
                def test_crashes(): os.abort()
                @pytest.mark.parametrize("n", range(20))
                def test_many(n, worker_id, tmp_path, mesh_artifacts): (mesh_artifacts / "x").write_text(worker_id)
            """,
        },
    )
    spec = dataclasses.replace(SPEC, python=version)
    async with Environments(kept, installed, find_uv).hold(spec, root) as environment:
        assert environment.version == version
        variables = {**dict(environment.variables), "WANTED": version}
        records = await run(job(root, python=environment.python, variables=variables))
    outcomes = [records[f"test_{name}"].outcome for name in ("version", "fails", "crashes")]
    assert outcomes == [Outcome.PASSED, Outcome.FAILED, Outcome.ERROR], [each.longrepr for each in records.values()]
    assert {records[f"test_many[{n}]"].outcome for n in range(20)} == {Outcome.PASSED}

"""Wrong inputs and missing parts, against real nodes: one sentence, the exit code that interface.md gives, no run.

`tests/cli/test_cli_bad_input.py` has every flag, with a node that is played; here is what needs a real one.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mesh.backend import COORDINATOR_SECONDS
from tests.processes.lab import PATIENCE, ROOT, Lab, lab

pytestmark = [pytest.mark.processes, pytest.mark.timeout(240)]

NAMES = ("a", "b", "c")

NO_CONTENT = "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with lab(tmp_path_factory.mktemp("input")) as made:
        made.form(*NAMES)
        suite(made, "good", "def test_good(): ...")
        yield made


@pytest.fixture(scope="module", autouse=True)
def unmet(made: Lab) -> Iterator[subprocess.Popen[str]]:
    """A run that no worker can take, submitted before any test: it is given up after ten seconds or so."""
    words = made.command("run", str(made.folder / "good"), "--requires", "gpu.memory >= 1TiB", home="a")
    options = {key: value for key, value in made.options().items() if key != "capture_output"}
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **options) as process:
        try:
            made.until(lambda: bool((made.status("a") or {"runs": []})["runs"]), "the run is submitted")
            yield process
        finally:
            process.kill()


def suite(made: Lab, name: str, text: str) -> Path:
    folder = made.folder / name
    folder.mkdir()
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "test_x.py").write_text(text)
    return folder


def runs(made: Lab) -> list[str]:
    return [run["run"] for run in json.loads(made.mesh("runs", "--json", home="a").stdout)["runs"]]


def refused(made: Lab, *words: str, code: int = 4, home: str | None = "a") -> str:
    """The one sentence that a `mesh` command ends with."""
    ended = made.mesh(*words, home=home, check=False)
    assert (ended.returncode, ended.stdout) == (code, ""), ended.stdout + ended.stderr
    assert re.fullmatch(r"mesh: [^\n]+\n", ended.stderr), ended.stderr
    return ended.stderr


def refused_node(made: Lab, *words: str, code: int = 4) -> str:
    """The same of `node.py`."""
    command = [sys.executable, str(ROOT / "node.py"), *words]
    ended = subprocess.run(command, **made.options(), timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (code, ""), ended.stdout + ended.stderr
    assert re.fullmatch(r"node\.py: [^\n]+\n", ended.stderr), ended.stderr
    return ended.stderr


def test_what_the_mesh_does_not_know(made: Lab) -> None:
    """Asked of a node that does not coordinate, too: the answer crosses the network."""
    before = runs(made)
    for home in ("a", "b"):
        assert "there is no run 987654" in refused(made, "watch", "987654", home=home)
    for verb in ("cancel", "why", "results", "logs"):
        assert "there is no run 987654" in refused(made, verb, "987654")
    assert "'test_none.py::test_x' is neither a run nor a test" in refused(made, "why", "test_none.py::test_x")
    assert "no node answers to 'nobody'" in refused(made, "drain", "nobody")
    assert "no node answers to 'nobody'" in refused(made, "command", "nobody", "stop")
    assert f"{NO_CONTENT} is not pinned" in refused(made, "pin", "rm", NO_CONTENT)
    assert runs(made) == before


def test_what_is_wrong_by_itself(made: Lab) -> None:
    before = runs(made)
    good = str(made.folder / "good")
    assert "--slots" in refused(made, "run", good, "--slots", "0")
    assert "101" in refused(made, "run", good, "--priority", "101")
    assert "gpu >>> 3" in refused(made, "run", good, "--requires", "gpu >>> 3")
    assert "nowhere" in refused(made, "run", f"{good}/nowhere.py")
    assert "--lf goes by a cache that workers lack" in refused(made, "run", good, "--", "--lf")
    for words in (["results", "bafybogus"], ["cat", "bafybogus"], ["get", "bafybogus"], ["pin", "add", "bafybogus"]):
        assert "bafybogus" in refused(made, *words)
    assert runs(made) == before


def test_an_unreadable_file_is_named(made: Lab) -> None:
    folder = suite(made, "unreadable", "def test_x(): ...")
    os.mkfifo(folder / "pipe")
    (folder / "away").symlink_to("/etc/hostname")
    assert "away links to /etc/hostname, outside of the tree" in refused(made, "run", str(folder))


def test_what_only_pytest_can_tell(made: Lab) -> None:
    """Said by the worker that collects; the user sees pytest's own sentence, not a list of paths on another host."""
    bad = suite(made, "marked", "import pytest\n@pytest.mark.requires('gpu >>> 3')\ndef test_bad(): ...")
    wrong = suite(made, "argument", "import pytest\n@pytest.mark.timeout('soon')\ndef test_late(): ...")
    for words, said in (
        ([str(bad)], "test_x.py::test_bad: requirement 'gpu >>> 3': expected a value"),
        ([str(wrong)], "test_x.py::test_late: marker timeout('soon') takes a number of seconds"),
        ([str(made.folder / "good"), "--", "--no-such-flag"], "unrecognized arguments: --no-such-flag"),
        ([str(made.folder / "good"), "--", "test_none.py"], "file or directory not found: test_none.py"),
    ):
        ended = made.mesh("run", *words, home="b", check=False)
        assert ended.returncode == 4, ended.stdout + ended.stderr
        assert re.fullmatch(r"mesh: run \d+: [^\n]+\n", ended.stderr)
        assert said in ended.stderr
        assert "no tests ran" in ended.stdout


def test_a_requirement_that_nobody_meets_ends_the_run_with_the_reason(unmet: subprocess.Popen[str]) -> None:
    _, said = unmet.communicate(timeout=PATIENCE)
    assert unmet.returncode == 10
    assert re.fullmatch(r"mesh: run \d+: no worker can take [^\n]*gpu\.memory >= 1TiB: [^\n]+\n", said)


def test_flags_of_a_node(made: Lab) -> None:
    ticket = made.ticket("a")
    home = str(made.folder / "homes" / "x")
    for words, named in (
        (("--slots", "0"), "--slots"),
        (("--ipfs", "kubo"), "kubo"),
        (("--api", "everywhere"), "everywhere"),
        (("--listen", "0.0.0.0:4001"), "0.0.0.0:4001"),
        (("--join", ticket[:-9]), "ticket"),
        (("--join", "/ip4/1.2.3.4/tcp/1"), "/ip4/1.2.3.4/tcp/1"),
    ):
        sentence = refused_node(made, "--home", home, *words)
        assert named in sentence
        assert ticket[:-9] not in sentence, "a ticket is never told"


def test_a_home_is_one_process_s(made: Lab) -> None:
    assert str(made.home("a")) in refused_node(made, "--home", str(made.home("a")))
    assert made.status("a"), "the node that runs there is not disturbed"


def test_no_node_and_no_right_to_talk_to_one(made: Lab, tmp_path: Path) -> None:
    (tmp_path / "nobody").mkdir()
    for verb in (["status"], ["runs"], ["watch", "1"], ["ticket"], ["drain", "a"], ["topology", "--json"]):
        assert "no node runs in" in refused(made, *verb, "--home", str(tmp_path / "nobody"), code=12, home=None)
    (tmp_path / "stranger").mkdir()
    endpoint = json.loads((made.home("a") / "api.json").read_text())
    (tmp_path / "stranger" / "api.json").write_text(json.dumps({**endpoint, "token": "wrong"}))
    for verb in (["status"], ["run", str(made.folder / "good")], ["drain", "a"]):
        sentence = refused(made, *verb, "--home", str(tmp_path / "stranger"), code=13, home=None)
        assert "token" in sentence


def test_without_a_quorum_commands_end_in_bounded_time(made: Lab) -> None:
    """Two of three voters die: nothing can be decided, looking still works; then they return."""
    last = next(name for name in NAMES if name != made.coordinator(*NAMES))
    others = [name for name in NAMES if name != last]
    for name in others:
        made.kill(name)
    began = time.monotonic()
    ended = made.mesh("run", str(made.folder / "good"), home=last, check=False)
    waited = time.monotonic() - began
    assert (ended.returncode, ended.stdout) == (11, "")
    assert re.fullmatch(r"mesh: [^\n]+\n", ended.stderr), ended.stderr
    assert waited < 2 * COORDINATOR_SECONDS
    began = time.monotonic()
    status = json.loads(made.mesh("status", "--json", home=last).stdout)
    assert time.monotonic() - began < 5
    assert status["agreed"] is False
    assert len(status["nodes"]) == 3
    for name in others:
        made.start(name)
    made.agreed(*NAMES)

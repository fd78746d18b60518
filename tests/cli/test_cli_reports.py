"""`--report`, `[tool.mesh]` and plugins of the group `mesh.reporters`: what is chosen, refused, and made."""

import argparse
import os
import tomllib
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from typing import Any

import pytest

from mesh.cli import reporting
from mesh.cli.matrix import in_name
from mesh.cli.project import KEYS, parse_with_project, read_project
from mesh.cli.report_files import DirectoryFiles
from mesh.cli.reporting import OURS, choose, make_reports
from mesh.cli.run import configure
from mesh.pytest_options import options_of
from mesh.pytest_plugin import OPTIONS
from mesh.reporters.model import Output, Printed, Report, Reporter, Written
from protocols.errors import UsageError
from tests.cli.served_node import ROOT, Ended, Node

Mesh = Callable[..., Ended]
ACTIONS, GITLAB, JENKINS = {"GITHUB_ACTIONS": "true"}, {"GITLAB_CI": "true"}, {"JENKINS_URL": "http://ci"}


class Holding:
    """A client of a node that holds one report: what `mesh.cli.report_files` asks of it."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self._files = files
        self.asked: list[str] = []

    def resolve(self, cid: str, path: str) -> str:
        self.asked.append(path)
        if not any(name == path or name.startswith(f"{path}/") for name in self._files):
            raise UsageError(f"there is no {path}")
        return f"{cid}/{path}"

    def read(self, cid: str, path: str = "") -> Iterator[bytes]:
        yield self._files[cid.partition("/")[2]]

    def post(self, path: str, document: dict[str, Any]) -> None:
        below = document["cid"].partition("/")[2] + "/"
        for name, data in self._files.items():
            if name.startswith(below):
                target = Path(document["target"]) / name.removeprefix(below)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data)


FILES = {
    "report.json": b'{"run": "17", "state": "passed", "exit_code": 0, "reason": "", "counts": {"passed": 1}, '
    b'"wall_seconds": 1.0, "tests": []}',
    "junit.xml": b"<testsuites/>",
    "records/000000-000000.jsonl": b"",
}
FINISHED = {"run": "17", "report": "bafyreport"}


class Plain:
    """Somebody else's reporter."""

    target = "plain.txt"
    made: Iterable[Output] = (Written(["one\n", b"two\n"]), Printed("said"))

    def outputs(self, report: Report) -> Iterable[Output]:
        return self.made


class Raising(Plain):
    def outputs(self, report: Report) -> Iterable[Output]:
        yield Written(["begun"])
        raise RuntimeError("no\nluck")


class Outside(Plain):
    target = "folder/"
    made = (Written(["x"], "../../escaped"),)


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Entry points as an installed package would have them."""
    here = "tests.cli.test_cli_reports"
    named = {"plain": "Plain", "raising": "Raising", "outside": "Outside", "odd": "FILES", "gone": "Absent"}
    found = EntryPoints(EntryPoint(name, f"{here}:{what}", reporting.GROUP) for name, what in named.items())
    monkeypatch.setattr(reporting, "plugins", lambda: found)


def kinds(*flags: str, configured: list[str] | None = None, variables: dict[str, str] | None = None) -> list[str]:
    return [one.kind for one in choose(flags, configured, Path("/project"), variables or {})]


def test_ours_are_registered_as_everybody_elses() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"][reporting.GROUP]
    assert declared == OURS
    for kind, value in OURS.items():
        assert isinstance(EntryPoint(kind, value, reporting.GROUP).load(), Reporter)
    assert set(OURS) <= reporting.plugins().names


def test_what_is_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert kinds() == []
    assert kinds(variables=GITLAB) == []
    assert kinds(variables=ACTIONS) == ["github"]
    assert kinds(configured=[], variables=ACTIONS) == []
    assert kinds("junit", "html", configured=["json"]) == ["junit", "html"]
    assert kinds("none", configured=["json"]) == []
    assert [kinds("auto", "json", variables=each) for each in (ACTIONS, GITLAB, JENKINS, {})] == [
        ["github", "json"], ["gitlab", "json"], ["jenkins", "json"], ["json"]
    ]  # fmt: skip


def test_paths_are_of_where_they_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    asked = ["junit:out/j.xml", "coverage", "github"]
    typed = choose(asked, None, tmp_path, {})
    assert [one.target for one in typed] == [tmp_path / "sub/out/j.xml", tmp_path / "sub/coverage", None]
    assert [one.directory for one in typed] == [False, True, False]
    (tmp_path / "sub" / "away").symlink_to(tmp_path.parent)
    for path in ("../x", str(tmp_path.parent / "x"), "sub/away/x"):
        with pytest.raises(UsageError, match=r"junit: .*x lies outside of the project"):
            choose((), [f"junit:{path}"], tmp_path, {})
        assert choose([f"junit:{path}"], None, tmp_path, {})
    configured = choose((), asked, tmp_path, {})
    assert [one.target for one in configured] == [tmp_path / "out/j.xml", tmp_path / "coverage", None]


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["nope"], "'nope' is no kind of report; known are coverage, .*, plain, .* auto and none"),
        (["junit:"], "'junit:' names no path"),
        (["junit:taken/"], "junit is one file"),
        (["junit:taken"], "taken is a directory; name a file"),
        (["coverage:file"], "file is a file; name a directory"),
        (["junit:file/x.xml"], "nothing can be written below .*file"),
        (["junit:a", "json:./a"], "junit and json would both be written to .*a"),
        (["none", "junit"], "it stands alone"),
        (["gone"], "the plugin of 'gone' can't be loaded: AttributeError"),
        (["odd"], "it is no reporter"),
    ],
)
def test_what_is_no_report_is_said_at_once(
    plugins: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match=words) as raised:
        choose(flags, None, tmp_path, {})
    assert str(raised.value).startswith("--report: ")
    with pytest.raises(UsageError, match=words) as raised:
        choose((), flags, tmp_path, {})
    assert str(raised.value).startswith("reports in [tool.mesh]: ")


def test_reports_are_made_of_what_is_fetched_for_them(
    plugins: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    client: Any = Holding(FILES)
    assert (
        make_reports(client, FINISHED, choose(["junit:deep/er/j.xml", "plain"], None, tmp_path, {}), tmp_path, False)
        == 0
    )
    assert (tmp_path / "deep/er/j.xml").read_bytes() == b"<testsuites/>"
    assert (tmp_path / "plain.txt").read_text() == "one\ntwo\n"
    assert client.asked == ["junit.xml"]
    out, err = capsys.readouterr()
    assert out == "said\n"
    assert f"junit report: {tmp_path}/deep/er/j.xml" in err
    assert make_reports(client, FINISHED, choose(["plain"], None, tmp_path, {}), tmp_path, True) == 0
    assert capsys.readouterr().out == ""


def test_a_summary_is_added_to_the_steps_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client: Any = Holding(FILES)
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(tmp_path / "step.md"))
    (tmp_path / "step.md").write_text("before\n")
    assert make_reports(client, FINISHED, choose(["github"], None, tmp_path, {}), tmp_path, True) == 0
    text = (tmp_path / "step.md").read_text()
    assert text.startswith("before\n## ")
    assert "1 passed" in text


def test_a_plugin_that_raises_costs_a_warning_and_no_other_report(
    plugins: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    client: Any = Holding(FILES)
    wanted = choose(["raising", "outside", "json"], None, tmp_path, {})
    assert make_reports(client, FINISHED, wanted, tmp_path, False) == 0
    err = capsys.readouterr().err
    assert "the raising report could not be made: RuntimeError: no\n" in err
    assert "'../../escaped' is no file below its directory" in err
    assert (tmp_path / "report.json").exists()
    assert not (tmp_path.parent / "escaped").exists()


def test_ours_that_can_not_be_written_are_no_success(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    client: Any = Holding(FILES)
    wanted = choose(["junit", "json", "coverage"], None, tmp_path, {})
    (tmp_path / "junit.xml").mkdir()
    assert make_reports(client, FINISHED, wanted, tmp_path, False) == 3
    err = capsys.readouterr().err
    assert "the junit report could not be made: IsADirectoryError" in err
    assert "no coverage report: no test left coverage data" in err
    assert (tmp_path / "report.json").exists()
    assert make_reports(client, {"run": "17", "report": None}, wanted, tmp_path, False) == 0
    assert "ended without a report" in capsys.readouterr().err


SAID = """
[tool.mesh]
reports = ["junit:out/j.xml"]
groups = ["test"]
priority = 70
share = 2
deadline = 600
preempt = "never"
test-type = "model"
requires = "gpu.count >= 1"
prefers = "label.rack == a"
worker-count = 3
retries = 2
hedge = true
cached = true
cached-allow = ["network", "files"]
timeout = 9.5
env = "uv"
python = "3.12"
"""


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    configure(parser)
    return parse_with_project(parser, words, argparse.Namespace(pytest_args=[]))


def test_a_project_has_defaults_and_flags_go_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pyproject.toml").write_text(SAID)
    (tmp_path / "tests").mkdir()
    monkeypatch.chdir(tmp_path / "tests")
    args = vars(parsed())
    expected = {
        "priority": 70, "share": 2, "deadline": 600, "preempt": "never", "test_type": "model",
        "requires": "gpu.count >= 1", "prefers": "label.rack == a", "worker_count": 3, "retries": 2, "hedge": True,
        "cached": True, "cached_allow": ["files", "network"], "test_timeout": 9.5, "env": "uv",
        "python": ["3.12"],
    }  # fmt: skip
    assert {key.dest for key in KEYS.values()} == set(expected)
    assert {name: args[name] for name in expected} == expected
    assert args["project"].reports == ("junit:out/j.xml",)
    typed = parsed(
        "--python", "3.13", "--retries", "0", "--no-hedge", "--no-cached", "--priority", "5", "--requires", ""
    )
    assert (typed.retries, typed.hedge, typed.cached, typed.cached_allow) == (0, False, False, [])
    assert (typed.priority, typed.requires, typed.share, typed.python) == (5, "", 2, ["3.13"])


def test_what_is_said_of_a_projects_tests_is_not_said_of_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.mesh]\ncached = true\ncached-allow = ['files']\n")
    monkeypatch.chdir(tmp_path)
    args = parsed("--exec", "make")
    assert (args.cached, args.cached_allow) == (False, [])
    assert parsed("--exec", "make", "--cached").cached, "which is then refused"


def test_reports_of_several_runs_have_names_of_their_own(tmp_path: Path) -> None:
    made = choose(["junit:out/j.xml", "coverage:cov", "github"], None, tmp_path, {})
    named = [one.named(lambda path: in_name(path, "3.12")) for one in made]
    assert [one.target and one.target.name for one in named] == ["j-3.12.xml", "cov-3.12", None]


def test_pytest_has_the_same_defaults(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(SAID)
    given: dict[str, Any] = {f"mesh_{name.replace('-', '_')}": None for name, *_ in OPTIONS}
    given |= {"mesh_hedge": None, "mesh_cached": None}

    class Config:
        def getoption(self, name: str) -> Any:
            return given[name]

    config: Any = Config()
    found = options_of(config, read_project(tmp_path))
    assert (found.priority, found.retries, found.worker_count, found.test_timeout) == (70, 2, 3, 9.5)
    assert (found.cached, found.cached_allow, found.hedge, found.env) == (True, ["files", "network"], True, "uv")
    assert found.python == ["3.12"]
    given |= {"mesh_priority": 0, "mesh_retries": 0}
    found = options_of(config, read_project(tmp_path))
    assert (found.priority, found.retries) == (0, 0)
    (tmp_path / "pyproject.toml").unlink()
    found = options_of(config, read_project(tmp_path))
    assert (found.priority, found.env, found.cached, found.preempt) == (0, "ambient", False, "grace")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("nope = 1", r"\[tool.mesh\] of pyproject.toml has an unknown key 'nope'; known are "),
        ("retries = true", "retries in .* must be a whole number from 0 to 1000, not 'True'"),
        ("retries = '2'", "retries in "),
        ("timeout = 0", "timeout in .* must be a number of seconds above 0, not '0'"),
        ("timeout = nan", "timeout in "),
        ("requires = 'gpu ==='", "requires in "),
        ("hedge = 1", "hedge in .* must be true or false"),
        ("python = ['3.12', 'x']", "python in .*: 'x' is neither a version"),
        ("python = 3.12", "python in .* must be a list of versions, not '3.12'"),
        ("env = 'conda'", "env in .* must be one of "),
        ("cached-allow = ['all']", "cached-allow in .* must be a list of "),
        ("reports = 'junit'", "reports in .* must be a list"),
        ("reports = [1]", "reports in .* must be a list"),
        ("= 1", "pyproject.toml can't be read: "),
    ],
)
def test_a_project_that_makes_no_sense_is_refused_before_anything_is_submitted(
    node: Node, mesh: Mesh, suite: Path, text: str, words: str
) -> None:
    (suite / "pyproject.toml").write_text(f"[tool.mesh]\n{text}\n")
    with pytest.raises(UsageError, match=words):
        read_project(suite)
    ended = mesh("run")
    assert ended.code == 4
    assert len(ended.err.splitlines()) == 1
    assert node.backend.submitted == {}


def test_a_wrong_report_is_refused_before_anything_is_submitted(node: Node, mesh: Mesh, suite: Path) -> None:
    ended = mesh("run", "--report", "nope")
    assert (ended.code, node.backend.submitted) == (4, {})
    assert "--report: 'nope' is no kind of report" in ended.err
    (suite / "pyproject.toml").write_text("[tool]\nmesh = 5\n")
    assert mesh("run").code == 4
    (suite / "pyproject.toml").write_text("[tool.mesh]\nreports = ['nope']\n")
    assert "reports in [tool.mesh]: 'nope'" in mesh("run").err
    assert mesh("run", "--report", "none").code == 1
    assert mesh("run", "--report", "json", "--detach").code == 4
    assert len(node.backend.submitted) == 1


def test_whoever_follows_a_run_may_have_its_reports(
    node: Node, mesh: Mesh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ended = mesh("watch", "17", "--report", "github")
    assert ended.code == 1
    assert mesh("watch", "17", "--report", "junit:taken/").code == 4
    assert mesh("watch", "--report", "junit").code == 4
    assert mesh("retry", "17", "--report", "json", "--detach").code == 4


def test_a_report_from_anybody_writes_no_markup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Counts that are no numbers: no page, and no part of one."""
    monkeypatch.chdir(tmp_path)
    client: Any = Holding({**FILES, "report.json": FILES["report.json"].replace(b'"passed": 1', b'"passed": "<b>"')})
    assert make_reports(client, FINISHED, choose(["html"], None, tmp_path, {}), tmp_path, False) == 3
    assert "the html report could not be made: ValueError" in capsys.readouterr().err
    assert os.listdir(tmp_path) == []


def test_links_of_a_report_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key").write_text("secret")
    report = tmp_path / "report"
    (report / "artifacts").mkdir(parents=True)
    for name in ("collection.txt", "artifacts/.coverage.1"):
        (report / name).symlink_to(tmp_path / "secret" / "key")
    (report / "records").symlink_to(tmp_path / "secret")
    files = DirectoryFiles(report)
    assert files.read("collection.txt") is None
    assert list(files.lines("records")) == list(files.lines("collection.txt")) == []
    assert files.artifacts(".coverage") == []
    client: Any = Holding({})
    for name in ("", "..", "../x", "/x"):
        with pytest.raises(UsageError, match="no name of a directory"):
            DirectoryFiles(report, client).tree("bafybundle", name)


def test_results_come_with_pages(node: Node, mesh: Mesh, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ended = mesh("results", "17", "-o", "out", "--report", "markdown:s.md")
    assert ended.code == 0, ended.err
    assert {"report.html", "summary.md", "report.json"} <= set(os.listdir(tmp_path / "out"))
    assert (tmp_path / "s.md").read_text() == (tmp_path / "out" / "summary.md").read_text()
    assert ended.err == f"markdown report: {tmp_path}/s.md\n"
    assert mesh("results", "17", "-o", "other", "--report", "nope").code == 4
    assert not (tmp_path / "other").exists()

"""Each verb against a served fake node: its text, its JSON document, its exit code."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mesh.api.checks import view_path
from protocols.errors import NoCapableWorker, NoQuorum
from protocols.work import CommandVerb
from tests.api.fake_backend import ABSENT, OTHER, PEER, TREE
from tests.cli.served_node import ROOT, Ended, Node

Mesh = Callable[..., Ended]


def claim(home: Path, url: str, pid: int) -> None:
    (home / "api.json").write_text(json.dumps({"url": url, "token": "x", "peer": "p", "pid": pid}))


def test_status(node: Node, mesh: Mesh) -> None:
    document = mesh("status", "--json").document
    assert document["self"] == PEER
    assert {"mesh", "term", "coordinator", "voters", "commit_index", "nodes", "runs"} <= set(document)
    text = mesh("status").out
    assert "one" in text
    assert "17" in text


def test_nodes(node: Node, mesh: Mesh) -> None:
    assert [entry["peer"] for entry in mesh("--json", "nodes").document["nodes"]] == [PEER, OTHER]
    assert "suspect" in mesh("nodes").out


def test_runs(node: Node, mesh: Mesh) -> None:
    assert mesh("runs", "--json").document["runs"][0]["run"] == "17"
    assert "17" in mesh("runs").out


def test_ticket(node: Node, mesh: Mesh) -> None:
    assert mesh("ticket").out == "mesh1secret\n"
    assert mesh("ticket", "--json").document == {"ticket": "mesh1secret"}


def test_why_takes_any_test_name(node: Node, mesh: Mesh) -> None:
    assert mesh("why", "17").out.splitlines()[-1] == "  two: it has no gpu"
    assert mesh("why", "a/b.py::test_x[a/b?c#%2F é]", "--json").document["target"] == "a/b.py::test_x[a/b?c#%2F é]"


def test_alerts(node: Node, mesh: Mesh) -> None:
    assert [alert["id"] for alert in mesh("alerts", "--json").document["alerts"]] == ["129"]
    text = mesh("alerts").out
    assert "129  warning   a.py::x took 5.00 s, since" in text
    assert "Look at it." in text
    assert mesh("alerts", "--ack", "129", "--by", "ada").out == "alert 129 is acknowledged by ada\n"
    assert "; ada knows" in mesh("alerts").out
    node.backend.raised[0]["cleared_at"] = 1_500.0
    assert mesh("alerts").out == "all is quiet\n"
    assert "over:" in mesh("alerts", "--all").out
    ended = mesh("alerts", "--ack", "7")
    assert (ended.code, ended.out) == (4, "")
    assert mesh("alerts", "--by", "ada").code == 4


def test_cancel(node: Node, mesh: Mesh) -> None:
    node.backend.state = "running"
    assert mesh("cancel", "17").out == "run 17 is cancelled\n"
    assert node.backend.cancelled == [17]
    node.backend.state = "passed"
    assert mesh("cancel", "17").out == "run 17 had ended: passed\n"
    assert mesh("cancel", "17", "--json").document == {"run": "17", "cancelled": False, "state": "passed"}
    assert node.backend.cancelled == [17]
    ended = mesh("cancel", "18")
    assert (ended.code, ended.out) == (4, "")
    assert "18" in ended.err


def test_drain_and_command(node: Node, mesh: Mesh) -> None:
    assert mesh("drain", "two").code == 0
    assert mesh("command", "two", "restart", "--json").document == {"node": "two", "verb": "restart"}
    assert node.backend.commands == [("two", CommandVerb.DRAIN), ("two", CommandVerb.RESTART)]
    assert mesh("drain", "three").code == 4


def test_content(node: Node, mesh: Mesh, suite: Path) -> None:
    assert mesh("add", "tests").out == f"added {TREE} tests\n"
    assert node.content.added == [(suite / "tests", None)]
    assert node.backend.pinned == {TREE: 1}
    assert mesh("pin", "ls").out == f"{TREE}  this node  user\n"
    told = f"unpinned {TREE}: it was the report of run 17; still kept as the user\n"
    assert mesh("pin", "rm", TREE).out == told
    assert mesh("pin", "rm", TREE).code == 4
    assert mesh("pin", "ls").out == "nothing is pinned\n"
    assert mesh("pin", "add", TREE).out == f"pinned {TREE}, on 1 of 2 nodes so far\n"
    assert mesh("pin", "ls").out == (
        f"{TREE}  1/2  UNDER-REPLICATED  user  2.0 KiB  one\n1 pin on fewer nodes than wanted\n"
    )
    assert mesh("pin", "add", TREE, "--replicas", "1").out == f"pinned {TREE}\n"
    node.backend.quorum = False
    assert "no coordinator answers" in mesh("pin", "ls").out
    assert "no coordinator answers" in mesh("runs").out
    assert mesh("runs", "--json").document["agreed"] is False
    assert mesh("pin", "ls", "--json").document["agreed"] is False
    assert mesh("pin", "ls", "--replicas", "2").code == 4
    assert mesh("cat", f"{TREE}/junit.xml").out == "<testsuites/>"
    assert mesh("cat", f"/ipfs/{TREE}/notes/1").out == "x"
    ended = mesh("cat", ABSENT)
    assert (ended.code, ended.out) == (12, "")
    assert ABSENT in ended.err


def test_get(node: Node, mesh: Mesh, suite: Path) -> None:
    assert mesh("get", TREE, "-o", "out").code == 0
    assert (suite / "out" / "junit.xml").read_text() == "<testsuites/>"
    assert mesh("get", TREE).code == 0
    assert (suite / TREE / "report.json").exists()
    ended = mesh("get", TREE, "-o", "out")
    assert ended.code == 4
    assert str(suite / "out") in ended.err


def test_archives(node: Node, mesh: Mesh, suite: Path) -> None:
    assert mesh("export", TREE, "-o", "x.car").out == f"saved {TREE} to {suite / 'x.car'} (3 blocks of 1,700 bytes)\n"
    ended = mesh("export", TREE, "-o", "x.car")
    assert (ended.code, str(suite / "x.car") in ended.err) == (4, True)
    document = mesh("export", TREE, "--json").document
    assert document == {"cid": TREE, "target": str(suite / f"{TREE}.car"), "blocks": 3, "bytes": 1700}
    assert mesh("export", ABSENT).code == 12
    assert mesh("import", "x.car").out == f"imported {TREE}\n"
    assert node.backend.pinned == {TREE: 1}
    assert mesh("import", "x.car", "--json").document == {"roots": [TREE], "blocks": 3, "bytes": 1700, "path": "x.car"}
    node.content.archive_is_whole = False
    ended = mesh("import", "x.car")
    assert (ended.code, ended.out) == (4, "")
    assert f"x.car lacks blocks of its root {ABSENT}" in ended.err
    assert node.backend.pinned == {TREE: 1}


def test_link(node: Node, mesh: Mesh) -> None:
    url = json.loads((node.home / "api.json").read_text())["url"]
    link = mesh("link", f"{TREE}/records/a b").out
    assert link == f"{url}{view_path('t0ken', TREE)}/records/a%20b\n"
    assert mesh("link", TREE, "--json").document["url"] == f"{url}{view_path('t0ken', TREE)}/"


@pytest.mark.parametrize("report", ["17", TREE])
def test_results(node: Node, mesh: Mesh, suite: Path, report: str) -> None:
    (suite / "out").mkdir()
    document = mesh("results", report, "-o", "out", "--json").document
    assert document["report"] == TREE
    assert document["counts"]["failed"] == 1
    assert json.loads((suite / "out" / "report.json").read_text())["tests"]
    assert "not empty" in mesh("results", report, "-o", "out").err


def test_results_of_other_content_and_of_an_open_run(node: Node, mesh: Mesh, suite: Path) -> None:
    del node.content.files["report.json"]
    ended = mesh("results", TREE, "-o", "out")
    assert ended.code == 4
    assert "not a report" in ended.err


def test_logs(node: Node, mesh: Mesh) -> None:
    text = mesh("logs", "17").out
    assert "assert 1 == 2" in text
    assert "printed before" in text
    assert mesh("logs", "17", "test_bad", "--json").lines[0]["outcome"] == "failed"
    assert mesh("logs", "17", "test_nothing").code == 4


def test_logs_of_a_run_that_goes_on(node: Node, mesh: Mesh) -> None:
    node.backend.state = "running"
    name = node.backend.tests[0]["test"]
    ended = mesh("logs", "17", name, "-f")
    assert (ended.code, ended.out, ended.err) == (0, "half a line, the rest\npassed in 1.50s\n", "trouble\n")
    every = mesh("logs", "17", "-f").out
    assert [line for line in every.splitlines() if line.startswith("==>")] == [
        f"==> {test['test']} <==" for test in node.backend.tests
    ]
    assert {event["event"] for event in mesh("logs", "17", "-f", "--json").lines} == {"output", "verdict"}
    unknown = mesh("logs", "17", "no_such", "-f")
    assert (unknown.code, "no_such" in unknown.err) == (4, True)
    node.backend.state = "failed"
    assert "assert 1 == 2" in mesh("logs", "17", "-f").out, "what is over is read from the records"


@pytest.mark.parametrize("suffix", [".png", ".svg", ".dot", ".graphml"])
def test_topology(node: Node, mesh: Mesh, suite: Path, suffix: str) -> None:
    ended = mesh("topology", "-o", f"picture{suffix}")
    assert ended.code == 0
    assert ended.out.splitlines()[-1] == str(suite / f"picture{suffix}")
    assert (suite / f"picture{suffix}").stat().st_size > 100


def test_topology_as_json_draws_only_if_asked(node: Node, mesh: Mesh, suite: Path) -> None:
    assert mesh("topology", "--json").document["links"][0]["b"] == OTHER
    assert not (suite / "topology.png").exists()
    assert mesh("topology").code == 0
    assert (suite / "topology.png").read_bytes().startswith(b"\x89PNG")


def test_visualize(node: Node, mesh: Mesh, suite: Path) -> None:
    assert mesh("visualize", "-o", "sheet.png").out.strip() == str(suite / "sheet.png")
    assert (suite / "sheet.png").read_bytes().startswith(b"\x89PNG")


def test_doctor(home: Path, mesh: Mesh) -> None:
    checks = {check["check"]: check for check in mesh("doctor", "--json").document["checks"]}
    assert checks["python"]["state"] == "ok"
    assert checks["node"]["state"] == "note"
    assert checks["home"]["text"] == str(home)


def test_doctor_says_what_is_wrong(home: Path, mesh: Mesh, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    ended = mesh("doctor", "--home", tmp_path / "file" / "home")
    assert ended.code == 1
    assert "is a file" in ended.out


@pytest.mark.parametrize(
    ("failure", "code"), [(NoQuorum("no majority"), 11), (NoCapableWorker("none"), 10), (ZeroDivisionError("bug"), 3)]
)
def test_the_nodes_error_is_one_sentence_with_its_code(node: Node, mesh: Mesh, failure: Exception, code: int) -> None:
    node.backend.failure = failure
    ended = mesh("status", "--json")
    assert (ended.code, ended.out, ended.err.count("\n")) == (code, "", 1)
    assert "Traceback" not in ended.err


def test_without_a_node_it_says_how_to_start_one(home: Path, mesh: Mesh) -> None:
    for words in (["status"], ["ticket"], ["runs"], ["cancel", "1"], ["cat", TREE], ["pin", "ls"], ["topology"]):
        ended = mesh(*words)
        assert (ended.code, ended.out) == (12, "")
        assert "mesh up" in ended.err


def test_a_dead_nodes_api_json_is_no_node(home: Path, mesh: Mesh) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    (home / "api.json").write_text(
        json.dumps({"url": "http://127.0.0.1:1", "token": "x", "peer": "p", "pid": gone.pid})
    )
    assert "no node runs" in mesh("status").err


@pytest.mark.parametrize("content", ["", "{", "[]", '{"url": 1}'])
def test_a_damaged_api_json(home: Path, mesh: Mesh, content: str) -> None:
    (home / "api.json").write_text(content)
    ended = mesh("status")
    assert ended.code == 12
    assert "api.json" in ended.err


def test_a_wrong_token_is_not_authorised(node: Node, mesh: Mesh) -> None:
    path = node.home / "api.json"
    path.write_text(path.read_text().replace("t0ken", "guess"))
    assert mesh("status").code == 13


def test_timeout_bounds_a_silent_node(home: Path, mesh: Mesh) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(1)
        claim(home, f"http://127.0.0.1:{silent.getsockname()[1]}", os.getpid())
        for words in (["--timeout", "0.2", "status"], ["status", "--timeout=0.2"]):
            ended = mesh(*words)
            assert ended.code == 12
            assert "0.2 s (--timeout)" in ended.err


def test_something_else_at_the_nodes_port(home: Path, mesh: Mesh) -> None:
    (home / "api.json").write_text(
        json.dumps({"url": "http://127.0.0.1:9", "token": "x", "peer": "p", "pid": os.getpid()})
    )
    ended = mesh("status")
    assert ended.code == 12
    assert "does not answer" in ended.err


def test_the_home_may_stand_on_either_side_of_the_verb(node: Node, mesh: Mesh, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MESH_HOME")
    assert mesh("--home", node.home, "ticket").code == 0
    assert mesh("ticket", f"--home={node.home}").code == 0


def test_a_closed_pipe_is_no_error() -> None:
    script = f"{sys.executable} -m mesh --help | true; exit ${{PIPESTATUS[0]}}"
    ended = subprocess.run(["bash", "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert ended.returncode in (0, 141)
    assert ended.stderr == ""


def test_help_and_wrong_flags_load_nothing_heavy() -> None:
    script = (
        "import sys; from mesh.cli.main import main; main(['--help']); main(['run', '--help']);"
        "assert main(['run', '--bogus']) == 4; assert main(['status', '--bogus']) == 4;"
        "heavy = {'trio', 'libp2p', 'rich', 'starlette', 'matplotlib', 'networkx', 'httpx'} & set(sys.modules);"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, cwd=ROOT)


def test_raft(node: Node, mesh: Mesh) -> None:
    document = mesh("raft", "--json").document
    assert {"members", "term", "commit", "applied", "first_index", "last_index", "snapshot_index"} <= set(document)
    assert "1 entry behind" not in mesh("raft").out
    assert "no voter may fail now" in mesh("raft").out
    node.backend.quorum = False
    ended = mesh("raft")
    assert ended.code == 11
    assert "fewer than a majority of 2 voters" in ended.out


def test_snapshot_of_a_running_node(node: Node, mesh: Mesh, tmp_path: Path) -> None:
    file = tmp_path / "mesh.snapshot"
    ended = mesh("snapshot", "save", "-o", file)
    assert ended.out.startswith(f"saved {file}: 0 runs (0 open) with 0 verdicts, mesh a at index 17 of term 3, 2027-01")
    assert file.stat().st_mode & 0o777 == 0o600
    assert mesh("snapshot", "save", "-o", file, "--json").document["live"] is True
    node.backend.failure = NoQuorum("no majority answers")
    before = file.read_bytes()
    ended = mesh("snapshot", "save", "-o", file)
    assert (ended.code, ended.out, ended.err) == (11, "", "mesh: no majority answers\n")
    assert file.read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if "snapshot" in path.name] == ["mesh.snapshot"]


def test_a_snapshot_founds_a_mesh_that_recover_shows(node: Node, mesh: Mesh, tmp_path: Path) -> None:
    file, home = tmp_path / "mesh.snapshot", tmp_path / "fresh"
    mesh("snapshot", "save", "-o", file)
    document = mesh("snapshot", "restore", file, "--home", home, "--json").document
    assert (document["from"], document["home"], document["index"]) == ("1000.a", str(home), 17)
    ended = mesh("recover", "--home", home)
    assert ended.code == 0
    assert document["mesh"] in ended.out
    assert "nothing was changed" in ended.err
    saved = mesh("snapshot", "save", "-o", file, "--home", home, "--json").document
    assert (saved["live"], saved["mesh"], saved["index"]) == (False, document["mesh"], 10**12)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["snapshot"], "action"),
        (["snapshot", "save"], "-o FILE"),
        (["snapshot", "save", "x", "-o", "y"], "-o FILE"),
        (["snapshot", "save", "-o", "missing/y"], "there is no directory"),
        (["snapshot", "save", "-o", "y"], "holds no log of a mesh"),
        (["snapshot", "restore"], "needs a FILE"),
        (["snapshot", "restore", "missing"], "missing can't be read"),
        (["snapshot", "restore", "pyproject.toml"], "pyproject.toml is no snapshot of a mesh"),
        (["recover"], "holds no log of a mesh"),
        (["recover", "--yes"], "give both"),
    ],
)
def test_what_can_not_be_rescued_changes_nothing(
    home: Path, suite: Path, mesh: Mesh, words: list[str], said: str
) -> None:
    ended = mesh(*words)
    assert (ended.code, ended.out) == (4, "")
    assert said in ended.err
    assert ended.err.count("\n") == 1
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("words", [("--kind", "gantt", "17"), ("--kind", "heatmap", "17"), ("--kind", "heatmap"), ()])
def test_visualize_of_each_kind(node: Node, mesh: Mesh, suite: Path, words: tuple[str, ...]) -> None:
    ended = mesh("visualize", "-o", "sheet.svg", "--size", "poster", *words)
    assert (ended.code, ended.out) == (0, f"{suite / 'sheet.svg'}\n")
    assert "<svg" in (suite / "sheet.svg").read_text()


def test_an_overview_is_not_of_one_run(node: Node, mesh: Mesh, suite: Path) -> None:
    ended = mesh("visualize", "-o", "sheet.svg", "17")
    assert ended.code == 4
    assert "--kind gantt" in ended.err

"""Every wrong input of interface.md: one sentence that names the thing, on stderr, exit code 4, nothing submitted."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mesh.cli.main import VERBS
from mesh.cli.node_flags import parse
from protocols.errors import UsageError
from tests.api.fake_backend import TREE
from tests.cli.served_node import ROOT, Ended, Node

Mesh = Callable[..., Ended]

WRONG = [
    (["frobnicate"], "frobnicate"),
    (["--bogus"], "--bogus"),
    (["--bogus", "status"], "--bogus"),
    (["--home"], "--home"),
    (["status", "--bogus"], "--bogus"),
    (["status", "extra"], "extra"),
    (["status", "--timeout", "soon"], "soon"),
    (["status", "--timeout", "0"], "'0'"),
    (["status", "--timeout", "nan"], "nan"),
    (["run", "nowhere"], "nowhere"),
    (["run", "nowhere.py::test_x"], "nowhere.py"),
    (["run", "--priority", "101"], "101"),
    (["run", "--priority", "high"], "high"),
    (["run", "--requires", "gpu.memory >="], "--requires"),
    (["run", "--requires", "gpu.memory >= 8 parsecs"], "--requires"),
    (["run", "--prefers", "and and"], "--prefers"),
    (["run", "--worker-count", "0"], "--worker-count"),
    (["run", "--retries", "-1"], "--retries"),
    (["run", "--timeout", "-5"], "--timeout"),
    (["run", "--env", "conda"], "conda"),
    (["run", "--env", "uv", "--python", "2.7"], "2.7"),
    (["run", "--python", "twelve"], "twelve"),
    (["run", "--python", "3.12", "--python", "3.8"], "3.8"),
    (["run", *(word for n in range(17) for word in ("--python", f"3.11.{n}"))], "--python"),
    (["run", "--python", "3.12", "--python", "3.13", "--junitxml", "no/such/file.xml"], "no/such"),
    (["run", "--requires", "gpu.memory >= 8Gi"], "Gi"),
    (["run", "--progress", "loud"], "loud"),
    (["run", "-n", "some"], "some"),
    (["run", "--junitxml", "no/such/dir/x.xml"], "no/such/dir"),
    (["run", "--report-dir", "tests"], "not empty"),
    (["run", "--each", "x"], "--each"),
    (["run", "--exec", " "], "--exec"),
    (["run", "--exec", "cat {}", "--each", "nothing.txt"], "nothing.txt"),
    (["run", "--exec", "cat", "--each", "pyproject.toml"], "{}"),
    (["run", "--exec", "true", "--", "-x"], "--exec"),
    (["run", "--", "/etc/hostname"], "/etc/hostname"),
    (["watch", "x"], "'x'"),
    (["cancel", "-"], "'-'"),
    (["cancel", "1" * 25], "111"),
    (["results", "bafynonsense", "-o", "out"], "bafynonsense"),
    (["verify", "bafynonsense"], "bafynonsense"),
    (["verify", "no/such/dir"], "no/such/dir"),
    (["verify"], "CID|RUN|DIR"),
    (["replay", "bafynonsense"], "bafynonsense"),
    (["replay"], "CID|RUN"),
    (["replay", TREE], TREE),
    (["results", "17", "-o", "no/such/dir/out"], "no/such/dir"),
    (["results", "17", "-o", "pyproject.toml"], "pyproject.toml"),
    (["cat", "QmNope"], "QmNope"),
    (["cat", TREE[:-1]], TREE[:-1]),
    (["cat", TREE.upper()], TREE.upper()),
    (["cat", f"{TREE}/nowhere"], "nowhere"),
    (["get", ""], "''"),
    (["get", TREE, "-o", "pyproject.toml"], "pyproject.toml"),
    (["add", "nowhere"], "nowhere"),
    (["export", "bafk"], "bafk"),
    (["export", TREE, "-o", "pyproject.toml"], "pyproject.toml"),
    (["export", TREE, "-o", "no/such/x.car"], "no/such"),
    (["import", "nowhere.car"], "nowhere.car"),
    (["import", "pyproject.toml"], "pyproject.toml"),
    (["import", "."], "'.'"),
    (["link", "bafk"], "bafk"),
    (["pin", "add"], "needs a CID"),
    (["pin", "ls", TREE], "no CID"),
    (["pin", "keep", TREE], "keep"),
    (["pin", "add", "bafk"], "bafk"),
    (["topology", "-o", "picture.gif"], "picture.gif"),
    (["topology", "-o", "no/such/picture.png"], "no/such"),
    (["visualize"], "-o"),
    (["visualize", "-o", "sheet.dot"], "sheet.dot"),
    (["command", "two", "explode"], "explode"),
    (["drain"], "NODE"),
    (["logs", "17", "no-such-test"], "no-such-test"),
    (["up", "-n", "0"], "-n"),
    (["up", "-n", "many"], "many"),
]


@pytest.mark.parametrize(("words", "named"), WRONG, ids=[" ".join(words)[:40] for words, _ in WRONG])
def test_mesh(node: Node, mesh: Mesh, suite: Path, words: list[str], named: str) -> None:
    ended = mesh(*words)
    assert (ended.code, ended.out) == (4, ""), ended.err
    assert named in ended.err
    assert ended.err.count("\n") == 1
    assert node.backend.submitted == {}
    assert node.content.added == []


def test_a_home_that_is_a_file(mesh: Mesh, suite: Path) -> None:
    for words in (["--home", "pyproject.toml", "run"], ["status", "--home", "pyproject.toml"]):
        ended = mesh(*words)
        assert ended.code == 4
        assert "pyproject.toml" in ended.err


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_and_common_options(mesh: Mesh, verb: str) -> None:
    ended = mesh(verb, "--help")
    assert ended.code == 0
    assert {"--home", "--json", "--timeout"} <= set(ended.out.replace(",", " ").split())


NODE_WRONG = [
    (["--role", "boss"], "boss"),
    (["--listen", "0.0.0.0:4001"], "0.0.0.0:4001"),
    (["--listen", "/ip4/300.0.0.1/tcp/1"], "300.0.0.1"),
    (["--join", "mesh1nonsense"], "ticket"),
    (["--join", "example.org"], "example.org"),
    (["--join", "/ip4/1.2.3.4/tcp/4001"], "/ip4/1.2.3.4/tcp/4001"),
    (["--join", "@no-such-file"], "no-such-file"),
    (["--expect", "0"], "--expect"),
    (["--slots", "lots"], "lots"),
    (["--label", "nokey"], "nokey"),
    (["--label", "=x"], "'=x'"),
    (["--ipfs", "kubo"], "kubo"),
    (["--ipfs", "/ip4/x/tcp/y"], "/ip4/x/tcp/y"),
    (["--api", "everywhere"], "everywhere"),
    (["--api", "127.0.0.1:99999"], "99999"),
    (["--heartbeat-interval", "-1"], "-1"),
    (["--worker-timeout", "0.5"], "--worker-timeout"),
    (["--log-format", "xml"], "xml"),
    (["--log-level", "loud"], "loud"),
    (["--home", "/proc/nowhere"], "/proc/nowhere"),
    (["extra"], "extra"),
    (["--bogus"], "--bogus"),
]


@pytest.mark.parametrize(("words", "named"), NODE_WRONG, ids=[" ".join(words) for words, _ in NODE_WRONG])
def test_node_flags(home: Path, words: list[str], named: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(words)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_node_flags_as_given(home: Path) -> None:
    words = "--role worker --label lab=a=b --slots auto --no-mdns --api off --listen /ip4/127.0.0.1/tcp/0 --expect 3"
    options, flags = parse([*words.split(" "), "--log-format", "json"])
    assert (options.role, options.labels, options.slots, options.mdns) == ("worker", {"lab": "a=b"}, None, False)
    assert (options.api, options.listen, options.expect) == ("off", ("/ip4/127.0.0.1/tcp/0",), 3)
    assert options.home == home
    assert flags.log_format == "json"


def test_node_py_answers_before_libp2p_is_loaded() -> None:
    script = (
        "import node, sys; code = node.main(['--role', 'boss']); assert 'libp2p' not in sys.modules; sys.exit(code)"
    )
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, env=os.environ)
    assert (ended.returncode, ended.stdout) == (4, "")
    assert "boss" in ended.stderr
    assert ended.stderr.count("\n") == 1

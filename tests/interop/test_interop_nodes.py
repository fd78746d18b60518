"""Real nodes and a real Kubo daemon: each gets from the other what it has, by every way that there is."""

import hashlib
import json
import os
import random
import re
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from mesh.cli.verify import PAGES
from mesh.net.psk import parse_swarm_key
from tests.interop.kubo_daemon import Kubo, needs_kubo, new_kubo
from tests.processes.lab import Lab, lab

pytestmark = [pytest.mark.kubo, pytest.mark.processes, needs_kubo, pytest.mark.timeout(240)]

SUITE = """
def test_words(mesh_artifacts):
    print("some words")
    (mesh_artifacts / "data.bin").write_bytes(bytes(range(256)) * 2000)
def test_wrong(): assert 1 == 2
"""


@dataclass
class Together:
    lab: Lab
    kubo: Kubo
    report: str


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Together]:
    """A node that has run a suite, and a Kubo that has the mesh's swarm key and is connected to that node."""
    folder = tmp_path_factory.mktemp("together")
    with lab(folder) as nodes:
        nodes.form("a")
        suite = nodes.suite("words", SUITE)
        done = nodes.mesh("run", str(suite), "--json", home="a", check=False)
        report = json.loads(done.stdout.splitlines()[-1])["report"]
        key = parse_swarm_key((nodes.home("a") / "swarm.key").read_text())
        with new_kubo(folder / "kubo", key).running() as kubo:
            connect(kubo, nodes, "a")
            yield Together(nodes, kubo, report)


def connect(kubo: Kubo, nodes: Lab, name: str) -> None:
    kubo.run("swarm", "connect", address_of(nodes, name))


def address_of(nodes: Lab, name: str) -> str:
    status = nodes.status(name)
    assert status is not None
    own = next(node for node in status["nodes"] if node["peer"] == status["self"])
    return re.sub(r"/ip4/[0-9.]+/", "/ip4/127.0.0.1/", str(own["addresses"][0]))


def hashes(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def some_bytes(count: int, seed: int) -> bytes:
    return random.Random(seed).randbytes(count)


def test_kubo_pins_a_report_and_has_the_same_files(together: Together, tmp_path: Path) -> None:
    together.lab.mesh("results", together.report, "-o", str(tmp_path / "ours"), home="a")
    for page in PAGES:
        (tmp_path / "ours" / page).unlink()  # made of the others
    together.kubo.run("pin", "add", together.report)
    assert together.report in together.kubo.run("pin", "ls", "--type=recursive", "-q")
    together.kubo.run("get", "-o", str(tmp_path / "theirs"), together.report)
    ours = hashes(tmp_path / "ours")
    assert {"report.json", "junit.xml"} <= set(ours)
    assert any(name.endswith("data.bin") for name in ours)
    assert hashes(tmp_path / "theirs") == ours
    assert together.kubo.run("add", "-Qr", "--hidden", "--cid-version=1", "--only-hash", str(tmp_path / "ours")) == (
        f"{together.report}\n"
    )


def test_a_node_fetches_and_pins_what_kubo_has(together: Together, tmp_path: Path) -> None:
    for name in ("dir/large", "dir/small", "top"):
        (tmp_path / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "tree" / name).write_bytes(some_bytes(3_000_000 if "large" in name else 10, len(name)))
    cid = together.kubo.run("add", "-Qr", "--cid-version=1", str(tmp_path / "tree")).strip()
    together.lab.mesh("get", cid, "-o", str(tmp_path / "got"), home="a")
    assert hashes(tmp_path / "got") == hashes(tmp_path / "tree")
    together.lab.mesh("pin", "add", cid, home="a")
    assert cid in together.lab.mesh("pin", "ls", home="a").stdout
    old = together.kubo.run("add", "-Qr", "--cid-version=0", str(tmp_path / "tree")).strip()
    assert old.startswith("Qm")
    together.lab.mesh("get", old, "-o", str(tmp_path / "old"), home="a")
    assert hashes(tmp_path / "old") == hashes(tmp_path / "tree")


def test_archives_go_both_ways_and_are_equal(together: Together, tmp_path: Path) -> None:
    (tmp_path / "tree" / "dir").mkdir(parents=True)
    (tmp_path / "tree" / "dir" / "file").write_bytes(some_bytes(1_000_000, 8))
    (tmp_path / "tree" / "link").symlink_to("dir/file")
    ours = together.lab.mesh("add", str(tmp_path / "tree"), "--json", home="a")
    cid = json.loads(ours.stdout)["cid"]
    together.lab.mesh("export", cid, "-o", str(tmp_path / "ours.car"), home="a")
    told = together.kubo.run("dag", "import", "--stats", str(tmp_path / "ours.car"))
    assert f"Pinned root\t{cid}\tsuccess" in told
    together.kubo.run("get", "-o", str(tmp_path / "got"), cid)
    assert hashes(tmp_path / "got") == hashes(tmp_path / "tree")
    exported = together.kubo.export(cid)
    assert exported == (tmp_path / "ours.car").read_bytes()
    assert exported == gateway(together.lab, "a", f"/ipfs/{cid}?format=car")

    (tmp_path / "theirs").write_bytes(some_bytes(700_000, 9))
    cid = together.kubo.run("add", "-Q", "--cid-version=1", str(tmp_path / "theirs")).strip()
    (tmp_path / "theirs.car").write_bytes(together.kubo.export(cid))
    done = together.lab.mesh("import", str(tmp_path / "theirs.car"), "--json", home="a")
    assert json.loads(done.stdout)["roots"] == [cid]
    assert cid in together.lab.mesh("pin", "ls", home="a").stdout
    assert gateway(together.lab, "a", f"/ipfs/{cid}") == (tmp_path / "theirs").read_bytes()


def gateway(nodes: Lab, name: str, path: str) -> bytes:
    found = json.loads((nodes.home(name) / "api.json").read_text())
    request = urllib.request.Request(found["url"] + path, headers={"authorization": f"Bearer {found['token']}"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return bytes(answer.read())


def test_a_damaged_archive_is_one_sentence(together: Together, tmp_path: Path) -> None:
    car = bytearray(together.kubo.export(together.report))
    car[-1] ^= 1
    (tmp_path / "x.car").write_bytes(car)
    done = together.lab.mesh("import", str(tmp_path / "x.car"), home="a", check=False)
    assert done.returncode == 4
    assert re.fullmatch(r"mesh: .*x\.car is no CAR file that can be imported: the block at .*\n", done.stderr)
    done = together.lab.mesh("import", str(tmp_path / "absent"), home="a", check=False)
    assert (done.returncode, done.stderr.count("\n")) == (4, 1)
    (tmp_path / "x.car").write_bytes(car[:-1])
    done = together.lab.mesh("import", str(tmp_path / "x.car"), home="a", check=False)
    assert (done.returncode, "is cut off in the block at byte" in done.stderr) == (4, True)


def test_a_link_shows_a_report_in_a_browser(together: Together) -> None:
    url = together.lab.mesh("link", together.report, home="a").stdout.strip()
    with urllib.request.urlopen(url, timeout=30) as answer:
        assert b'href="./report.json"' in answer.read()
    url = together.lab.mesh("link", f"{together.report}/report.json", home="a").stdout.strip()
    with urllib.request.urlopen(url, timeout=30) as answer:
        assert json.load(answer)["counts"]["failed"] == 1


def test_a_node_that_keeps_its_content_in_kubo(together: Together, tmp_path: Path) -> None:
    nodes = together.lab
    nodes.start("k", "--join", nodes.ticket("a"), "--ipfs", together.kubo.api)
    nodes.agreed("a", "k")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "large").write_bytes(some_bytes(5_000_000, 10))
    (tmp_path / "tree" / "run.sh").write_text("#!/bin/sh\n")
    (tmp_path / "tree" / "run.sh").chmod(0o755)
    cid = json.loads(nodes.mesh("add", str(tmp_path / "tree"), "--json", home="k").stdout)["cid"]
    assert cid in together.kubo.run("pin", "ls", "--type=recursive", "-q")
    assert together.kubo.run("ls", cid).count("\n") == 2
    assert together.kubo.run("cat", f"{cid}/run.sh") == "#!/bin/sh\n"
    nodes.mesh("get", cid, "-o", str(tmp_path / "by-a"), home="a")
    nodes.mesh("get", cid, "-o", str(tmp_path / "by-k"), home="k")
    assert hashes(tmp_path / "by-a") == hashes(tmp_path / "by-k") == hashes(tmp_path / "tree")
    assert os.access(tmp_path / "by-a" / "run.sh", os.X_OK)
    assert nodes.mesh("cat", f"{cid}/run.sh", home="k").stdout == "#!/bin/sh\n"
    nodes.mesh("pin", "rm", cid, home="k")
    assert cid not in together.kubo.run("pin", "ls", "--type=recursive", "-q")
    nodes.mesh("results", together.report, "-o", str(tmp_path / "report"), home="k")
    assert "report.json" in hashes(tmp_path / "report")
    assert gateway(nodes, "k", f"/ipfs/{together.report}/report.json") == (tmp_path / "report/report.json").read_bytes()


def test_a_daemon_that_dies_amid_a_get_and_an_add(together: Together, tmp_path: Path) -> None:
    """One sentence and exit code 12, nothing left behind; the node goes on once the daemon is back."""
    nodes = together.lab
    key = parse_swarm_key((nodes.home("a") / "swarm.key").read_text())
    kubo = new_kubo(tmp_path / "kubo", key)
    large = tmp_path / "large"
    write_large(large, 11)
    with kubo.running():
        address = kubo.api
        kubo.run("config", "Addresses.API", address)
        cid = kubo.run("add", "-Q", "--cid-version=1", str(large)).strip()
        nodes.start("dying", "--join", nodes.ticket("a"), "--ipfs", address)
        nodes.agreed("a", "dying", *(["k"] if "k" in nodes.nodes else []))
        getting = start(nodes, "get", cid, "-o", str(tmp_path / "out"))
        nodes.until(lambda: any(path.stat().st_size for path in tmp_path.glob(".out.*.partial")), "the get has begun")
        kubo.kill()
        assert sentence(getting) == 12
        assert not [path.name for path in tmp_path.iterdir() if "out" in path.name]
    with kubo.running():
        before = stored(kubo)
        write_large(tmp_path / "other", 12)
        adding = start(nodes, "add", str(tmp_path / "other"))
        nodes.until(lambda: stored(kubo) > before + 20, "the add has begun")
        kubo.kill()
        assert sentence(adding) == 12
    done = nodes.mesh("cat", cid, home="dying", check=False)
    assert (done.returncode, done.stderr.count("\n")) == (12, 1)
    with kubo.running():
        nodes.mesh("get", cid, "-o", str(tmp_path / "out"), home="dying")
        assert (tmp_path / "out").read_bytes() == large.read_bytes()
        added = json.loads(nodes.mesh("add", str(tmp_path / "other"), "--json", home="dying").stdout)["cid"]
        assert kubo.run("add", "-Q", "--cid-version=1", "--only-hash", str(tmp_path / "other")).strip() == added
        nodes.kill("dying", signal.SIGTERM)


def write_large(path: Path, seed: int) -> None:
    with path.open("wb") as file:
        for part in range(60):
            file.write(some_bytes(1_000_000, 1000 * seed + part))


def start(nodes: Lab, *words: str) -> subprocess.Popen[str]:
    options = {**nodes.options(), "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    del options["capture_output"]
    return subprocess.Popen(nodes.command(*words, home="dying"), **options)


def sentence(process: subprocess.Popen[str]) -> int:
    """The exit code of a command that said what is wrong in one sentence."""
    out, err = process.communicate(timeout=90)
    assert out == ""
    assert re.fullmatch(r"mesh: the Kubo daemon at \S+ does not answer: .*\n", err), err
    return process.returncode


def stored(kubo: Kubo) -> int:
    return sum(1 for _ in kubo.blocks.rglob("*.data"))

"""`mesh verify` and `mesh replay` with real nodes: what was signed is found to be so, each way of tampering is found
out, and a test is run again by a node that never saw its run."""

import dataclasses
import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from nacl.signing import SigningKey

from mesh.net.identity import peer_id_of
from mesh.state.signing import signed_chunk
from mesh.state.verify import record_cid
from protocols.codec import decode, encode_block
from protocols.manifests import Chunk, Outcome, Record
from tests.processes.lab import Lab, lab

pytestmark = [pytest.mark.processes, pytest.mark.timeout(240)]

SUITE = """
import os, random, pytest

@pytest.mark.parametrize("n", range(6))
def test_steady(n, mesh_artifacts):
    (mesh_artifacts / "seen.txt").write_text(str(n))

def test_broken():
    print(hash("mesh"), os.environ["PYTHONHASHSEED"])
    assert False
"""
BROKEN = "test_signed.py::test_broken"
SEED = b"s" * 32


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with lab(tmp_path_factory.mktemp("verify")) as made:
        made.form("a", "b")
        yield made


@pytest.fixture(scope="module")
def finished(two: Lab) -> dict[str, Any]:
    suite = two.suite("signed", SUITE)
    done = two.mesh("run", str(suite), "--json", home="a", check=False)
    shutil.rmtree(suite)
    event: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert event["counts"]["passed"] == 6
    return event


@pytest.fixture(scope="module")
def report(two: Lab, finished: dict[str, Any]) -> Path:
    """The report's files."""
    target = two.folder / "report"
    two.mesh("results", finished["report"], "-o", str(target), home="b")
    return target


def verified(two: Lab, what: str, home: str = "b") -> tuple[int, dict[str, Any]]:
    done = two.mesh("verify", what, "--json", home=home, check=False)
    assert done.returncode in (0, 1), done.stderr
    return done.returncode, json.loads(done.stdout)


def test_what_was_signed_is_found_to_be_so(two: Lab, finished: dict[str, Any], report: Path) -> None:
    peers = {two.peer("a"), two.peer("b")}
    for what in (finished["report"], finished["run"], str(report)):
        code, found = verified(two, what)
        assert (code, found["problems"], found["tests"]) == (0, [], 7)
        assert {worker["peer"] for worker in found["workers"]} <= peers
        assert sum(worker["tests"] for worker in found["workers"]) == 7
        assert found["coordinator"]["peer"] in peers
    alone = two.mesh("verify", str(report), "--home", str(two.folder / "nowhere")).stdout
    assert "no node is here to say whether" in alone
    assert "is what was signed: 6 passed, 1 failed" in alone


def flip_a_byte(report: Path) -> None:
    path = next(path for path in sorted((report / "artifacts").rglob("*")) if path.is_file())
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])


def edit_a_verdict(report: Path) -> None:
    for path in (report / "report.json", *(report / "records").iterdir()):
        path.write_text(path.read_text().replace('"outcome": "failed"', '"outcome": "passed"'))


def remove_a_record(report: Path) -> None:
    for path, chunk in chunks(report):
        if BROKEN in (decode(record, Record).test for record in chunk.records):
            path.unlink()


def sign_as_a_stranger(report: Path) -> None:
    """A whole chunk by a key of nobody's, in which all passed."""
    stranger = peer_id_of(SEED)
    text = (report / "report.json").read_text()
    for path, chunk in chunks(report):
        forged = []
        for data in chunk.records:
            record = dataclasses.replace(decode(data, Record), worker=stranger, outcome=Outcome.PASSED)
            forged.append(encode_block(record))
            text = text.replace(record_cid(data), record_cid(forged[-1]))
        made = dataclasses.replace(chunk, records=tuple(forged), worker=stranger)
        path.write_bytes(encode_block(signed_chunk(made, lambda data: SigningKey(SEED).sign(data).signature)))
    (report / "report.json").write_text(text)


def chunks(report: Path) -> list[tuple[Path, Chunk]]:
    return [(path, decode(path.read_bytes(), Chunk)) for path in sorted((report / "chunks").iterdir())]


@pytest.mark.parametrize(
    ("tamper", "told"),
    [
        (flip_a_byte, "artifacts is not what was sealed"),
        (edit_a_verdict, f"{BROKEN} is passed in report.json, and failed in its record"),
        (remove_a_record, f"{BROKEN}: its record "),
        (sign_as_a_stranger, f"was signed by a stranger: {peer_id_of(SEED)} is none of the run's workers"),
    ],
)
def test_tampering_is_found(two: Lab, report: Path, tmp_path: Path, tamper: Callable[[Path], None], told: str) -> None:
    """In content that somebody else made of the report, under a CID of its own."""
    shutil.copytree(report, tmp_path / "report")
    tamper(tmp_path / "report")
    cid = json.loads(two.mesh("add", str(tmp_path / "report"), "--json", home="a").stdout)["cid"]
    code, found = verified(two, cid)
    assert code == 1
    assert any(told in problem for problem in found["problems"]), found["problems"]


def test_a_test_is_run_again_from_its_record(two: Lab, finished: dict[str, Any], report: Path) -> None:
    """By a node that joined later, from the record's CID; and by name, from the report's."""
    two.start("c", "--join", two.ticket("a"))
    two.agreed("a", "b", "c")
    entry = next(one for one in json.loads((report / "report.json").read_text())["tests"] if one["test"] == BROKEN)
    again = two.mesh("replay", entry["record"], "--json", home="c", check=False)
    assert again.returncode == 1, again.stderr
    *_, ended, replayed = [json.loads(line) for line in again.stdout.splitlines()]
    assert (ended["event"], ended["tests"], ended["bundle"]) == ("finished", 1, finished["bundle"])
    assert replayed == {
        "event": "replayed", "run": ended["run"], "same": True, "different": [], "environment": []
    }  # fmt: skip
    records = [
        json.loads(two.mesh("logs", run, BROKEN, "--json", home="c").stdout) for run in (finished["run"], ended["run"])
    ]
    assert records[0]["stdout"] == records[1]["stdout"], "the same seed, and so the same hashes"
    assert records[0]["origin"] != records[1]["origin"]
    named = two.mesh("replay", finished["report"], "test_signed.py::test_steady[2]", home="c").stdout
    assert named.splitlines()[-1] == "replay: the outcome is as recorded"
    wrong = two.mesh("replay", finished["report"], "test_signed.py::test_none", home="c", check=False)
    assert (wrong.returncode, wrong.stderr.count("\n")) == (4, 1)
    assert "is none of the tests of" in wrong.stderr


def test_a_block_that_rotted_is_had_from_another_node(two: Lab, finished: dict[str, Any]) -> None:
    """And where nobody has a sound one, that is the finding."""

    def rot(home: str) -> None:
        with sqlite3.connect(two.home(home) / "blocks" / "blocks.db", timeout=30) as store:
            found = store.execute("SELECT hash, data FROM block WHERE instr(data, CAST('test_broken' AS BLOB))")
            for key, data in found.fetchall():
                flipped = bytes([data[0] ^ 1]) + data[1:]
                store.execute("UPDATE block SET data = ? WHERE hash = ?", (flipped, key))

    rot("b")
    assert verified(two, finished["report"])[0] == 0
    rot("a")
    rot("b")
    code, found = verified(two, finished["report"])
    assert code == 1
    assert "is damaged on this node's disk" in found["problems"][0]

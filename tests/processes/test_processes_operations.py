"""What an operator does when much is lost, with real nodes: save and restore, recover, and logs that can't be used."""

import json
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from protocols.raft import LOG_FORMAT_NEWEST
from tests.processes.lab import ROOT, Lab, finished_once, lab, slow_suite

pytestmark = [pytest.mark.processes, pytest.mark.timeout(240)]

NAMES = ("a", "b", "c")

GATE = """
import pathlib, time

def test_gate():
    while not pathlib.Path({gate!r}).exists():
        time.sleep(0.05)
"""


def document(made: Lab, *words: str, home: str, code: int = 0) -> dict[str, Any]:
    done = made.mesh(*words, "--json", home=home, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def verdicts(events: list[dict[str, Any]]) -> list[tuple[str, str, float]]:
    return [(each["test"], each["worker"], each["duration"]) for each in events if each["event"] == "verdict"]


def up_to(watching: Iterator[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """The events up to the `count`-th verdict; those that follow are still to come."""
    events: list[dict[str, Any]] = []
    for event in watching:
        events.append(event)
        if len(verdicts(events)) >= count:
            break
    return events


def watched(made: Lab, run: str, home: str, count: int) -> list[dict[str, Any]]:
    """The run's events up to its `count`-th verdict."""
    return up_to(made.events("watch", run, home=home), count)


def leads(made: Lab, name: str) -> None:
    def leading() -> bool:
        status = made.status(name)
        return status is not None and status["coordinator"] == status["self"]

    made.until(leading, f"{name} coordinates")


def test_a_mesh_is_saved_and_restored_in_a_fresh_home(tmp_path):
    """Everything of the old mesh is stopped; the fresh home is given a copy of its content, and nothing else."""
    names = [*slow_suite(tmp_path / "suite", modules=5, tests=6), "test_gate.py::test_gate"]
    gate = tmp_path / "gate"
    gate.touch()
    (tmp_path / "suite" / "test_gate.py").write_text(GATE.format(gate=str(gate)))
    with lab(tmp_path) as made:
        made.form(*NAMES)
        ended = finished_once(list(made.events("run", str(tmp_path / "suite"), home="a")), names)
        gate.unlink()
        run = made.detached(tmp_path / "suite", "a")
        watched(made, run, "b", 8)
        saved = document(made, "snapshot", "save", "-o", str(tmp_path / "mesh.snapshot"), home="b")
        assert (saved["live"], saved["unconfirmed"], saved["runs"], saved["open_runs"]) == (True, 0, 2, 1)
        assert saved["verdicts"] >= len(names) + 8
        before = verdicts(watched(made, run, "b", 8))
        keeper = made.coordinator(*NAMES)  # who has the report, and all records; of the others only one does
        for name in NAMES:
            made.kill(name)
        restored = document(made, "snapshot", "restore", str(tmp_path / "mesh.snapshot"), home="new")
        assert restored["from"] == saved["mesh"] != restored["mesh"]
        again = made.mesh("snapshot", "restore", str(tmp_path / "mesh.snapshot"), home="new", check=False)
        assert (again.returncode, again.stdout) == (4, "")
        assert "holds the log of a mesh already" in again.stderr
        shutil.copytree(made.home(keeper) / "blocks", made.home("new") / "blocks")
        made.start("new")
        leads(made, "new")
        assert made.status("new")["mesh"] == restored["mesh"]
        runs = {each["run"]: each for each in document(made, "runs", home="new")["runs"]}
        first = runs[ended["run"]]
        assert (first["state"], first["report"], first["counts"]) == ("passed", ended["report"], ended["counts"])
        gate.touch()
        after = list(made.events("watch", run, home="new"))
        assert finished_once(after, names)["state"] == "passed"
        assert set(before) <= set(verdicts(after)), "recorded verdicts are what they were"
        made.mesh("results", ended["report"], "-o", str(tmp_path / "out"), home="new")


def test_the_last_survivor_goes_on_with_the_runs(tmp_path):
    names = slow_suite(tmp_path / "suite")
    with lab(tmp_path) as made:
        made.form(*NAMES)
        assert document(made, "raft", home="b")["health"]["failures_survived"] == 1
        leader = made.coordinator(*NAMES)
        keeper = next(name for name in NAMES if name != leader)
        lost = [name for name in NAMES if name != keeper]
        run = made.detached(tmp_path / "suite", keeper)
        before = verdicts(watched(made, run, keeper, 20))
        for name in lost:
            made.kill(name)
        state = document(made, "raft", home=keeper, code=11)
        assert (state["by_leader"], state["health"]["state"]) == (False, "no quorum")
        busy = made.mesh("recover", home=keeper, check=False)
        assert busy.returncode == 4
        assert "is in use by process" in busy.stderr
        made.kill(keeper)
        shown = document(made, "recover", home=keeper)
        assert (shown["recovered"], shown["mesh"], len(shown["voters"])) == (False, state["mesh"], 3)
        refused = made.mesh("recover", "--force-new-mesh", home=keeper, check=False)
        assert refused.returncode == 4
        assert "needs --yes" in refused.stderr
        done = made.mesh("recover", "--force-new-mesh", "--yes", "--json", home=keeper)
        assert "WARNING: what the other 2 voters had and this node had not is lost for good" in done.stderr
        recovered = json.loads(done.stdout)
        assert recovered["from"] == state["mesh"] != recovered["mesh"]
        made.start(keeper)
        leads(made, keeper)
        watching = made.events("watch", run, home=keeper)
        after = up_to(watching, len(names))
        kept = [verdict for verdict in before if verdict in verdicts(after)]
        assert len(kept) >= len(before) - 8, (
            "but for the last of those that others told of, verdicts are what they were"
        )
        returned = lost[0]
        made.start(returned)
        made.until(lambda: len((made.status(returned) or {"nodes": ()})["nodes"]) >= 2, "they meet")
        assert document(made, "raft", home=returned, code=11)["mesh"] == state["mesh"], "it does not mix"
        after += watching  # records that only the lost ones had are looked for meanwhile
        assert finished_once(after, names)["state"] == "passed"
        assert document(made, "raft", home=keeper)["configuration"]["voters"] == [made.peer(keeper)]


def node_fails(made: Lab, home: Path, prefix: tuple[str, ...] = ()) -> str:
    """What `node.py` says that ends with exit code 3: one sentence, no traceback."""
    command = [*prefix, sys.executable, str(ROOT / "node.py"), "--home", str(home), "--no-mdns", "--log-level", "error"]
    done = subprocess.run(command, **made.options(), timeout=60, check=False)
    assert done.returncode == 3, done.stdout + done.stderr
    assert re.fullmatch(r"node\.py: [^\n]+\n", done.stderr), done.stderr
    return done.stderr


def doctor_on(made: Lab, home: Path) -> dict[str, str]:
    done = subprocess.run(
        [*made.command("doctor", "--json"), "--home", str(home)], **made.options(), timeout=60, check=False
    )
    (check,) = [check for check in json.loads(done.stdout)["checks"] if check["check"] == "log"]
    assert (done.returncode == 1) == (check["state"] == "wrong")
    return check


FILE_BYTES = 256 * 1024

LIMITED = f"""
import os, resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, ({FILE_BYTES}, {FILE_BYTES}))
os.execv(sys.argv[1], sys.argv[1:])
"""


def nearly_full(home: Path, copy: Path) -> Path:
    """A copy of the home, as of a crash, in which the log's write-ahead file has no room below `FILE_BYTES`."""
    with sqlite3.connect(home / "log.sqlite", isolation_level=None) as connection:
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("PRAGMA synchronous = OFF")
        while (home / "log.sqlite-wal").stat().st_size < FILE_BYTES - 10_000:
            for step in (1, -1):
                connection.execute("UPDATE values_ SET crc = crc + ? WHERE name = 'hard state'", (step,))
        shutil.copytree(home, copy)
    connection.close()
    return copy


def test_a_log_that_can_not_be_used_stops_the_node_with_a_sentence(tmp_path):
    def damage(name: str, statement: str | None = None) -> Path:
        home = tmp_path / name
        shutil.copytree(made.home("a"), home)
        log = home / "log.sqlite"
        if statement is not None:
            with sqlite3.connect(log) as connection:
                connection.execute(statement)
            connection.close()
        return home

    with lab(tmp_path) as made:
        made.start("a")
        leads(made, "a")
        assert doctor_on(made, made.home("a"))["text"] == "in use by the node that runs"
        made.kill("a", signal.SIGKILL)
        sound = doctor_on(made, damage("sound"))
        assert sound["state"] == "ok"
        assert "up to index" in sound["text"]
        assert "read whole" in sound["text"]
        for home, said in [
            (damage("bit", "UPDATE values_ SET crc = crc + 1 WHERE name = 'hard state'"), "hard state has a wrong"),
            (
                damage("new", "PRAGMA user_version = 9"),
                f"has format 9, and this version reads format 1 to {LOG_FORMAT_NEWEST}",
            ),
        ]:
            sentence = node_fails(made, home)
            assert f"{home / 'log.sqlite'} " in sentence
            assert said in sentence
            found = doctor_on(made, home)
            assert (found["state"], f"node.py: {found['text']}\n") == ("wrong", sentence)
        stranger = damage("stranger")
        (stranger / "identity.key").unlink()
        assert "is the log of node" in node_fails(made, stranger)
        full = nearly_full(damage("almost"), tmp_path / "full")
        sentence = node_fails(made, full, (sys.executable, "-c", LIMITED))
        assert f"{full / 'log.sqlite'} can't be written: " in sentence
        assert "has room, and start again: what was acknowledged is kept" in sentence
        assert doctor_on(made, full)["state"] == "ok", "a full disk damages nothing"

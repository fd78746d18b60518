"""The live view of the mesh in a real pseudo-terminal, read as a terminal reads it; and without a terminal."""

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pyte
import pytest
import trio

from tests.api.fake_backend import PEER, verdict
from tests.cli.served_node import ROOT, Node, command

PATIENCE = 30.0

PROGRESS = (
    '{"at": 1.0, "run": "18", "state": "running", "done": 5, "tests": 10, "counts": {"passed": 4, "failed": 1},'
    ' "bad": [{"index": 2, "outcome": "failed", "worker": "", "attempt": 1}]}'
)


class Terminal:
    """One command in a terminal of its own."""

    def __init__(self, columns: int, lines: int, *words: str, **variables: str) -> None:
        self.raw = b""
        self._screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self._screen)
        self._end, terminal = pty.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", **variables}
        for name in ("COLUMNS", "LINES", *(() if "NO_COLOR" in variables else ("NO_COLOR",))):
            environment.pop(name, None)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mesh", *words], stdin=terminal, stdout=terminal, stderr=terminal, env=environment
        )
        os.close(terminal)

    def resize(self, columns: int, lines: int) -> None:
        self._screen.resize(lines, columns)
        fcntl.ioctl(self._end, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self.process.send_signal(signal.SIGWINCH)

    @property
    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self._screen.display)

    def until(self, condition: Callable[[str], bool]) -> str:
        deadline = time.monotonic() + PATIENCE
        while not condition(self.text):
            assert time.monotonic() < deadline, self.text
            self._read(0.1)
        return self.text

    def leave(self, number: int = signal.SIGINT) -> int:
        """The exit code."""
        self.process.send_signal(number)
        while self._read(PATIENCE):
            pass
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._end)

    def _read(self, seconds: float) -> bool:
        if not select.select([self._end], [], [], seconds)[0]:
            return False
        try:
            data = os.read(self._end, 65536)
        except OSError:  # Linux's way to say that the other end is closed
            return False
        self.raw += data
        self._stream.feed(data)
        return bool(data)


@pytest.fixture
def terminal(node: Node) -> Iterator[Callable[..., Terminal]]:
    made: list[Terminal] = []

    def run(columns: int, lines: int, *words: str, **variables: str) -> Terminal:
        made.append(Terminal(columns, lines, *words, **variables))
        return made[-1]

    yield run
    for one in made:
        one.close()


def tell(node: Node, index: int, name: str, data: str = "{}") -> None:
    trio.from_thread.run_sync(node.backend.feed.tell, index, name, data, trio_token=node.token)


def test_a_terminal_shows_the_mesh_as_it_changes_and_is_given_back(
    node: Node, terminal: Callable[..., Terminal]
) -> None:
    shown = terminal(100, 24, "watch")
    text = shown.until(lambda text: "NODES" in text and "17" in text)
    assert text.splitlines()[0].startswith("mesh 1f2e  one leads, term 3")
    assert "two" in text
    assert "suspect" in text
    tell(node, 18, "run-submitted", '{"at": 1.0, "run": "18", "name": "optics"}')
    tell(node, 19, "run-progress", PROGRESS)
    text = shown.until(lambda text: "FAILED  run 18  t.py::test_2" in text)
    assert "5 of 10 tests, 1 failed" in text
    assert "█" * 8 + "░" * 8 in text
    shown.resize(48, 12)
    text = shown.until(lambda text: "█" * 4 + "░" * 4 in text and "cpu" not in text)
    assert max(map(len, text.splitlines())) <= 48
    assert shown.leave() == 0
    assert shown.raw.startswith(b"\033[?1049h")
    assert shown.raw.endswith(b"\033[?25h\033[?1049l"), "the cursor and the screen are as they were"


def test_a_run_on_a_terminal(node: Node, terminal: Callable[..., Terminal]) -> None:
    node.backend.tests = [verdict(f"t.py::test_{n}", "failed" if n < 30 else "passed") for n in range(40)]
    node.backend.hang_at = 35
    node.backend.details.rows = [
        {"index": n, "test": f"t.py::test_{n}", "name": "one", "worker": PEER, "running_seconds": 30.0 * n}
        for n in range(35, 38)
    ]
    waits = [{"text": "a worker with gpu", "tests": 5}]
    node.backend.details.queued = [
        {"run": "17", "place": 2, "of": 3, "eta_seconds": 100.0, "reasons": waits},
        {"run": "18", "place": 1, "of": 3, "eta_seconds": 5.0, "reasons": []},
    ]
    shown = terminal(100, 30, "watch", "17")
    text = shown.until(lambda text: "RUNNING" in text and "one  t.py::test_29" in text)
    lines = [line.strip() for line in text.splitlines()]
    assert "run 17 · 35 of 40 tests, 30 failed" in lines[0]
    assert re.search(r" s, 1 min \d\d s left$", lines[0])
    assert [line.rpartition("_")[2] for line in lines[3:6]] == ["37", "36", "35"], "the one that has run longest first"
    assert re.fullmatch(r"one +18 min \d\d s +t\.py::test_37", lines[3])
    assert "5  a worker with gpu" in lines
    assert "number 2 of 3 in the queue" in lines
    assert len(lines) == 30, "as many failures as there is room for"
    shown.resize(44, 10)
    text = shown.until(lambda text: all(f"\n{title}\n" in text for title in ("RUNNING", "WAITING", "FAILURES")))
    lines = text.splitlines()
    assert "run 17 · 35 of" in lines[0]
    assert [line for line in lines if not line] == [""] * 3, "each part has a line, for as long as there are any"
    assert max(map(len, lines)) <= 44
    assert shown.leave() == 2
    assert shown.raw.startswith(b"\033[?1049h")
    assert b"\033[?25h\033[?1049l" in shown.raw
    assert shown.raw.rstrip().endswith(b"mesh: interrupted"), "on the screen as it was"
    assert node.backend.cancelled == []


def test_no_colours_where_they_are_not_wanted(node: Node, terminal: Callable[..., Terminal]) -> None:
    shown = terminal(100, 24, "status", "--watch", NO_COLOR="1")
    shown.until(lambda text: "NODES" in text)
    assert shown.leave(signal.SIGTERM) == 0
    colours = [part for part in shown.raw.split(b"\033[")[1:] if part.split(b"m")[0][:1] == b"3"]
    assert colours == []


def test_a_node_that_restarts_is_found_again(node: Node, terminal: Callable[..., Terminal]) -> None:
    shown = terminal(100, 24, "watch")
    shown.until(lambda text: "NODES" in text)
    tell(node, 21, "run-submitted", '{"at": 1.0, "run": "21", "name": "before"}')
    shown.until(lambda text: "before" in text)
    node.drop()
    node.backend.feed.told.clear()
    shown.until(lambda text: "leads" in text and node.backend.feed.asked[-1] == 21)
    tell(node, 22, "run-submitted", '{"at": 1.0, "run": "22", "name": "after"}')
    shown.until(lambda text: "after" in text)


def test_lines_without_a_terminal_and_events_as_json(node: Node) -> None:
    plain, events = command("watch"), command("status", "--watch", "--json")
    try:
        assert plain.stdout is not None
        assert events.stdout is not None
        tell(node, 18, "run-submitted", '{"at": 1.0, "run": "18", "name": "optics"}')
        tell(node, 19, "run-progress", PROGRESS)
        assert plain.stdout.readline().split(" ", 1)[1] == "run 18 optics is submitted\n"
        assert plain.stdout.readline().split(" ", 1)[1] == "FAILED t.py::test_2 (run 18)\n"
        told = [json.loads(events.stdout.readline()) for _ in range(3)]
        assert [one["event"] for one in told] == ["hello", "run-submitted", "run-progress"]
        assert [one.get("id") for one in told] == [None, 18, 19]
        for process in (plain, events):
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=PATIENCE)
            assert (process.returncode, err) == (0, "")
    finally:
        plain.kill()
        events.kill()


def test_without_a_node_there_is_a_sentence(home: Path, mesh: Callable[..., object]) -> None:
    ended = mesh("watch")
    assert (ended.code, ended.out) == (12, "")  # type: ignore[attr-defined]
    assert "no node runs in" in ended.err  # type: ignore[attr-defined]

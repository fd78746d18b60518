"""A served fake node in a thread of its own, for the commands to talk to over real HTTP, and ways to run a command."""

import contextlib
import json
import os
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import trio

from mesh.api.server import serve_api
from tests.api.fake_backend import PEER, RECORD, FakeBackend, FakeContent

ROOT = Path(__file__).parents[2]

RAN = {"duration": 0.25, "worker": PEER, "attempt": 1, "record": RECORD, "flaky": False}

REPORT = {
    "run": "17",
    "name": "project",
    "state": "failed",
    "exit_code": 1,
    "reason": "",
    "wall_seconds": 1.5,
    "workers": [PEER],
    "counts": {"passed": 1, "failed": 1, "error": 0, "skipped": 1, "xfailed": 0, "xpassed": 0},
    "tests": [
        {"test": "tests/test_a.py::test_bad", "outcome": "failed", **RAN},
        {"test": "tests/test_a.py::test_good", "outcome": "passed", **RAN},
    ],
}


@dataclass
class Node:
    """`serve_api` in a thread, until `stop`."""

    home: Path
    backend: FakeBackend = field(default_factory=FakeBackend)
    content: FakeContent = field(
        default_factory=lambda: FakeContent(
            {
                "report.json": json.dumps(REPORT).encode(),
                "junit.xml": b"<testsuites/>",
                "records/1": b"",
                "notes/1": b"x",
            }
        )
    )

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        ready = threading.Event()

        async def serve() -> None:
            self.token = trio.lowlevel.current_trio_token()
            self._again = True
            while self._again:
                self._again = False
                async with trio.open_nursery() as nursery:
                    self._scope = nursery.cancel_scope
                    await nursery.start(serve_api, "127.0.0.1:0", "t0ken", self.backend, self.content, PEER, self.home)
                    ready.set()

        self._thread = threading.Thread(target=trio.run, args=(serve,))
        self._thread.start()
        assert ready.wait(20)

    def drop_connections(self, again: bool = True) -> None:
        """From inside the server: cut every connection, then listen anew if `again`."""
        self._again = again
        self._scope.cancel()

    def drop(self) -> None:
        """The same, from outside."""
        self.token.run_sync_soon(self.drop_connections)

    def stop(self) -> None:
        with contextlib.suppress(trio.RunFinishedError):
            self.token.run_sync_soon(self._scope.cancel)
        self._thread.join(20)
        assert not self._thread.is_alive()


@dataclass
class Ended:
    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]


def command(*words: object, cwd: Path | None = None) -> subprocess.Popen[str]:
    """`python -m mesh …` in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-m", "mesh", *map(str, words)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=cwd,
    )

"""Three voters on this machine: how long one durable command takes, and how many go through in a second. Beside it,
the disk's own syncs in the same folder, and PySyncObj as shipped (which syncs nothing)."""

import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

ANSWER_SECONDS_MAX = 90.0
SYNC_SECONDS = 2.0
SYNC_BYTES = 512

Process = subprocess.Popen[str]


def syncs(folder: Path) -> list[float]:
    """Seconds of each append of half a kilobyte with its fdatasync."""
    found = []
    descriptor = os.open(folder / "synced", os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    try:
        begin = time.perf_counter()
        while time.perf_counter() - begin < SYNC_SECONDS:
            start = time.perf_counter()
            os.write(descriptor, bytes(SYNC_BYTES))
            os.fdatasync(descriptor)
            found.append(time.perf_counter() - start)
    finally:
        os.close(descriptor)
    return found


@contextlib.contextmanager
def processes(commands: Sequence[Sequence[str]]) -> Iterator[list[Process]]:
    running: list[Process] = []
    try:
        for command in commands:
            pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
            running.append(subprocess.Popen(command, text=True, **pipes))
        yield running
    finally:
        for process in running:
            process.kill()
            process.communicate()


def tell(process: Process, line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()


def first_answer(running: Sequence[Process]) -> Any:
    """Of whichever process leads."""
    ready, _, _ = select.select([process.stdout for process in running], [], [], ANSWER_SECONDS_MAX)
    if not ready:
        raise AssertionError(f"nobody led and measured within {ANSWER_SECONDS_MAX:g} s")
    line = ready[0].readline()
    assert line, f"a process ended: {[process.poll() for process in running]}"
    return json.loads(line)


def ours(folder: Path) -> dict[str, Any]:
    commands = [[sys.executable, "-m", "benchmarks.member", str(folder / name)] for name in "abc"]
    with processes(commands) as running:
        told = []
        for process in running:
            assert process.stdout is not None
            told.append(json.loads(process.stdout.readline()))
        for process in running:
            tell(process, json.dumps(told))
        found: dict[str, Any] = first_answer(running)
        return found


def pysyncobj(python: Path, journals: Path | None) -> dict[str, Any]:
    """With journals in that folder, or without any."""
    addresses = [f"127.0.0.1:{port}" for port in _free_ports(3)]
    script = Path(__file__).with_name("pysyncobj_member.py")
    commands = [
        [str(python), str(script), me, ",".join(other for other in addresses if other != me)]
        + ([str(journals / f"journal-{number}")] if journals else [])
        for number, me in enumerate(addresses)
    ]
    with processes(commands) as running:
        found: dict[str, Any] = first_answer(running)
        return found


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]

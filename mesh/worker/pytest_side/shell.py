"""A slot that runs shell commands: each token names a line of the item file, which the command's `{}` stands for."""

from __future__ import annotations

import os
import select
import shlex
import signal
import subprocess
import time
from typing import Any

from _mesh_pytest_side import processes, wire


def read_file(path: str) -> tuple[str, int]:
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        if size <= wire.OUTPUT_BYTES_MAX:
            return wire.clip_bytes(file.read())
        half = wire.OUTPUT_BYTES_MAX // 2
        head = file.read(half)
        file.seek(size - half)
        return wire.join_ends(head, file.read(), size - 2 * half)


def take(tokens: int) -> tuple[int, int] | None:
    """The next token that names a command; None when it is time to stop."""
    while True:
        try:
            data = os.read(tokens, wire.TOKEN.size)
        except BlockingIOError:
            select.select([tokens], [], [])
            continue
        token = wire.TOKEN.unpack(data) if data else wire.STOP
        if token == wire.STOP:
            return None
        if token != wire.PAUSE:
            return token


def run_slot(settings: dict[str, Any], directory: str, number: int, tokens: int, frames: int) -> None:
    processes.be_nice()
    processes.redirect(directory)
    items = os.open(settings["items"], os.O_RDONLY)
    os.environ.update(MESH_SLOT=str(number))
    while True:
        token = take(tokens)
        if token is None:
            return
        key = token[0]
        name = os.pread(items, token[1], key).decode()
        command = settings["command"]
        if settings["each"]:
            command = command.replace("{}", shlex.quote(name))
        os.environ["MESH_ARTIFACTS"] = artifacts = os.path.join(directory, "artifacts", str(key))
        os.makedirs(artifacts)
        paths = {name: os.path.join(directory, name) for name in ("out", "err")}
        write_all(frames, wire.STARTED.pack(b"S", key, time.time()))
        began, clock = time.time(), time.monotonic()
        with open(paths["out"], "wb") as out, open(paths["err"], "wb") as err:
            # one word: a shell, whose children share the slot's process group
            code = subprocess.call(["/bin/sh", "-c", command], stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        seconds = time.monotonic() - clock
        stdout, dropped = read_file(paths["out"])
        stderr, more = read_file(paths["err"])
        outcome = "passed" if code == 0 else "failed"
        result: dict[str, Any] = {
            "key": key,
            "outcome": outcome,
            "started": began,
            "phases": [("call", outcome, seconds)],
            "message": "" if code == 0 else ended(code),
            "signal": max(0, -code),
            "stdout": stdout,
            "stderr": stderr,
            "dropped": dropped + more,
        }
        if os.listdir(artifacts):
            result["artifacts"] = artifacts
        write_all(frames, wire.pack_json(result))


def ended(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]

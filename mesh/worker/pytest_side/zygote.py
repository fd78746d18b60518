"""The zygote's loop: start slots when the node says so, reap them, tell how they ended.

Invariants: it runs no test; it has no thread of its own (a fork copies only the calling one); every slot leads a
session and a process group of its own, killed as a whole before its end is told. When the node's end of the control
socket closes, everything is killed.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

from _mesh_pytest_side import processes

POLL_SECONDS = 0.05
"""How often children are looked for where the system has no pidfd."""
CONTROL_BYTES_MAX = 64 * 1024
WARM_SECONDS = 300.0
"""How long a zygote that has collected waits for the next session that it may serve."""

Settings = dict[str, Any]
SlotMain = Callable[[Settings, str, int, int, int], None]
"""(settings, directory, number, token pipe, frame pipe): runs until it is told to stop."""


def fork_is_safe() -> bool:
    """Whether a forked slot would work: no thread is lost, no GPU context is copied, no system library objects."""
    if not hasattr(os, "fork") or sys.platform == "darwin":
        return False
    if threading.active_count() > 1:
        return False
    torch = sys.modules.get("torch")
    return not (torch is not None and torch.cuda.is_initialized())


class Zygote:
    def __init__(self, settings: Settings, control: socket.socket, settings_path: str) -> None:
        self.settings = settings
        self._control = control
        self._settings_path = settings_path
        self._children: dict[int, int | None] = {}
        """Slot's process ID -> its pidfd, where there is such a thing."""
        self._buffer = b""
        self._fds: list[int] = []
        self._used = not settings["collect"]

    def send(self, **message: Any) -> None:
        self._control.sendall(json.dumps(message).encode() + b"\n")

    def serve(self, slot_main: SlotMain, timeouts: bool = False) -> None:
        """Until the node says stop, or is gone; `slot_main` runs in the children and never returns here.

        `timeouts`: whether tests' limits are looked after by a plugin, too. Told to rest, it waits for another session.
        """
        fork = fork_is_safe()
        gc.freeze()
        self.send(timeouts=timeouts)
        self.send(ready=True, fork=fork)
        while True:
            messages = self._receive()
            if not (messages or self._used):
                return
            for message in messages:
                if "stop" in message:
                    self._end_all()
                    return
                if "rest" in message:
                    self._used = False
                    self.send(timeouts=timeouts)
                    self.send(ready=True, fork=fork)
                    continue
                tokens, frames = self._fds[:2]
                del self._fds[:2]
                self._start(message, tokens, frames, slot_main if fork else None)
                os.close(tokens)
                os.close(frames)
            self._reap()

    def _receive(self) -> list[dict[str, Any]]:
        watched: list[Any] = [self._control, *(fd for fd in self._children.values() if fd is not None)]
        polled = any(fd is None for fd in self._children.values())
        patience = None if self._used else WARM_SECONDS
        readable, _, _ = select.select(watched, [], [], POLL_SECONDS if polled else patience)
        if self._control not in readable:
            return []
        data, fds, _, _ = socket.recv_fds(self._control, CONTROL_BYTES_MAX, 2)
        if not data:
            self._end_all()
            os._exit(1)
        for fd in fds:
            os.set_inheritable(fd, False)
        self._fds += fds
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        return [json.loads(line) for line in lines]

    def _start(self, message: dict[str, Any], tokens: int, frames: int, slot_main: SlotMain | None) -> None:
        directory, number = message["directory"], message["start"]
        self.settings.update({name: message[name] for name in ("items", "first", "total", "share")})
        self.settings["uid"] = os.environ["MESH_RUN"] = message["run"]
        variables = message["variables"]
        self._used = True
        if slot_main is None:
            pid = self._spawn(directory, number, tokens, frames, variables)
        else:
            sys.stdout.flush()
            sys.stderr.flush()
            parent = os.getpid()
            pid = os.fork()
            if pid == 0:
                os.environ.update(variables)
                self._become_slot(slot_main, parent, directory, number, tokens, frames)
        pidfd = None
        if hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):
                pidfd = os.pidfd_open(pid)
        self._children[pid] = pidfd
        self.send(started=number, pid=pid)

    def _become_slot(
        self, slot_main: SlotMain, parent: int, directory: str, number: int, tokens: int, frames: int
    ) -> None:
        code = 1
        try:
            os.setsid()
            processes.die_with_parent(parent)
            self._control.close()
            for pidfd in self._children.values():
                if pidfd is not None:
                    os.close(pidfd)
            slot_main(self.settings, directory, number, tokens, frames)
            code = 0
        except BaseException:
            import traceback

            with contextlib.suppress(Exception):
                os.write(2, traceback.format_exc().encode("utf-8", "backslashreplace"))
        finally:
            os._exit(code)

    def _spawn(self, directory: str, number: int, tokens: int, frames: int, variables: dict[str, str]) -> int:
        start = os.path.join(os.path.dirname(os.path.abspath(__file__)), "start.py")
        settings = {**self.settings, "collect": False, "slot": [directory, number]}
        path = os.path.join(directory, "settings.json")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(settings, file)
        child = subprocess.Popen(
            [sys.executable, start, path, str(tokens), str(frames)],
            pass_fds=(tokens, frames),
            start_new_session=True,
            cwd=self.settings["root"],
            env={**os.environ, **variables},
        )
        child.returncode = 0  # reaped here, by process ID
        return child.pid

    def _reap(self) -> None:
        for pid, pidfd in list(self._children.items()):
            try:
                done, status = os.waitpid(pid, os.WNOHANG)
            except ChildProcessError:  # a conftest had children reaped by the system: how it ended is not known
                done, status = pid, 0
            if done == 0:
                continue
            processes.kill_group(pid)
            if pidfd is not None:
                os.close(pidfd)
            del self._children[pid]
            self.send(exited=pid, status=os.waitstatus_to_exitcode(status))

    def _end_all(self) -> None:
        for pid in self._children:
            processes.kill_group(pid)
        for pid in self._children:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


def run_zygote(settings: Settings, control_fd: int, settings_path: str) -> int:
    control = socket.socket(fileno=control_fd)
    zygote = Zygote(settings, control, settings_path)
    if settings["role"] == "command":
        from _mesh_pytest_side import shell

        zygote.serve(shell.run_slot)
        return 0
    from _mesh_pytest_side import plugin

    return plugin.run_pytest(settings, zygote)


def run_spawned(settings: Settings, tokens: int, frames: int, settings_path: str) -> int:
    """A slot that could not be forked: it configures pytest by itself."""
    from _mesh_pytest_side import plugin

    return plugin.run_pytest(settings, None, (*settings["slot"], tokens, frames))


Pipes = tuple[str, int, int, int]
"""(directory, number, token pipe, frame pipe) of a slot."""

"""Processes of a runner on this host: the zygote's handle, and the pipes and the remains of a slot.

A zygote is started from the thread that runs trio, not from a helper thread: Linux ties "die with your parent" to the
thread that started a process. Its channel is a Unix socket; file descriptors for slots travel over it.
"""

import contextlib
import errno
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from typing import Any

import trio

from mesh.ports import Job
from mesh.worker.frames import Remains
from mesh.worker.leftovers import temporary_folder
from mesh.worker.pytest_side import start, wire
from mesh.worker.reading import SlotInputs

CONTROL_BYTES_MAX = 1024 * 1024
"""One line from a zygote."""
READ_BYTES = 256 * 1024
EXIT_POLL_SECONDS = 0.01
STOP_SECONDS = 5.0
"""What a zygote has for pytest's end-of-session hooks, and a slot for its session's fixtures."""
LOG_BYTES_MAX = wire.OUTPUT_BYTES_MAX

CONFIG_FILES = ("pytest.toml", ".pytest.toml", "pytest.ini", ".pytest.ini", "pyproject.toml", "tox.ini", "setup.cfg")


class Zygote:
    """One zygote process and its folder; `close` before the end of its life, whatever happens."""

    def __init__(self, job: Job, arguments: Sequence[str], collect: bool) -> None:
        self.lasting = False
        """Whether it may serve more than one session."""
        self.directory = temporary_folder("run")
        self._socket: trio.socket.SocketType | None = None
        self._buffer = b""
        self._heard: deque[bytes] = deque()
        self._sending = trio.Lock()
        (self.directory / "pytest.ini").write_text("[pytest]\n")
        settings = {
            "role": "pytest" if job.command is None else "command",
            "root": str(job.root),
            "arguments": list(arguments),
            "configured": configured(job.root, arguments),
            "command": job.command,
            "each": bool(job.files),
            "collect": collect,
            "directory": str(self.directory),
            "slots": job.slots,
            "maxfail": job.maxfail,
            "uid": job.run,
            "worker": job.worker,
            "test_type": job.test_type,
            "reads": job.reads,
            "parent": os.getpid(),
        }
        path = self.directory / "settings.json"
        path.write_text(json.dumps(settings))
        ours, theirs = socket.socketpair()
        try:
            with open(self.directory / "stdout", "wb") as out, open(self.directory / "stderr", "wb") as err:
                self._process = subprocess.Popen(
                    [
                        job.python if job.command is None else sys.executable,
                        start.__file__,
                        str(path),
                        str(theirs.fileno()),
                    ],
                    cwd=job.root,
                    env=environment(job),
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    pass_fds=(theirs.fileno(),),
                    start_new_session=True,
                )
        except BaseException:
            ours.close()
            shutil.rmtree(self.directory, ignore_errors=True)
            raise
        finally:
            theirs.close()
        ours.setblocking(False)
        self._socket = trio.socket.from_stdlib_socket(ours)

    async def messages(self) -> AsyncGenerator[dict[str, Any], None]:
        """What it says, until it ends."""
        assert self._socket is not None
        while True:
            while self._heard:
                yield json.loads(self._heard.popleft())
            try:
                data = await self._socket.recv(READ_BYTES)
            except ConnectionError:
                return
            if not data or len(self._buffer) > CONTROL_BYTES_MAX:
                return
            *lines, self._buffer = (self._buffer + data).split(b"\n")
            self._heard.extend(lines)

    async def send(self, message: Mapping[str, Any], fds: Sequence[int] = ()) -> None:
        """`OSError` if it is gone."""
        assert self._socket is not None
        data = json.dumps(message).encode() + b"\n"
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, b"".join(fd.to_bytes(4, sys.byteorder) for fd in fds))]
        async with self._sending:  # many slots start at once
            sent = await self._socket.sendmsg([data], ancillary if fds else [])
            while sent < len(data):
                sent += await self._socket.send(data[sent:])

    async def rest(self) -> None:
        """Have it wait for another session, once its slots are gone."""
        with contextlib.suppress(OSError):  # it has just died: `alive` says so
            await self.send({"rest": True})

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        kill_group(self._process.pid)

    async def wait(self) -> int:
        """Its exit code; it must be ending."""
        while True:
            code = self._process.poll()
            if code is not None:
                return code
            await trio.sleep(EXIT_POLL_SECONDS)

    def output(self) -> tuple[str, str]:
        """What it printed: (stdout, stderr), bounded."""
        return read_file(self.directory / "stdout")[0], read_file(self.directory / "stderr")[0]

    async def stop(self) -> None:
        """Let it end by itself, for as long as `STOP_SECONDS`."""
        with trio.move_on_after(STOP_SECONDS):
            try:
                await self.send({"stop": True})
            except OSError:
                return
            await self.wait()

    def close(self) -> None:
        """Kill what is left, and remove the folder."""
        kill_group(self._process.pid)
        self._process.kill()
        self._process.wait()
        if self._socket is not None:
            self._socket.close()
        shutil.rmtree(self.directory, ignore_errors=True)


def environment(job: Job) -> dict[str, str]:
    """Variables of a job's processes."""
    return {**os.environ, **job.variables, "MESH_RUN": job.run, "MESH_WORKER": job.worker}


def configured(root: Path, arguments: Sequence[str]) -> bool:
    """Whether pytest will find a configuration within `root`; it must not find one above."""
    if any(argument == "-c" or argument.startswith(("--config-file", "-c=")) for argument in arguments):
        return True
    folders = {root}
    for argument in arguments:
        path = root / argument.split("::", 1)[0]
        if not argument.startswith("-") and os.path.exists(path):  # never raises, however long an expression is
            folders.update(folder for folder in (path, *path.parents) if folder.is_relative_to(root))
    return any((folder / name).is_file() for folder in folders for name in CONFIG_FILES)


class SlotPipes:
    """The node's ends of a slot's pipes, and both ends of the token pipe (see pytest_side)."""

    def __init__(self) -> None:
        self.tokens_read, self.tokens_write = os.pipe()
        self.frames_read, self.frames_write = os.pipe()
        for fd in (self.tokens_read, self.tokens_write, self.frames_read):
            os.set_blocking(fd, False)
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            with contextlib.suppress(OSError):
                fcntl.fcntl(self.frames_write, fcntl.F_SETPIPE_SZ, wire.PIPE_BYTES)
        self._open = {self.tokens_read, self.tokens_write, self.frames_read, self.frames_write}

    def handed_over(self) -> None:
        """The slot has its own copy of the end it writes to."""
        self._close(self.frames_write)

    def put(self, tokens: Sequence[tuple[int, int]]) -> None:
        """There is always room: `TOKENS_MAX` is under what a pipe holds."""
        if tokens:
            os.write(self.tokens_write, b"".join(wire.TOKEN.pack(*token) for token in tokens))

    def take_back(self) -> list[tuple[int, int]]:
        """The tokens that the slot has not read."""
        taken: list[tuple[int, int]] = []
        while True:
            try:
                data = os.read(self.tokens_read, wire.TOKEN.size * wire.TOKENS_MAX)
            except BlockingIOError:
                return taken
            taken += wire.TOKEN.iter_unpack(data)

    async def read(self) -> bytes:
        """Frames; empty when no process has the other end any more."""
        while True:
            await trio.lowlevel.wait_readable(self.frames_read)
            with contextlib.suppress(BlockingIOError):
                return os.read(self.frames_read, READ_BYTES)

    def read_now(self) -> bytes:
        """Frames that are there; empty if none are."""
        with contextlib.suppress(BlockingIOError):
            return os.read(self.frames_read, READ_BYTES)
        return b""

    def close(self) -> None:
        for fd in sorted(self._open):
            self._close(fd)

    def _close(self, fd: int) -> None:
        if fd in self._open:
            self._open.remove(fd)
            trio.lowlevel.notify_closing(fd)
            os.close(fd)


class SlotProcess:
    """One process that runs tests; replaced when it dies."""

    def __init__(self, number: int, directory: Path) -> None:
        self.number = number
        self.directory = directory
        self.pipes = SlotPipes()
        self.inputs = SlotInputs()
        self.pid = 0
        self.running: int | None = None
        self.since = trio.current_time()
        self.epoch = 0.0
        self.limit = 0.0
        """Set when the running test has used up its time."""
        self.paused = False
        """Whether the last token in the pipe is a PAUSE."""
        self.variables: tuple[tuple[str, str], ...] = ()
        """Beside those of the job, for the tests that it may run."""
        self.status: int | None = None
        self.exited = trio.Event()
        self.reading = trio.CancelScope()
        self.began = False
        """Whether a test ever started here."""
        self.spared = False
        """Killed by us in mid-run: what had not started is not to blame."""

    def end(self, status: int) -> None:
        """The process is gone; what it wrote may still be in the pipe, and others may keep that open."""
        self.status = status
        self.exited.set()
        self.reading.cancel()

    async def read(self) -> bytes:
        """Frames, or nothing at the end: its pipe closed, or it exited and a process that it left keeps the pipe."""
        if not self.exited.is_set():
            with trio.CancelScope() as self.reading:
                return await self.pipes.read()
        return self.pipes.read_now()

    def kill(self) -> None:
        """It and all that it started."""
        if self.pid and not self.exited.is_set():
            kill_group(self.pid)


def kill_group(pid: int, number: int = signal.SIGKILL) -> None:
    """A signal to a process group; nothing if it is gone."""
    try:
        os.killpg(pid, number)
    except OSError as error:
        if error.errno not in (errno.ESRCH, errno.EPERM):
            raise


def signal_process(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def read_file(path: Path) -> tuple[str, int]:
    """Head and tail of a file that a process left, and the bytes left out; "" if there is none."""
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size <= LOG_BYTES_MAX:
                return wire.clip_bytes(file.read(LOG_BYTES_MAX))
            head = file.read(LOG_BYTES_MAX // 2)
            file.seek(size - LOG_BYTES_MAX // 2)
            return wire.join_ends(head, file.read(LOG_BYTES_MAX // 2), size - 2 * (LOG_BYTES_MAX // 2))
    except FileNotFoundError:
        return "", 0


def remains(directory: Path, status: int) -> Remains:
    """What a dead slot's files hold of the test that it ran."""
    texts, dropped = {}, 0
    for name in ("early1", "early2", "out", "err", "fd1", "fd2", "stacks"):
        texts[name], lost = read_file(directory / name)
        dropped += lost
    stdout, cut = wire.clip(texts["early1"] + texts["out"] + texts["fd1"])
    stderr, cut2 = wire.clip(texts["early2"] + texts["err"] + texts["fd2"])
    return Remains(status, stdout, stderr, texts["stacks"], dropped + cut + cut2)


def left_in(directory: Path, key: int | None) -> Path | None:
    """The artifacts of a test whose slot died, if it left any."""
    path = directory / "artifacts" / str(key)
    return path if path.is_dir() and any(path.iterdir()) else None

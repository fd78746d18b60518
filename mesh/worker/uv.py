"""One call of the program `uv`, killed as a group when it is cancelled.

Which index, cache and proxies it uses is the user's own configuration of uv on this host; nothing of that is set here.
What went wrong is either the suite's fault (`BuildFailed`: a lock that does not fit, a requirement that nobody can
meet), which is so on every host, or this host's (`HostFailed`: no network, no space), and others may do better.
Rejected: uv as a dependency (a host without it is a worker for all other runs), pip (slow, and no lock).
"""

import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

import trio

from protocols.errors import MeshFailed, NoCapableWorker, UsageError

POLL_SECONDS = 0.02
TAIL_BYTES_MAX = 16 * 1024
"""What is kept of a failed call's output: its end."""
SENTENCE_CHARACTERS_MAX = 400

_LEFT_OUT = ("VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONHOME", "PYTHONPATH", "UV_PROJECT", "UV_PROJECT_ENVIRONMENT")
"""Variables of the node that would lead uv elsewhere."""

_DIES_WITH_US = "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9, 0, 0, 0); os.execv(sys.argv[1], sys.argv[1:])"
"""Linux: PR_SET_PDEATHSIG, then uv in the same process; a killed node leaves no build behind."""

_OF_THIS_HOST = re.compile(
    r"failed to fetch|error sending request|dns error|connection (?:refused|reset|closed)|timed out"
    r"|network was disabled|connectivity is disabled|no space left|disk quota|permission denied"
    r"|read-only file system|failed to acquire lock",
    re.IGNORECASE,
)
_OF_THIS_PYTHON = re.compile(
    r"incompatible with the project's Python requirement|current Python version \([^)]*\) does not satisfy"
)
_BUILT = re.compile(r"failed to (?:build|prepare) `([^`]+)`", re.IGNORECASE)
_CAUSE = re.compile(r"(?:caused by|cause):\s*", re.IGNORECASE)
_EXCERPT = re.compile(r"\s*\d*\s*\|")
"""A line of a file, or a mark below it."""
_FRAMES = "×╰─▶│├ \t"


class BuildFailed(UsageError):
    """The suite's own inputs can't be built; `output` is the end of what uv printed."""

    def __init__(self, text: str, output: str) -> None:
        super().__init__(text)
        self.output = output


class HostFailed(MeshFailed):
    """This host can't build it now; `output` as above. The exit code is the run's if no host can."""

    def __init__(self, text: str, output: str, exit_code: int = MeshFailed.exit_code) -> None:
        super().__init__(text)
        self.output = output
        self.exit_code = exit_code


async def call_uv(uv: str, arguments: Sequence[str], folder: Path, variables: Mapping[str, str]) -> None:
    """`uv ARGUMENTS` in `folder`; `BuildFailed` or `HostFailed` when it fails."""
    with tempfile.TemporaryFile() as log:
        process = _start(uv, arguments, folder, variables, log)
        try:
            while process.poll() is None:  # noqa: ASYNC110 - nothing tells of a process's end
                await trio.sleep(POLL_SECONDS)
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        if process.returncode != 0:
            raise failure(arguments[0], process.returncode, _tail(log), str(folder))


def _start(
    uv: str, arguments: Sequence[str], folder: Path, variables: Mapping[str, str], log: IO[bytes]
) -> "subprocess.Popen[bytes]":
    """From trio's own thread: Linux ties "die with your parent" to the thread that started a process."""
    inherited = {name: text for name, text in os.environ.items() if name not in _LEFT_OUT}
    settings = {"UV_PYTHON_DOWNLOADS": "never", "UV_NO_PROGRESS": "1", "NO_COLOR": "1"}
    command = [uv, *arguments]
    if sys.platform.startswith("linux"):
        command = [sys.executable, "-I", "-S", "-c", _DIES_WITH_US, *command]
    return subprocess.Popen(
        command,
        cwd=folder,
        env={**inherited, **settings, **variables},
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )


def _tail(log: IO[bytes]) -> str:
    size = log.seek(0, os.SEEK_END)
    log.seek(max(0, size - TAIL_BYTES_MAX))
    return log.read().decode("utf-8", "backslashreplace").strip()


def failure(verb: str, code: int, output: str, root: str) -> BuildFailed | HostFailed:
    """The error that a failed call amounts to, its sentence taken from uv's words; `root` is where the suite lies."""
    shown = output.replace(f"{root}/", "").replace(root, ".")
    text = f"the uv environment can't be built: {sentence(shown) or f'uv {verb} ended with exit code {code}'}"
    built = _BUILT.search(output)
    others = built is not None and root not in built[1]  # a dependency that does not compile here may do so elsewhere
    if _OF_THIS_PYTHON.search(" ".join(shown.split())):
        return HostFailed(text, shown, NoCapableWorker.exit_code)
    if code < 0 or others or _OF_THIS_HOST.search(output):
        return HostFailed(text, shown)
    return BuildFailed(text, shown)


def sentence(output: str) -> str:
    """uv's error as one line: from its first "error:" or "×" on, without pieces of the file that it complains of."""
    lines = output.splitlines()
    start = next((i for i, line in enumerate(lines) if line.lstrip().startswith(("error:", "×"))), len(lines))
    words: list[str] = []
    for line in lines[start:]:
        if not line.strip():
            break
        if _EXCERPT.match(line):
            continue
        said = line.strip(_FRAMES).removeprefix("error: ")
        cause = _CAUSE.match(said)
        if cause and words:
            words[-1] += ":"
        words.append(said[cause.end() :] if cause else said)
    text = " ".join(" ".join(words).split())
    return text if len(text) <= SENTENCE_CHARACTERS_MAX else text[: SENTENCE_CHARACTERS_MAX - 1] + "…"

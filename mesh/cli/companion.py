"""`python -m mesh.cli.companion HOME SLOTS`: a node beside a command that keeps its own process to itself.

It lives as long as its standard input is open: however the command ends, the node ends, too. `pytest --mesh` starts it
where no node runs. Rejected: the node in a thread of pytest's process (signals, and two programs that share one lock).
"""

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mesh.cli.client import Endpoint, read_endpoint
from protocols.errors import MeshError, MeshFailed, cause

if TYPE_CHECKING:
    import trio

START_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 10.0
POLL_SECONDS = 0.02
SAID_BYTES_MAX = 4096
READ_BYTES = 4096


@contextlib.contextmanager
def companion(home: Path, slots: int | None) -> Iterator[Endpoint]:
    """A node in `home` as long as the context is open."""
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "mesh.cli.companion", str(home), str(slots or "auto")],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=said,
            start_new_session=True,  # the terminal's Ctrl-C is the command's to take
        )
        try:
            yield _listening(process, home, said.fileno())
        finally:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(STOP_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def temporary_home(parent: Path) -> Path:
    """Beside the default home, where there is room for content; elsewhere if this user has no such place."""
    try:
        parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix="mesh-run-", dir=parent))
    except OSError:
        return Path(tempfile.mkdtemp(prefix="mesh-run-"))


@contextlib.contextmanager
def home_for_once(parent: Path) -> Iterator[Path]:
    home = temporary_home(parent)
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _listening(process: "subprocess.Popen[bytes]", home: Path, said: int) -> Endpoint:
    give_up = time.monotonic() + START_SECONDS_MAX
    while process.poll() is None and time.monotonic() < give_up:
        endpoint = read_endpoint(home)
        if endpoint is not None and endpoint.pid == process.pid:
            return endpoint
        time.sleep(POLL_SECONDS)
    text = os.pread(said, SAID_BYTES_MAX, 0).decode(errors="replace").strip()
    raise MeshFailed(text.splitlines()[-1] if text else f"no node could be started within {START_SECONDS_MAX:g} s")


def main(home: str, slots: str) -> int:
    import logging

    from mesh.cli.loading import load_serve

    serve = load_serve()
    import trio

    from mesh.cli.node_flags import traces_to
    from mesh.options import NodeOptions

    logging.basicConfig(stream=sys.stderr, level=logging.ERROR, format="mesh: %(name)s: %(message)s")
    options = NodeOptions(
        home=Path(home),
        solitary=True,
        mdns=False,
        slots=None if slots == "auto" else int(slots),
        listen=("/ip4/127.0.0.1/tcp/0",),
        otlp=traces_to(None),
    )

    async def run() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_until_left_alone, nursery.cancel_scope)
            await serve(options, lambda key, text: None)
            nursery.cancel_scope.cancel()

    try:
        trio.run(run)
    except BaseExceptionGroup as group:
        found = cause(group)
        if not isinstance(found, MeshError):
            raise
        print(found, file=sys.stderr)
        return MeshFailed.exit_code
    return 0


async def _until_left_alone(everything: "trio.CancelScope") -> None:
    import trio

    while True:
        await trio.lowlevel.wait_readable(0)
        if not os.read(0, READ_BYTES):
            everything.cancel()
            return


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))

"""`mesh up`: N node processes on this host, one mesh, for as long as this command runs.

The first node founds the mesh, with a swarm key of its own; the others get its ticket in a file (a command line is for
all to see). They listen on loopback and share the host's cores. Invariant: no child outlives this command: each is in a
session of its own (so Ctrl-C reaches this process alone, which drains them in order), is killed when its time is up,
and on Linux dies with this process even if that is killed.
"""

import argparse
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TextIO

import mesh
from mesh.cli.arguments import checked_home, slots, whole
from mesh.cli.client import Client, read_endpoint
from mesh.cli.output import is_terminal, painted, print_json
from mesh.cli.signals import TAKEN, termination_interrupts
from mesh.net.psk import choose_swarm_key
from protocols.errors import MeshFailed, NodeUnavailable

HELP = "Start a local mesh of N nodes, each in a process of its own, until interrupted."

NODES_MAX = 64
START_SECONDS_MAX = 60.0
DRAIN_SECONDS_MAX = 15.0
POLL_SECONDS = 0.1
PR_SET_PDEATHSIG = 1

_LIBC = ctypes.CDLL(None)

NODE = Path(mesh.__file__).parent.parent / "node.py"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-n", type=whole(1, NODES_MAX), default=3, metavar="N", help="how many nodes, default 3")
    parser.add_argument("--slots", type=slots, metavar="N", help="of each node; default: the cores, shared out")


@dataclass
class Child:
    name: str
    home: Path
    process: subprocess.Popen[str]
    readers: list[threading.Thread] = field(default_factory=list)

    def start_reading(self, lock: threading.Lock, quiet: bool) -> None:
        for source, sink in (
            (self.process.stdout, sys.stderr if quiet else sys.stdout),
            (self.process.stderr, sys.stderr),
        ):
            assert source is not None
            thread = threading.Thread(target=_relay, args=(source, sink, self.name, lock), daemon=True)
            thread.start()
            self.readers.append(thread)

    def signal(self, number: int) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, number)


def run(args: argparse.Namespace) -> int:
    deadline = time.monotonic() + (args.timeout or START_SECONDS_MAX)
    share = args.slots or max(1, (os.cpu_count() or 1) // args.n)
    with termination_interrupts(), _directory(args.home) as directory, _children() as children:
        lock = threading.Lock()
        ticket = ""
        ticket_file = directory / "ticket"
        ticket_file.unlink(missing_ok=True)
        for number in range(1, args.n + 1):
            home = checked_home(directory / f"node-{number}")
            if number == 1:
                choose_swarm_key(home, None, None)  # not the user's, which nodes elsewhere share
            child = _start(home, share, ticket_file if ticket else None)
            children.append(child)
            child.start_reading(lock, quiet=args.json)
            if not ticket:
                ticket = _await(child, deadline).get("/api/ticket")["ticket"]
                ticket_file.touch(mode=0o600)
                ticket_file.write_text(ticket)
        clients = [_await(child, deadline) for child in children]
        for child, client in zip(children, clients, strict=True):
            _await_mesh(child, client, len(children), deadline)
        try:
            _announce(args.json, children, clients, ticket, lock)
            _watch(children, lock, args.json)
        except KeyboardInterrupt:
            print("stopping", file=sys.stderr, flush=True)
            return 0
    raise MeshFailed("all nodes are gone")


@contextmanager
def _directory(home: Path | None) -> Iterator[Path]:
    if home is not None:
        yield checked_home(home)
        return
    made = Path(tempfile.mkdtemp(prefix="mesh-up-"))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


@contextmanager
def _children() -> Iterator[list[Child]]:
    children: list[Child] = []
    try:
        yield children
    finally:
        _stop(children)


def _start(home: Path, share: int, ticket: Path | None) -> Child:
    command = [sys.executable, str(NODE), "--home", str(home), "--slots", str(share), "--no-mdns"]
    command += ["--label", f"name={home.name}"]
    command += ["--listen", "/ip4/127.0.0.1/tcp/0", "--log-level", "warning"]
    command += ["--join", f"@{ticket}"] if ticket is not None else []
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="backslashreplace",
        start_new_session=True,
        preexec_fn=_die_with_parent if sys.platform == "linux" else None,
    )
    return Child(home.name, home, process)


def _die_with_parent() -> None:
    """Runs between fork and exec, so everything that it uses is loaded before."""
    _LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _relay(source: IO[str], sink: TextIO, name: str, lock: threading.Lock) -> None:
    for line in source:
        with lock:
            print(f"{name} | {line}", end="", file=sink, flush=True)


def _await(child: Child, deadline: float) -> Client:
    """The node's API, once it listens."""
    while True:
        code = child.process.poll()
        if code is not None:
            raise MeshFailed(f"{child.name} ended with exit code {code} while it started")
        endpoint = read_endpoint(child.home)
        if endpoint is not None and endpoint.pid == child.process.pid:
            return Client(child.home, endpoint, max(1.0, deadline - time.monotonic()))
        if time.monotonic() > deadline:
            raise NodeUnavailable(f"{child.name} does not listen in time")
        time.sleep(POLL_SECONDS)


def _await_mesh(child: Child, client: Client, nodes: int, deadline: float) -> None:
    """Until the node sees a coordinator and all the others."""
    while True:
        document = client.get("/api/status")
        living = [node for node in document["nodes"] if node["state"] != "dead"]
        if document["coordinator"] and len(living) >= nodes:
            return
        if time.monotonic() > deadline:
            raise MeshFailed(f"{child.name} sees {len(living)} of {nodes} nodes: they did not form one mesh in time")
        time.sleep(POLL_SECONDS)


def _announce(as_json: bool, children: list[Child], clients: list[Client], ticket: str, lock: threading.Lock) -> None:
    with lock:
        if as_json:
            for child, client in zip(children, clients, strict=True):
                end = client.endpoint
                document = {
                    "name": child.name,
                    "peer": end.peer,
                    "home": str(child.home),
                    "url": end.url,
                    "pid": end.pid,
                }
                print_json({"event": "ready", **document})
            return
        print(painted(f"\n{len(children)} nodes are up; Ctrl-C stops them", "bold"))
        for child, client in zip(children, clients, strict=True):
            end = client.endpoint
            secret = f"/#token={end.token}" if is_terminal(sys.stdout) else ""
            print(f"  {child.name}  {end.url}{secret}")
        if is_terminal(sys.stdout):
            print(f"  ticket  {ticket}")
        print(f"try: mesh --home {children[0].home} run PATH", flush=True)


def _watch(children: list[Child], lock: threading.Lock, as_json: bool) -> None:
    """Until no node is left; tells of each that goes."""
    living = list(children)
    while living:
        time.sleep(POLL_SECONDS)
        for child in [child for child in living if child.process.poll() is not None]:
            living.remove(child)
            code = child.process.returncode
            how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
            with lock:
                print(f"{child.name} {how}", file=sys.stderr if as_json else sys.stdout, flush=True)


def _stop(children: list[Child]) -> None:
    """Drain, then kill; the last started first, so that the log's oldest member leaves last."""
    for number in TAKEN:  # nothing may keep the children from being stopped
        signal.signal(number, signal.SIG_IGN)
    for child in reversed(children):
        child.signal(signal.SIGTERM)
    until = time.monotonic() + DRAIN_SECONDS_MAX
    for child in reversed(children):
        try:
            child.process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.signal(signal.SIGKILL)
            child.process.wait()
        for thread in child.readers:
            thread.join(1.0)

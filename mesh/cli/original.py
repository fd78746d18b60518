"""`run.py`: the flags of the original framework, on top of `mesh run`.

| there | here |
|---|---|
| without --distributed | a node inside the command, whatever runs beside it; --worker-count is its slots |
| --distributed | `mesh run`: on the node that runs in the home, else on one inside the command |
| --coordinator ADDR | a node inside the command, as a client of that mesh: a ticket, @FILE, a multiaddr, or HOST:PORT |

HOST:PORT names no peer and no swarm key; so it must be a node with this user's key, within reach of local discovery.
"""

import argparse
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from mesh.cli import run as mesh_run
from mesh.cli.arguments import Parser, checked, whole
from mesh.cli.client import Client
from mesh.cli.main import ending
from mesh.cli.node_flags import parse_join
from mesh.cli.project import parse_with_project
from mesh.cli.session import Joining, find
from protocols.errors import NodeUnavailable, UsageError

JOIN_SECONDS_MAX = 30.0
"""For the mesh of --coordinator to be found, and to have a coordinator."""

POLL_SECONDS = 0.2

_HOST_PORT = re.compile(r"(?:\[([0-9A-Fa-f:]+)\]|([A-Za-z0-9._-]+)):(\d{1,5})")


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code; interface.md says what each means."""
    return ending("run.py", lambda: _run(list(sys.argv[1:] if argv is None else argv)))


def _run(words: list[str]) -> int:
    rest: list[str] = []
    if "--" in words:  # what follows is pytest's, untouched
        cut = words.index("--")
        words, rest = words[:cut], words[cut + 1 :]
    given = _parser().parse_args(words)
    if given.coordinator is not None and not given.distributed:
        raise UsageError("--coordinator names the mesh of a --distributed run, which is not asked for")
    parser = Parser(prog="run.py", add_help=False)
    mesh_run.configure(parser)
    base = argparse.Namespace(home=None, json=False, timeout=None, pytest_args=rest)
    args = parse_with_project(parser, [] if given.path is None else [given.path], base)
    args.test_type = given.test_type or args.test_type
    if given.distributed:
        args.worker_count = given.worker_count or args.worker_count
    else:
        args.n = given.worker_count or None
    if given.coordinator is None:
        return mesh_run.run_on(args, find(args) if given.distributed else None)
    return mesh_run.run_on(
        args, None, Joining(given.coordinator.join, lambda client: _joined(client, given.coordinator))
    )


@dataclass(frozen=True, slots=True)
class Coordinator:
    """A checked ADDR: what to join (nothing: whom local discovery finds), and the host and port that must be there."""

    join: str | None
    host: str
    port: int


def coordinator(text: str) -> Coordinator:
    found = _HOST_PORT.fullmatch(text)
    if found is None:
        return Coordinator(join=parse_join(text), host="", port=0)
    if not 0 < int(found[3]) < 65536:
        raise UsageError(f"{text!r} has no TCP port")
    return Coordinator(join=None, host=found[1] or found[2], port=int(found[3]))


def _parser() -> Parser:
    parser = Parser(prog="run.py", description=__doc__.split("\n\n", 1)[1] if __doc__ else "")
    parser.usage = "run.py [PATH] [--distributed] [options] [-- PYTEST_ARGS]"
    parser.add_argument("path", nargs="?", metavar="PATH", help="what to run; default: the current directory")
    parser.add_argument("--distributed", action="store_true", help="on the mesh, not on this host alone")
    parser.add_argument("--worker-count", type=whole(1, 4096), default=0, metavar="N", help="at most N workers")
    parser.add_argument("--test-type", default="", metavar="T", help="such as model, hardware, api")
    parser.add_argument("--coordinator", type=checked(coordinator), metavar="ADDR", help="the mesh to run on")
    return parser


def _joined(client: Client, where: Coordinator) -> None:
    """Wait until the mesh is there and coordinated."""
    give_up = time.monotonic() + JOIN_SECONDS_MAX
    while True:
        status = client.get("/api/status")
        others = [node for node in status["nodes"] if node["peer"] != status["self"]]
        if status["coordinator"] and any(_listens(node["addresses"], where) for node in others):
            return
        if time.monotonic() > give_up:
            what = f"{where.host}:{where.port}" if where.port else "the address"
            hint = ": give the mesh's ticket (`mesh ticket`) instead" if where.port else ""
            raise NodeUnavailable(f"no coordinated mesh was found at {what} of --coordinator{hint}")
        time.sleep(POLL_SECONDS)


def _listens(addresses: list[str], where: Coordinator) -> bool:
    return not where.port or any(f"/{where.host}/tcp/{where.port}" in address for address in addresses)

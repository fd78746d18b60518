"""Which node a command talks to: the one that runs in the home, or, for `mesh run`, one that lives inside the command.

The node inside owns the main thread (signals reach it there) and the command's work a second one. Its home is temporary
unless one was named. At the end, however it comes, the node is stopped, and a temporary home removed.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from mesh.cli.arguments import checked_home, default_home
from mesh.cli.client import Client, read_endpoint
from mesh.cli.signals import Strokes
from protocols.errors import MeshFailed, NodeUnavailable, cause

if TYPE_CHECKING:
    import trio

START_SECONDS_MAX = 30.0
"""For the node inside a command to listen."""

INTERRUPT_SECONDS_MAX = 10.0
"""For the command's work to end once its run was cancelled."""

T = TypeVar("T")

Work = Callable[[Client], int]
Interrupt = Callable[[Client], None]


def home_of(args: argparse.Namespace) -> Path:
    home: Path = args.home.expanduser().absolute() if args.home is not None else default_home()
    return home


def connect(args: argparse.Namespace) -> Client:
    """The running node; `NodeUnavailable` tells how to start one."""
    found = find(args)
    if found is None:
        raise NodeUnavailable(
            f"no node runs in {home_of(args)}: start one with `python node.py` or `mesh up`, or name its --home"
        )
    return found


def find(args: argparse.Namespace) -> Client | None:
    home = home_of(args)
    endpoint = read_endpoint(home)
    return None if endpoint is None else Client(home, endpoint, args.timeout)


@dataclass(frozen=True, slots=True)
class Joining:
    """The node inside belongs to a mesh of others, as a client."""

    join: str | None
    """A ticket or multiaddr; None: whom local discovery finds."""
    joined: Callable[[Client], None]
    """Waits until it is there; `MeshError`."""


def with_node(
    args: argparse.Namespace, slots: int | None, work: Work, interrupt: Interrupt, joining: Joining | None = None
) -> int:
    """Start a node inside this process, do `work` in a thread beside it, stop it; the exit code of `work`.

    Ctrl-C calls `interrupt`, which should make `work` end; a second one ends everything at once.
    """
    if args.home is not None:
        return _run(checked_home(args.home), args.timeout, slots, work, interrupt, joining)
    from mesh.cli.companion import home_for_once

    with home_for_once(default_home().parent) as home:
        return _run(home, args.timeout, slots, work, interrupt, joining)


def _run(
    home: Path, timeout: float | None, slots: int | None, work: Work, interrupt: Interrupt, joining: Joining | None
) -> int:
    import logging

    from mesh.cli.loading import load_serve

    serve = load_serve()
    import trio

    from mesh.cli.node_flags import traces_to
    from mesh.options import NodeOptions
    from protocols.presence import Role

    logging.basicConfig(stream=sys.stderr, level=logging.ERROR, format="mesh: %(name)s: %(message)s")
    if joining is None:
        listen = ("/ip4/127.0.0.1/tcp/0",)
        options = NodeOptions(home, solitary=True, mdns=False, slots=slots, listen=listen, otlp=traces_to(None))
    else:
        options = NodeOptions(home=home, role=Role.CLIENT, join=(joining.join,) if joining.join else ())

    def joined(client: Client) -> int:
        if joining is not None:
            joining.joined(client)
        return work(client)

    ended: list[int] = []

    async def main() -> None:
        listening = trio.Event()

        def announce(key: str, text: str) -> None:
            if key == "dashboard":
                listening.set()

        async with trio.open_nursery() as nursery:

            async def node() -> None:
                await serve(options, announce)
                nursery.cancel_scope.cancel()

            nursery.start_soon(node)
            with trio.move_on_after(START_SECONDS_MAX) as starting:
                await listening.wait()
            endpoint = read_endpoint(home)
            if starting.cancelled_caught or endpoint is None:
                raise MeshFailed(f"the node inside this command did not start within {START_SECONDS_MAX:g} s")
            client = Client(home, endpoint, timeout)
            nursery.start_soon(_interruptible, client, interrupt, nursery.cancel_scope)
            ended.append(await _in_thread(joined, client))
            nursery.cancel_scope.cancel()

    try:
        trio.run(main, strict_exception_groups=True)
    except BaseExceptionGroup as group:
        raise cause(group) from None
    if not ended:
        raise KeyboardInterrupt
    return ended[0]


async def _in_thread(work: Callable[[Client], T], client: Client) -> T:
    """Beside the node; left to itself when everything is cancelled."""
    import trio

    return await trio.to_thread.run_sync(work, client, abandon_on_cancel=True)


async def _interruptible(client: Client, interrupt: Interrupt, everything: "trio.CancelScope") -> None:
    import signal

    import trio

    strokes = Strokes()
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGHUP) as signals:
        async with trio.open_nursery() as nursery:
            async for _ in signals:
                if not strokes.new():
                    continue
                if everything.deadline != float("inf"):
                    everything.cancel()
                    return
                everything.deadline = trio.current_time() + INTERRUPT_SECONDS_MAX
                nursery.start_soon(_in_thread, interrupt, client)

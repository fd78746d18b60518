"""Stands in for node.py where only processes matter: flags, an API with a fake node behind it, an end on SIGTERM."""

import signal
import sys

import trio

from mesh.api.server import serve_api
from mesh.cli.node_flags import parse
from tests.api.fake_backend import PEER, FakeBackend, FakeContent


async def main() -> None:
    options, _ = parse(_flags())
    print(f"home: {options.home}", flush=True)
    with trio.open_signal_receiver(signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:
            await nursery.start(serve_api, options.api, "t0ken", FakeBackend(), FakeContent({}), PEER, options.home)
            await anext(signals)
            nursery.cancel_scope.cancel()


def _flags() -> list[str]:
    """Those given, without `--join @FILE`: the fake node's ticket is none."""
    words = sys.argv[1:]
    if "--join" in words:
        place = words.index("--join")
        assert words[place + 1].startswith("@")
        del words[place : place + 2]
    return words


trio.run(main)

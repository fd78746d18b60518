"""Stands in for `mesh.node` inside a command: `serve` with a fake node behind the API. As a program: `mesh …` on it."""

import sys
from collections.abc import Callable
from types import ModuleType

import trio

from mesh.api.server import serve_api
from mesh.options import NodeOptions
from tests.api.fake_backend import PEER, FakeBackend, FakeContent


def fake_module(backend: FakeBackend, served: list[NodeOptions]) -> ModuleType:
    """What to put at `sys.modules["mesh.node"]`; `served` gets the options."""

    async def serve(options: NodeOptions, announce: Callable[[str, str], None]) -> int:
        served.append(options)
        async with trio.open_nursery() as nursery:
            content = FakeContent({"report.json": b'{"tests": [], "counts": {}}', "junit.xml": b"<testsuites/>"})
            url = await nursery.start(serve_api, options.api, "t0ken", backend, content, PEER, options.home)
            announce("dashboard", url)
            await trio.sleep_forever()
        return 0

    module = ModuleType("mesh.node")
    module.serve = serve  # type: ignore[attr-defined]
    return module


if __name__ == "__main__":
    from mesh.cli.main import main

    hanging = FakeBackend()
    hanging.hang_at = 1
    sys.modules["mesh.node"] = fake_module(hanging, [])
    sys.exit(main())

"""The API over real HTTP on a real socket, with a fake node behind it."""

from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import trio
from pytest_trio import trio_fixture

from mesh.api.server import serve_api
from tests.api.fake_backend import PEER, FakeBackend, FakeContent
from tests.api.served import TOKEN, Served


@trio_fixture
async def api(tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[Served]:
    backend, content = FakeBackend(), FakeContent({"report.json": b"{}", "big": bytes(range(256)) * 400})
    url = await nursery.start(serve_api, "127.0.0.1:0", TOKEN, backend, content, PEER, tmp_path)
    headers = {"authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(base_url=url, headers=headers, trust_env=False) as http:
        yield Served(url, http, backend, content, tmp_path)

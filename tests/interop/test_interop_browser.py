"""What a real browser makes of the gateway's links: pages look as they should, and can do nothing."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
import trio

from mesh.api.checks import view_path
from mesh.api.server import serve_api
from mesh.content.store import EmbeddedContent, open_content
from mesh.entries import ContentEntry
from protocols.ids import Cid
from tests.api.fake_backend import PEER, FakeBackend

NAMES = (os.environ.get("MESH_BROWSER", ""), "chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium or Chrome: set MESH_BROWSER, or put one on PATH")

PAGE = """<!doctype html><link rel="stylesheet" href="beside.css"><p id="p">as written</p><img src="below/picture.svg">
<script>document.getElementById("p").textContent = "changed"; fetch("/api/status")</script>
<img src="/ipfs/OTHER/never"><img src="https://example.invalid/never">"""


async def test_a_page_loads_what_is_beside_it_and_runs_no_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    look = EmbeddedContent.look

    async def noted(content: EmbeddedContent, root: Cid, path: str = "") -> ContentEntry:
        asked.append(path)
        return await look(content, root, path)

    monkeypatch.setattr(EmbeddedContent, "look", noted)
    backend = FakeBackend()
    monkeypatch.setattr(backend, "status", lambda: asked.append("status"))
    async with open_content(tmp_path / "home") as content, trio.open_nursery() as nursery:
        picture = b'<svg xmlns="http://www.w3.org/2000/svg"><rect width="9" height="9"/></svg>'
        files = {"page.html": PAGE.encode(), "beside.css": b"p { color: red }", "below/picture.svg": picture}
        root = await content.add_files(files)
        url = await nursery.start(serve_api, "127.0.0.1:0", "t0ken", backend, content, PEER, tmp_path)
        page = await trio.to_thread.run_sync(dom, f"{url}{view_path('t0ken', root)}/page.html", tmp_path / "profile")
        listing = await trio.to_thread.run_sync(dom, f"{url}{view_path('t0ken', root)}/", tmp_path / "profile")
        nursery.cancel_scope.cancel()
    assert '<p id="p">as written</p>' in page
    assert sorted(asked) == ["", "below/picture.svg", "beside.css", "index.html", "page.html"]
    assert '<a href="./page.html">page.html</a>' in listing


def dom(url: str, profile: Path) -> str:
    flags = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}", "--virtual-time-budget=3000"]
    command = [str(BROWSER), *flags, "--dump-dom", url]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout

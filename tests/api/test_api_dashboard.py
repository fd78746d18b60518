"""How the dashboard's files are served, and that they are what they should be."""

import hashlib
import re
from pathlib import Path

import httpx
import pytest
import trio

from mesh.api.checks import view_path
from mesh.api.server import serve_api
from tests.api.fake_backend import PEER, TREE, FakeBackend, FakeContent

STATIC = Path(__file__).parents[2] / "mesh" / "api" / "static"
FIRST_LOAD_BYTES_MAX = 300_000

LOADED = re.compile(r'(?:href|src)="(static/[^"]+)"')
IMPORTED = re.compile(r"""(?:from|import)\s*\(?\s*["'](\.[^"']+)["']""")

MARKUP = re.compile(r"innerHTML|outerHTML|insertAdjacentHTML|dangerouslySetInnerHTML|document\.write|\beval\(")
MODULES = sorted(STATIC.glob("*.js"))


async def served(home: Path, nursery: trio.Nursery, token: str = "") -> httpx.AsyncClient:
    url = await nursery.start(serve_api, "127.0.0.1:0", "t0ken", FakeBackend(), FakeContent({}), PEER, home)
    headers = {"authorization": f"Bearer {token}"} if token else {}
    return httpx.AsyncClient(base_url=url, trust_env=False, headers=headers)


async def test_the_page_and_all_that_it_loads_come_without_the_token(tmp_path: Path, nursery: trio.Nursery) -> None:
    """And are small; what is imported later is there, too, under the same address."""
    async with await served(tmp_path, nursery) as http:
        page = await http.get("/")
        size = int(page.headers["content-length"])
        base = LOADED.findall(page.text)[0].rpartition("/")[0]
        wanted = {found.removeprefix(f"{base}/") for found in LOADED.findall(page.text)}
        seen: set[str] = set()
        while wanted - seen:
            name = min(wanted - seen)
            seen.add(name)
            answer = await http.get(f"/{base}/{name}")
            assert answer.status_code == 200, name
            assert answer.headers["content-encoding"] == "gzip"
            assert "immutable" in answer.headers["cache-control"]
            assert answer.headers["x-content-type-options"] == "nosniff"
            size += int(answer.headers["content-length"])
            folder = name.rpartition("/")[0]
            for found in IMPORTED.findall(answer.text) if name.endswith(".js") else ():
                wanted.add("/".join(filter(None, (folder, found.removeprefix("./")))))
    assert {"main.js", "app.css", "vendor/ui.js", "vendor/charts.js"} <= seen
    assert size < FIRST_LOAD_BYTES_MAX


async def test_only_the_pages_own_scripts_may_run(tmp_path: Path, nursery: trio.Nursery) -> None:
    async with await served(tmp_path, nursery) as http:
        first, second = await http.get("/"), await http.get("/")
        policies = [answer.headers["content-security-policy"] for answer in (first, second)]
        nonces = [re.findall(r"script-src 'nonce-([^']{20,})'", policy) for policy in policies]
        assert nonces[0] != nonces[1]
        for answer, policy, nonce in zip((first, second), policies, nonces, strict=True):
            assert policy.startswith("default-src 'none'")
            assert "unsafe" not in policy
            assert "require-trusted-types-for 'script'" in policy
            tags = re.findall(r"<script[^>]*>", answer.text)
            assert tags
            assert all(f'nonce="{nonce[0]}"' in tag and "src=" in tag for tag in tags)
            assert "<style" not in answer.text


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.name)
def test_no_module_makes_markup_of_a_string(module: Path) -> None:
    assert not MARKUP.findall(module.read_text(encoding="utf-8"))


async def test_a_browser_that_takes_no_gzip_gets_the_file_as_it_is(tmp_path: Path, nursery: trio.Nursery) -> None:
    async with await served(tmp_path, nursery) as http:
        base = LOADED.findall((await http.get("/")).text)[0].rpartition("/")[0]
        answer = await http.get(f"/{base}/main.js", headers={"accept-encoding": "identity"})
        assert "content-encoding" not in answer.headers
        assert answer.content == (STATIC / "main.js").read_bytes()


@pytest.mark.parametrize(
    "path", ["/static/other/main.js", "/static/BUILD/index.html", "/static/BUILD/..%2fapp.py", "/static/BUILD/"]
)
async def test_nothing_else_is_served(tmp_path: Path, nursery: trio.Nursery, path: str) -> None:
    async with await served(tmp_path, nursery) as http:
        build = LOADED.findall((await http.get("/")).text)[0].split("/")[1]
        answer = await http.get(path.replace("BUILD", build))
        assert answer.status_code in (400, 401, 404)


async def test_a_link_is_what_the_command_prints(tmp_path: Path, nursery: trio.Nursery) -> None:
    async with await served(tmp_path, nursery, "t0ken") as http:
        assert (await http.get(f"/api/link/{TREE}")).json() == {"cid": TREE, "path": view_path("t0ken", TREE)}
        assert (await http.get("/api/link/nonsense")).status_code == 400
    async with await served(tmp_path, nursery) as http:
        assert (await http.get(f"/api/link/{TREE}")).status_code == 401


def test_the_libraries_are_those_that_were_fetched() -> None:
    """`.ci/vendor` makes them, from versions whose hashes npm checks."""
    sums = dict(reversed(line.split()) for line in (STATIC / "vendor" / "SHA256SUMS").read_text().splitlines())
    assert set(sums) == {"ui.js", "charts.js", "uPlot.min.css", "LICENCES.txt"}
    for name, digest in sums.items():
        assert hashlib.sha256((STATIC / "vendor" / name).read_bytes()).hexdigest() == digest, name


def test_what_comes_from_suites_is_text() -> None:
    """No script makes markup of a string."""
    for path in STATIC.glob("*.js"):
        source = path.read_text()
        for way in (
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "dangerouslySetInnerHTML",
            "document.write",
            "eval(",
        ):
            assert way not in source, f"{path.name}: {way}"

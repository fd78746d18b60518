"""The gateway over real HTTP, with real content behind it."""

import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
import trio
from pytest_trio import trio_fixture

from mesh.api.checks import view_path
from mesh.api.server import serve_api
from mesh.content.store import EmbeddedContent, open_content
from mesh.content.unixfs.car import CarReader
from mesh.content.unixfs.cid import cid_of
from mesh.content.unixfs.hamt import SHARD_BYTES
from mesh.content.unixfs.nodes import HASH_MURMUR3, Block, Kind, Link, Node, encode_node
from protocols.errors import RemoteProtocolError
from protocols.ids import Cid
from tests.api.fake_backend import PEER, FakeBackend

TOKEN = "t0ken"
KNOWN = {"authorization": f"Bearer {TOKEN}"}
LARGE = hashlib.shake_256(b"large").digest(700_001)
PAGE = b"<script>fetch('/api/ticket')</script>"


@dataclass
class Served:
    url: str
    http: httpx.AsyncClient
    bare: httpx.AsyncClient
    """Without the token."""
    content: EmbeddedContent
    root: Cid

    async def get(self, path: str = "", **headers: str) -> httpx.Response:
        return await self.http.get(f"/ipfs/{self.root}{path}", headers=headers)


@trio_fixture
async def gateway(tmp_path: Path, nursery: trio.Nursery) -> AsyncIterator[Served]:
    tree = tmp_path / "tree"
    (tree / "records" / "ü ?#%").mkdir(parents=True)
    (tree / "site").mkdir()
    (tree / "report.json").write_bytes(b'{"counts": {}}')
    (tree / "large.bin").write_bytes(LARGE)
    (tree / "records" / "ü ?#%" / "a<b>").write_text("grüße\n")
    (tree / "records" / "log").write_bytes(b"plain words\n")
    (tree / "site" / "index.html").write_bytes(PAGE)
    (tree / "link").symlink_to("report.json")
    (tree / "empty").write_bytes(b"")
    async with open_content(tmp_path / "home") as content:
        root = await content.add_path(tree)
        url = await nursery.start(serve_api, "127.0.0.1:0", TOKEN, FakeBackend(), content, PEER, tmp_path)
        async with (
            httpx.AsyncClient(base_url=url, headers=KNOWN, trust_env=False, timeout=30) as http,
            httpx.AsyncClient(base_url=url, trust_env=False, timeout=30) as bare,
        ):
            yield Served(url, http, bare, content, root)
        nursery.cancel_scope.cancel()


def told(answer: httpx.Response, status: int) -> str:
    """The one sentence of an error."""
    assert answer.status_code == status
    assert set(answer.json()) == {"error", "exit_code"}
    assert "\n" not in answer.json()["error"]
    return str(answer.json()["error"])


async def test_a_file(gateway: Served) -> None:
    answer = await gateway.get("/report.json")
    assert (answer.status_code, answer.content) == (200, b'{"counts": {}}')
    entry = await gateway.content.look(gateway.root, "report.json")
    assert answer.headers["etag"] == f'"{entry.cid}"'
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["content-length"] == "14"
    assert "immutable" in answer.headers["cache-control"]
    assert "private" in answer.headers["cache-control"]
    assert answer.headers["x-ipfs-path"] == f"/ipfs/{gateway.root}/report.json"
    assert answer.headers["x-ipfs-roots"] == f"{gateway.root},{entry.cid}"
    assert (await gateway.get("/large.bin")).content == LARGE
    assert (await gateway.get("/empty")).content == b""
    link = await gateway.get("/link")
    assert (link.text, link.headers["content-type"]) == ("report.json", "inode/symlink")


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/records/log", "text/plain; charset=utf-8"),
        ("/large.bin", "application/octet-stream"),
        ("/site/index.html", "text/html; charset=utf-8"),
        ("/empty", "application/octet-stream"),
        (f"/records/{quote('ü ?#%')}/{quote('a<b>')}", "text/plain; charset=utf-8"),
    ],
)
async def test_types(gateway: Served, path: str, kind: str) -> None:
    assert (await gateway.get(path)).headers["content-type"] == kind
    head = await gateway.http.head(f"/ipfs/{gateway.root}{path}")
    assert (head.headers["content-type"], head.content) == (kind, b"")
    assert head.headers["content-length"] == str(len((await gateway.get(path)).content))


async def test_what_is_served_can_do_nothing(gateway: Served) -> None:
    for path in ("/site/", "/site/index.html", "/", "/report.json", "/large.bin?format=raw", "/?format=car"):
        answer = await gateway.get(path)
        assert answer.status_code == 200
        assert answer.headers["content-security-policy"].startswith("sandbox allow-downloads; default-src 'none'")
        assert "allow-scripts" not in answer.headers["content-security-policy"]
        assert "allow-same-origin" not in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["referrer-policy"] == "no-referrer"
    assert (await gateway.get("/site/")).content == PAGE


@pytest.mark.parametrize(
    ("given", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-", 0, 700_001),
        ("bytes=262143-262144", 262_143, 262_145),
        ("bytes=262144-524287", 262_144, 524_288),
        ("bytes=700000-", 700_000, 700_001),
        ("bytes=-7", 699_994, 700_001),
        ("bytes=-900000", 0, 700_001),
        ("bytes=600000-900000", 600_000, 700_001),
    ],
)
async def test_a_range(gateway: Served, given: str, start: int, stop: int) -> None:
    answer = await gateway.get("/large.bin", range=given)
    assert answer.status_code == 206
    assert answer.content == LARGE[start:stop]
    assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/700001"
    assert answer.headers["content-length"] == str(stop - start)


async def test_other_ranges(gateway: Served) -> None:
    for given in ("bytes=5-4", "bytes=1-2,4-5", "lines=1-2", "bytes=-", "bytes=x-", "bytes=" + "9" * 40 + "-"):
        assert (await gateway.get("/large.bin", range=given)).status_code == 200
    for given in ("bytes=700001-", "bytes=-0", "bytes=900000-900001"):
        answer = await gateway.get("/large.bin", range=given)
        assert "700001 bytes" in told(answer, 416)
        assert answer.headers["content-range"] == "bytes */700001"
    etag = (await gateway.get("/large.bin")).headers["etag"]
    assert (await gateway.get("/large.bin", **{"range": "bytes=0-0", "if-range": etag})).status_code == 206
    assert (await gateway.get("/large.bin", **{"range": "bytes=0-0", "if-range": '"x"'})).status_code == 200


async def test_a_range_loads_nothing_beside_it(gateway: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[Cid] = []
    load = gateway.content._repository.get_many

    async def counted(cids: list[Cid]) -> list[bytes | None]:
        loaded.extend(cids)
        return await load(cids)

    monkeypatch.setattr(gateway.content._repository, "get_many", counted)
    assert (await gateway.get("/large.bin", range="bytes=300000-300001")).content == LARGE[300_000:300_002]
    assert not {cid_of(LARGE[:262_144]), cid_of(LARGE[524_288:])} & set(loaded)


@pytest.mark.parametrize("path", ["/report.json", "/", "/large.bin?format=raw", "/?format=car", "/site/"])
async def test_what_the_client_has_is_not_sent_again(gateway: Served, path: str) -> None:
    etag = (await gateway.get(path)).headers["etag"]
    for given in (etag, f'"other", {etag}', "*"):
        again = await gateway.get(path, **{"if-none-match": given})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    assert (await gateway.get(path, **{"if-none-match": '"other"'})).status_code == 200


async def test_directories(gateway: Served) -> None:
    answer = await gateway.get("/records")
    assert (answer.status_code, answer.headers["location"]) == (302, "./records/")
    top = await gateway.get()
    assert (top.status_code, top.headers["location"]) == (302, f"./{gateway.root}/")
    page = await gateway.get("/records/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert 'href="./%C3%BC%20%3F%23%25"' in page.text
    assert 'href="../"' in page.text
    inner = await gateway.get(f"/records/{quote('ü ?#%')}/")
    assert 'href="./a%3Cb%3E">a&lt;b&gt;<' in inner.text
    assert "<b>" not in inner.text
    assert 'href="../"' not in (await gateway.get("/")).text


async def test_a_page_of_very_many(gateway: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mesh.api.gateway.LISTED_MAX", 2)
    page = (await gateway.get("/")).text
    assert "over 2 in all" in page
    assert page.count("href=") == 2


async def test_names_of_a_sharded_directory_and_such_that_are_no_unicode(gateway: Served) -> None:
    names = {f"n{number:060d}": b"%d" % number for number in range(SHARD_BYTES // 97 + 10)}
    raw = b"\xff\xfe".decode("utf-8", "surrogateescape")
    root = await gateway.content.add_files({**names, raw: b"odd"})
    assert (await gateway.http.get(f"/ipfs/{root}/n{7:060d}")).content == b"7"
    assert (await gateway.http.get(f"/ipfs/{root}/%FF%FE")).content == b"odd"
    assert 'href="./%FF%FE"' in (await gateway.http.get(f"/ipfs/{root}/")).text
    told(await gateway.http.get(f"/ipfs/{root}/n{7:059d}"), 404)
    way = (await gateway.content.look(root, f"n{7:060d}")).way
    assert len(way) > 2
    answer = await gateway.http.get(f"/ipfs/{root}/n{7:060d}?format=car")
    assert [block.cid for block in blocks_of(answer.content, root)] == list(way)


def blocks_of(car: bytes, root: Cid) -> list[Block]:
    reader = CarReader()
    blocks = reader.feed(car)
    reader.finish()
    assert reader.roots == (root,)
    return blocks


async def test_blocks_and_archives(gateway: Served) -> None:
    entry = await gateway.content.look(gateway.root, "large.bin")
    block = await gateway.content.get(entry.cid)
    for answer in (
        await gateway.get("/large.bin?format=raw"),
        await gateway.get("/large.bin", accept="application/vnd.ipld.raw"),
        await gateway.http.get(f"/ipfs/{entry.cid}", headers={"accept": "text/html;q=0.5, application/vnd.ipld.raw"}),
    ):
        assert (answer.content, answer.headers["content-type"]) == (block, "application/vnd.ipld.raw")
        assert answer.headers["content-disposition"] == f'attachment; filename="{entry.cid}.bin"'
    answer = await gateway.get("?format=car")
    assert answer.headers["content-type"] == "application/vnd.ipld.car; version=1; order=dfs; dups=n"
    everything = blocks_of(answer.content, gateway.root)
    assert everything[0].cid == gateway.root
    assert {entry.cid, cid_of(LARGE[:262_144])} <= {block.cid for block in everything}
    part = await gateway.get("/large.bin", accept="application/vnd.ipld.car; version=1")
    leaves = [cid_of(LARGE[at : at + 262_144]) for at in range(0, len(LARGE), 262_144)]
    assert [block.cid for block in blocks_of(part.content, gateway.root)] == [gateway.root, entry.cid, *leaves]
    one = await gateway.get("/large.bin?format=car&dag-scope=block")
    assert [block.cid for block in blocks_of(one.content, gateway.root)] == [gateway.root, entry.cid]
    head = await gateway.http.head(f"/ipfs/{gateway.root}?format=car")
    assert (head.status_code, head.content, "content-length" in head.headers) == (200, b"", False)
    cbor = await gateway.content.put(b"\xa1aa\x01", "dag-cbor")
    answer = await gateway.http.get(f"/ipfs/{cbor}")
    assert (answer.content, answer.headers["content-type"]) == (b"\xa1aa\x01", "application/vnd.ipld.dag-cbor")


@pytest.mark.parametrize(
    ("path", "status", "named"),
    [
        ("/absent", 404, "no 'absent'"),
        ("/report.json/below", 404, "no directory"),
        ("/%2e%2e/%2e%2e/etc/passwd", 404, "no '..'"),
        ("/..%2f..%2fapi.json", 404, "no '..'"),
        ("/records/..%00/x", 404, "no '..\\x00'"),
        ("/report.json?format=tar", 400, "'tar'"),
        ("/?format=car&dag-scope=half", 400, "'half'"),
    ],
)
async def test_what_is_not_there(gateway: Served, path: str, status: int, named: str) -> None:
    connection = await trio.open_tcp_stream("127.0.0.1", int(gateway.url.rpartition(":")[2]))
    async with connection:  # httpx would tidy the path up
        lines = f"GET /ipfs/{gateway.root}{path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}"
        await connection.send_all(f"{lines}\r\nconnection: close\r\n\r\n".encode())
        text = b"".join([part async for part in connection]).decode()
    assert text.startswith(f"HTTP/1.1 {status}")
    assert named in text.replace("\\\\", "\\")


async def test_what_is_no_cid_or_nowhere(gateway: Served) -> None:
    assert "'nonsense' is not a CID" in told(await gateway.http.get("/ipfs/nonsense/x"), 400)
    absent = cid_of(b"absent")
    assert absent in told(await gateway.http.get(f"/ipfs/{absent}"), 504)
    assert absent in told(await gateway.http.get(f"/ipfs/{absent}?format=car"), 504)
    half = encode_node(Node(Kind.FILE, links=(Link("", absent, 6),), size=6, sizes=(6,)))
    await gateway.content.put(half.data, "dag-pb")
    for query in ("", "?format=car"):
        assert absent in told(await gateway.http.get(f"/ipfs/{half.cid}{query}"), 504)
    assert told(await gateway.http.post(f"/ipfs/{gateway.root}"), 405)


async def test_dags_that_mean_harm(gateway: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """None of them goes on for ever, none is answered with other than was announced."""
    content = gateway.content

    async def put(node: Node) -> Cid:
        return await content.put(encode_node(node).data, "dag-pb")

    empty = await content.put(b"")
    file = empty  # 20 to the power of 12 leaves, and not one byte
    for _ in range(12):
        file = await put(Node(Kind.FILE, links=(Link("", file, 0),) * 20, sizes=(0,) * 20))
    with trio.fail_after(60):
        assert (await gateway.http.get(f"/ipfs/{file}")).content == b""
        assert len(blocks_of((await gateway.http.get(f"/ipfs/{file}?format=car")).content, file)) == 13
    liar = await put(Node(Kind.FILE, links=(Link("", empty, 0),), size=2**60, sizes=(2**60,)))
    assert (await gateway.http.get(f"/ipfs/{liar}")).status_code == 502
    short = await put(Node(Kind.FILE, b"abc", size=10))
    assert (await gateway.http.get(f"/ipfs/{short}")).status_code == 502
    shard = await put(Node(Kind.SHARD, b"\x01", (), fanout=8, hash_type=HASH_MURMUR3))
    for _ in range(24):
        links = tuple(Link(f"{slot:X}", shard, 0) for slot in range(8))
        shard = await put(Node(Kind.SHARD, b"\xff", links, fanout=8, hash_type=HASH_MURMUR3))
    with trio.fail_after(60):
        for path in ("", "name"):
            assert "deeper than its hash" in told(await gateway.http.get(f"/ipfs/{shard}/{path}"), 502)
        with pytest.raises(RemoteProtocolError, match="there twice"):
            await content.entries(shard, 10)
    junk = await content.put(b"\xff\xff", "dag-pb")
    assert (await gateway.http.get(f"/ipfs/{junk}")).status_code == 502
    monkeypatch.setattr("mesh.content.walking.DAG_BLOCKS_MAX", 3)
    with pytest.raises(httpx.RemoteProtocolError):
        await gateway.get("?format=car")


async def test_the_token_is_needed(gateway: Served) -> None:
    told(await gateway.bare.get(f"/ipfs/{gateway.root}/report.json"), 401)
    told(await gateway.bare.get(f"/ipfs/{gateway.root}/report.json", params={"token": TOKEN}), 401)


async def test_a_link_opens_one_root_for_reading_and_nothing_else(gateway: Served) -> None:
    link = view_path(TOKEN, gateway.root)
    assert TOKEN not in link
    answer = await gateway.bare.get(f"{link}/report.json")
    assert (answer.status_code, answer.content) == (200, b'{"counts": {}}')
    assert (await gateway.bare.get(link)).headers["location"] == f"./{gateway.root}/"
    page = await gateway.bare.get(f"{link}/", follow_redirects=True)
    assert 'href="./report.json"' in page.text
    assert (await gateway.bare.head(f"{link}/report.json")).status_code == 200
    other = await gateway.content.put(b"secret")
    key = link.split("/")[2]
    for path in (
        f"/view/{key}/ipfs/{other}",
        f"/view/{key}/ipfs/{gateway.root}x/report.json",
        f"/view/{key}/ipfs/{gateway.root}%2f..%2f{other}/..",
        f"/view/{key}/api/status",
        f"/view/{key}",
        "/view/",
        f"/view/{key[::-1]}/ipfs/{gateway.root}/report.json",
        f"/view//ipfs/{gateway.root}/report.json",
        f"/view/{view_path('other', gateway.root).split('/')[2]}/ipfs/{gateway.root}/report.json",
    ):
        assert (await gateway.bare.get(path)).status_code in (401, 404), path
    assert (await gateway.bare.post(f"{link}/report.json")).status_code == 401
    assert (await gateway.bare.get(f"{link}/report.json", headers={"host": "evil.example"})).status_code == 421


async def test_archives_by_path_on_the_host(gateway: Served, tmp_path: Path) -> None:
    target = tmp_path / "x.car"
    answer = await gateway.http.post("/api/export", json={"cid": gateway.root, "target": str(target)})
    assert answer.status_code == 200
    assert target.read_bytes() == (await gateway.get("?format=car")).content
    again = await gateway.http.post("/api/import", json={"path": str(target)})
    assert again.status_code == 201
    assert again.json() == {
        "roots": [{"cid": gateway.root, "whole": True}],
        "blocks": answer.json()["blocks"],
        "bytes": answer.json()["bytes"],
    }
    target.write_bytes(b"junk")
    assert "x.car is no CAR file" in told(await gateway.http.post("/api/import", json={"path": str(target)}), 400)
    assert "absolute path" in told(await gateway.http.post("/api/import", json={"path": "x.car"}), 400)

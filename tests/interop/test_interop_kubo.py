"""With a real Kubo: its blocks in our hands, ours in its, and a node whose content it keeps."""

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from mesh.content.kubo import open_kubo_content
from mesh.content.store import EmbeddedContent
from mesh.entries import ContentKind
from protocols.errors import ContentNotFound, NodeUnavailable, UsageError
from protocols.ids import Cid, PeerId
from tests.content.content_nodes import KEY, node_maker, poll
from tests.interop.kubo_daemon import Kubo, kubo_program, needs_kubo, new_kubo

pytestmark = [pytest.mark.kubo, needs_kubo]

if kubo_program() is None:
    print("Kubo is missing: interop tests with it are skipped (set MESH_KUBO, or run .ci/kubo)")


@pytest.fixture(scope="module")
def kubo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubo]:
    home = tmp_path_factory.mktemp("kubo")
    with new_kubo(home, KEY).running() as running:
        yield running


def random_bytes(count: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(count)


async def test_blocks_go_both_ways_by_bitswap(kubo: Kubo, tmp_path: Path) -> None:
    ours, theirs = random_bytes(20_000_000, 2), random_bytes(20_000_000, 3)
    (tmp_path / "theirs").write_bytes(theirs)
    async with node_maker(tmp_path)() as node:
        address = await trio.to_thread.run_sync(lambda: kubo.address)
        peer = PeerId(kubo.peer)
        node.network.know(peer, [address])
        with trio.fail_after(20):
            await poll(lambda: peer in node.network.links())
        there = await trio.to_thread.run_sync(
            lambda: kubo.run("add", "-Q", "--cid-version=1", str(tmp_path / "theirs")).strip()
        )
        with trio.fail_after(30):
            await node.content.fetch(Cid(there), [peer])
        assert b"".join([data async for data in node.content.read(Cid(there))]) == theirs
        here = await node.content.add_files({"dir/file": ours})
        with trio.fail_after(30):
            await trio.to_thread.run_sync(lambda: kubo.run("get", "-o", str(tmp_path / "got"), here))
        assert (tmp_path / "got" / "dir" / "file").read_bytes() == ours


async def test_a_node_on_kubo_and_an_embedded_one_share_content(kubo: Kubo, tmp_path: Path) -> None:
    make = node_maker(tmp_path)
    async with make() as embedded, make() as second, open_kubo_content(kubo.api, second.network.host) as on_kubo:
        await embedded.meet(second)
        root = await on_kubo.add_files({"a/b": random_bytes(2_000_000, 4), "c": b"c"})
        await embedded.content.fetch(root, [second.network.peer_id], timeout=15)
        await embedded.content.checkout(root, tmp_path / "out")
        assert (tmp_path / "out" / "a" / "b").read_bytes() == random_bytes(2_000_000, 4)
        back = await embedded.content.add_files({"x/y": random_bytes(2_000_000, 5)})
        assert not await on_kubo.has(back)
        await on_kubo.fetch(back, [embedded.network.peer_id], timeout=15)
        assert await on_kubo.has(back)
        await on_kubo.checkout(back, tmp_path / "back")
        assert (tmp_path / "back" / "x" / "y").read_bytes() == random_bytes(2_000_000, 5)


async def test_the_port_on_kubo(kubo: Kubo, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree" / "run.sh").write_bytes(b"#!/bin/sh\n")
    (tmp_path / "tree" / "run.sh").chmod(0o755)
    async with open_kubo_content(kubo.api) as content:
        cids = await content.put_many([b"\xa0", b"\x81\x00"], "dag-cbor")
        assert [await content.get(cid) for cid in cids] == [b"\xa0", b"\x81\x00"]
        root = await content.add_path(tmp_path / "tree")
        assert await content.has(root)
        await content.pin(root, "a report")
        assert (await content.pins())[root] == "a report"
        await content.checkout(root, tmp_path / "out")
        assert os.access(tmp_path / "out" / "run.sh", os.X_OK)
        assert b"".join([data async for data in content.read(root, "run.sh")]) == b"#!/bin/sh\n"
        entry = await content.look(root, "run.sh")
        assert (entry.kind, entry.size) == (ContentKind.FILE, 10)
        assert [one.name for one in await content.entries(root, 10)] == ["run.sh"]
        await content.export_archive(root, tmp_path / "x.car")
        assert (tmp_path / "x.car").read_bytes() == await trio.to_thread.run_sync(kubo.export, root)
        assert (await content.import_archive(tmp_path / "x.car")).roots == (root,)
        await content.unpin(root)
        await content.unpin(root)
        assert root not in await content.pins()
        assert (await content.stat()).blocks > 3
        missing = Cid("bafkreigejbqgoabpokezrwcjg4gmmbtbibcrwtp42djzkda373tu5vtm7e")
        assert not await content.has(missing)
        with pytest.raises(ContentNotFound, match=missing):
            await content.get(missing, timeout=0.5)


async def test_a_daemon_that_is_gone_is_said(tmp_path: Path) -> None:
    kubo = new_kubo(tmp_path / "kubo", KEY)
    with kubo.running():
        address = kubo.api
        async with open_kubo_content(address) as content:
            cid = await content.put(b"x")
            kubo.run("shutdown")
            with trio.fail_after(20), pytest.raises(NodeUnavailable, match=r"the Kubo daemon at .* does not answer"):
                await get_for_ever(content, cid)
            with pytest.raises(NodeUnavailable):
                await content.put(b"y")
    with pytest.raises(NodeUnavailable, match="does not answer"):
        async with open_kubo_content(address):
            pass
    with pytest.raises(UsageError, match="no address of a Kubo"):
        async with open_kubo_content("/ip4/127.0.0.1/udp/1"):
            pass


async def test_a_daemon_that_hangs_is_said_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mesh.content.kubo.CALL_SECONDS_MAX", 1.0)
    monkeypatch.setattr("mesh.content.kubo.PIN_SECONDS_MAX", 1.0)
    kubo = new_kubo(tmp_path / "kubo", KEY)
    with kubo.running():
        async with open_kubo_content(kubo.api) as content:
            cid = await content.put(b"x")
            with kubo.stopped():
                for call in (
                    lambda: content.put(b"y"),
                    lambda: content.get(cid),
                    lambda: content.pin(cid, "a report"),
                    lambda: content.has(cid),
                    content.stat,
                    content.pins,
                ):
                    with trio.fail_after(30), pytest.raises(NodeUnavailable, match="does not answer"):
                        await call()  # type: ignore[operator]
            assert await content.get(cid) == b"x"


async def get_for_ever(content: EmbeddedContent, cid: Cid) -> None:
    """A daemon that shuts down answers a little longer."""
    while True:
        await content.get(cid)

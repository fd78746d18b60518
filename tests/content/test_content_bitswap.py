"""Bitswap between real hosts on loopback."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import trio

from mesh.content.bitswap import exchange as exchange_module
from mesh.content.bitswap.wire import Entry, encode
from mesh.content.store import EmbeddedContent
from mesh.content.unixfs.cid import cid_bytes, cid_of
from protocols.errors import ContentNotFound
from protocols.ids import Cid
from tests.content.content_nodes import ContentNode, NodeMaker, Stranger, poll, random_bytes


async def read_all(content: EmbeddedContent, root: Cid, path: str = "") -> bytes:
    return b"".join([data async for data in content.read(root, path)])


async def test_a_tree_travels_and_only_what_changed_travels_again(content_node: NodeMaker, tmp_path: Path) -> None:
    files = {f"d{i % 7}/f{i}": random_bytes(100, i) for i in range(300)} | {"large": random_bytes(3_000_000)}
    async with content_node() as one, content_node() as two:
        await two.meet(one)
        first = await one.content.add_files(files)
        await two.content.fetch(first, [one.network.peer_id], timeout=10)
        assert await two.content.has(first)
        await two.content.checkout(first, tmp_path / "out")
        assert (tmp_path / "out" / "large").read_bytes() == files["large"]
        before = (await two.content.stat()).blocks
        second = await one.content.add_files(files | {"d3/f3": b"edited"})
        await two.content.fetch(second, [one.network.peer_id], timeout=10)
        assert (await two.content.stat()).blocks - before == 3, "the file, its directory and the root"
        assert two.exchange.unwanted == 0


async def test_without_holders_everybody_is_asked(content_node: NodeMaker) -> None:
    async with content_node() as one, content_node() as two, content_node() as three:
        await three.meet(one, two)
        root = await two.content.add_files({"a": random_bytes(700_000)})
        assert await read_all(three.content, root, "a") == random_bytes(700_000)
        alone = await one.content.put(b"only one has this")
        assert await three.content.get(alone, timeout=10) == b"only one has this"


async def test_a_holder_with_half_of_it_and_another_with_the_rest(content_node: NodeMaker) -> None:
    parts = [random_bytes(50_000, seed) for seed in range(20)]
    async with content_node() as one, content_node() as two, content_node() as three:
        await three.meet(one, two)
        root = await one.content.add_files({str(i): data for i, data in enumerate(parts)})
        halves = [cid_of(data) for data in parts[10:]]
        await two.content.put_many(parts[10:])
        for cid in halves:
            one.repository._store._forget_damaged(b"\x12\x20" + cid_bytes(cid)[-32:])
        await three.content.fetch(root, [one.network.peer_id], timeout=10)
        assert await three.content.has(root)


async def test_what_nobody_has_is_said_in_time(content_node: NodeMaker) -> None:
    missing = cid_of(b"nobody has this")
    async with content_node() as one, content_node() as two:
        await two.meet(one)
        with pytest.raises(ContentNotFound, match=missing):
            await two.content.get(missing, [one.network.peer_id], timeout=0.5)
        with pytest.raises(ContentNotFound, match=missing):
            await two.content.fetch(missing, timeout=0.5)
        assert not two.exchange._wants


async def test_a_block_that_comes_later_is_delivered(content_node: NodeMaker) -> None:
    late = cid_of(b"late")
    async with content_node() as one, content_node() as two:
        await two.meet(one)
        async with trio.open_nursery() as nursery:

            @nursery.start_soon
            async def put_later() -> None:
                await one_knows(one, late)
                await one.content.put(b"late")

            with trio.fail_after(3):
                assert await two.content.get(late, [one.network.peer_id], timeout=3) == b"late"


async def one_knows(node: ContentNode, cid: Cid) -> None:
    """Return when somebody has asked `node` for the block."""
    key = cid_bytes(cid)[-34:]
    await poll(lambda: any(key in peer._theirs for peer in node.exchange._peers.values()))


async def test_waiters_share_one_want(content_node: NodeMaker) -> None:
    data = random_bytes(200_000)
    async with content_node() as one, content_node() as two:
        await two.meet(one)
        cid = await one.content.put(data)
        got = []

        async def get() -> None:
            got.append(await two.content.get(cid, [one.network.peer_id], timeout=5))

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(get)
        assert got == [data] * 20
        assert two.exchange.unwanted == 0


async def test_haves_dont_haves_and_cancels(content_node: NodeMaker) -> None:
    async with content_node() as node, content_node() as other:
        stranger = Stranger(other)
        await node.meet(other)
        here = await node.content.put(b"here")
        there = cid_of(b"there")
        stream = await stranger.open(node)
        asks = [Entry(cid_bytes(cid), have=True, tell_missing=True) for cid in (here, there)]
        await stream.write(encode(asks, (), (), ()))
        await stranger.wait(lambda got: any(m.haves for m in got) and any(m.missing for m in got))
        assert not any(m.blocks for m in stranger.got), "whether it is there was asked, not the block"
        await stream.write(encode([Entry(cid_bytes(there), cancel=True), Entry(cid_bytes(here))], (), (), ()))
        await stranger.wait(lambda got: any(m.blocks for m in got))
        await node.content.put(b"there")
        last = await node.content.put(b"last")
        await stream.write(encode([Entry(cid_bytes(last))], (), (), ()))
        await stranger.wait(lambda got: any(data == b"last" for m in got for _, data in m.blocks))
        assert [data for m in stranger.got for _, data in m.blocks] == [b"here", b"last"], (
            "a cancelled want was answered"
        )


async def test_a_huge_wantlist_costs_entries_and_no_blocks(
    content_node: NodeMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = random_bytes(250_000)
    async with content_node() as node, content_node() as other:
        stranger = Stranger(other)
        await node.meet(other)
        cid = await node.content.put(data)
        loaded = 0
        read = node.repository.get_some

        async def count(cids: Sequence[Cid], bytes_max: int) -> list[bytes | None]:
            nonlocal loaded
            loaded += len(cids)
            return await read(cids, bytes_max)

        monkeypatch.setattr(node.repository, "get_some", count)
        stream = await stranger.open(node)
        nonsense = [Entry(cid_bytes(cid_of(b"%d" % i))) for i in range(4000)]
        await stream.write(encode([Entry(cid_bytes(cid))] * 1500, (), (), ()))
        await stranger.wait(lambda got: any(m.blocks for m in got))
        await stream.write(encode(nonsense, (), (), ()))
        last = await node.content.put(b"last")
        stream = await stranger.open(node)
        await stream.write(encode([Entry(cid_bytes(last), tell_missing=True)], (), (), ()))
        (peer,) = node.exchange._peers.values()
        await poll(lambda: peer._theirs)
        assert len(peer._theirs) <= 2048
        assert loaded < 10 + 4000
        assert sum(len(m.blocks) for m in stranger.got) <= 2


async def test_a_stalled_holder_is_passed_over(content_node: NodeMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange_module, "STALL_SECONDS", 0.3)
    data = random_bytes(600_000)
    async with content_node() as silent, content_node() as good, content_node() as node:
        Stranger(silent)
        await node.meet(silent, good)
        root = await good.content.add_files({"a": data})
        with trio.fail_after(10):
            await node.content.fetch(root, [silent.network.peer_id], timeout=8)
        assert await read_all(node.content, root, "a") == data


async def test_a_fetch_goes_on_when_its_holder_leaves(content_node: NodeMaker) -> None:
    data = random_bytes(20_000_000)
    async with content_node() as two, content_node() as node:
        async with content_node() as one:
            await node.meet(one, two)
            root = await one.content.add_files({"a": data})
            assert await two.content.add_files({"a": data}) == root
            async with trio.open_nursery() as nursery:
                nursery.start_soon(node.content.fetch, root, [one.network.peer_id], 15)
                await poll(lambda: node.repository._store._blocks >= 5)
                nursery.start_soon(_leave, one)
        assert await node.content.has(root)


async def _leave(one: ContentNode) -> None:
    await one.network.host.close()

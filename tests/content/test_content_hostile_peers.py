"""Peers that mean harm, on real hosts: each offence costs the peer its connection, and the node nothing."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from mesh.content import fetching
from mesh.content.bitswap import conduct
from mesh.content.bitswap.conduct import Allowance, Conduct, ShutOut
from mesh.content.bitswap.exchange import UNFINISHED_BYTES_MAX
from mesh.content.bitswap.peers import WANTS_PER_PEER_MAX
from mesh.content.bitswap.wire import ITEMS_PER_MESSAGE_MAX, MESSAGE_BYTES_MAX, Entry, Message, encode
from mesh.content.unixfs.cid import DAG_PB, SHA2_256, cid_bytes, cid_of
from mesh.content.unixfs.nodes import Kind, Link, Node, encode_node
from mesh.content.unixfs.protobuf import delimited, varint
from protocols.errors import ContentNotFound, RemoteProtocolError
from protocols.ids import PeerId
from tests.content.content_nodes import ContentNode, NodeMaker, Stranger, poll


@asynccontextmanager
async def dropped(
    node: ContentNode, other: ContentNode, caplog: pytest.LogCaptureFixture, why: str
) -> AsyncIterator[None]:
    """Within, `other` does what makes `node` hang up on it, name it and say why; nothing of it is kept."""
    gone = trio.Event()
    node.network.watch(lambda peer, here: None if here or peer != other.network.peer_id else gone.set())
    yield
    with trio.fail_after(10):
        await gone.wait()
    (line,) = (record.getMessage() for record in caplog.records if "is dropped" in record.getMessage())
    assert other.network.peer_id in line
    assert why in line
    with trio.fail_after(5):
        await poll(lambda: other.network.peer_id not in node.exchange._peers)


async def test_unsolicited_blocks(content_node: NodeMaker, caplog: pytest.LogCaptureFixture) -> None:
    async with content_node() as node, content_node() as other:
        stranger = Stranger(other)
        await node.meet(other)
        async with dropped(node, other, caplog, "not asked for"):
            await stranger.say(node, encode((), [(cid_of(b"%d" % i), b"%d" % i) for i in range(400)], (), ()))
        assert (await node.content.stat()).blocks == 0
        with trio.fail_after(20):  # it may come back, and is not heard
            await poll(lambda: other.network.peer_id in node.network.links())
        here = await node.content.put(b"here")
        await stranger.say(node, encode([Entry(cid_bytes(here))], (), (), ()))
        with pytest.raises(ContentNotFound):
            await node.content.get(cid_of(b"nobody's"), [other.network.peer_id], timeout=0.3)
        assert not stranger.got, "it is neither answered nor asked"


async def test_wrong_blocks(content_node: NodeMaker, caplog: pytest.LogCaptureFixture) -> None:
    """Whoever has the right ones is asked then."""
    async with content_node() as node, content_node() as other, content_node() as good:
        stranger = Stranger(other)
        await node.meet(other, good)
        root = await good.content.add_files({f"f{i}": b"%d" % i for i in range(50)})

        def wrong(message: Message) -> bytes:
            asked = [entry for entry in message.entries if not entry.cancel]
            return encode((), [(root, entry.cid) for entry in asked for _ in range(10)], (), ())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(stranger.answer, node, wrong)
            async with dropped(node, other, caplog, "or others than those"):
                await node.content.fetch(root, [other.network.peer_id], timeout=10)
            nursery.cancel_scope.cancel()
        assert await node.content.has(root)
        assert (await node.content.stat()).blocks == 51


async def test_one_wrong_block_is_forgiven(content_node: NodeMaker) -> None:
    wanted = cid_of(b"the right one")
    async with content_node() as node, content_node() as other:
        stranger = Stranger(other)
        await node.meet(other)
        both = encode((), [(wanted, b"a wrong one"), (wanted, b"the right one")], (), ())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stranger.answer, node, lambda message: both if message.entries else b"")
            assert await node.content.get(wanted, [other.network.peer_id], timeout=5) == b"the right one"
            nursery.cancel_scope.cancel()
        assert node.exchange.unwanted == 1
        assert (await node.content.stat()).blocks == 1


@pytest.mark.parametrize("messages", [1, 50])
async def test_wantlists_of_100_000_entries(
    content_node: NodeMaker, caplog: pytest.LogCaptureFixture, messages: int
) -> None:
    entries = [Entry(SHA2_256 + i.to_bytes(32, "big")) for i in range(100_000)]  # as CIDv0: all fit in one message
    size = len(entries) // messages
    async with content_node() as node, content_node() as other:
        stranger = Stranger(other)
        await node.meet(other)
        held = 0

        def watch_ledger(peer: PeerId) -> None:
            nonlocal held
            state = node.exchange._peers.get(peer)
            held = max(held, len(state._theirs) if state else 0)

        async with dropped(node, other, caplog, "wants" if messages > 1 else "entries"):
            for at in range(messages):
                await stranger.say(node, encode(entries[at * size : (at + 1) * size], (), (), ()))
                watch_ledger(other.network.peer_id)
        assert held <= WANTS_PER_PEER_MAX


@pytest.mark.parametrize(
    ("junk", "why"),
    [
        (b"\xff" * 40, "varint"),
        (b"\x05\x0a\xff\xff\xff\xff", "varint"),
        (b"\x03\x0b\x01\x02", "wire type"),
        (varint(MESSAGE_BYTES_MAX + 1), "over the limit"),
        (varint(2 * 9000) + delimited(3, b"") * 9000, str(ITEMS_PER_MESSAGE_MAX)),
    ],
)
async def test_junk(content_node: NodeMaker, caplog: pytest.LogCaptureFixture, junk: bytes, why: str) -> None:
    async with content_node() as node, content_node() as other:
        stranger = Stranger(other)
        await node.meet(other)
        async with dropped(node, other, caplog, why):
            await stranger.say(node, junk)


async def test_messages_without_an_end(content_node: NodeMaker, caplog: pytest.LogCaptureFixture) -> None:
    begun = varint(MESSAGE_BYTES_MAX) + bytes(1_000_000)
    async with content_node() as node, content_node() as other:
        stranger = Stranger(other)
        await node.meet(other)
        async with dropped(node, other, caplog, "lack their end"), trio.open_nursery() as nursery:
            for _ in range(2 * UNFINISHED_BYTES_MAX // 1_000_000):
                nursery.start_soon(stranger.say, node, begun)
        assert not node.exchange._unfinished


async def test_a_holder_that_breaks_its_word(
    content_node: NodeMaker, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conduct, "BROKEN_WORDS_MAX", 3)
    async with content_node() as node, content_node() as other:
        stranger = Stranger(other)
        await node.meet(other)

        def promise(message: Message) -> bytes:
            asked = [entry.cid for entry in message.entries if not entry.cancel and entry.have]
            wanted = [entry.cid for entry in message.entries if not entry.cancel and not entry.have]
            return encode((), (), asked, wanted)

        async def want(number: int) -> None:
            with pytest.raises(ContentNotFound):
                await node.content.get(cid_of(b"%d" % number), timeout=1)

        async with dropped(node, other, caplog, "does not give"), trio.open_nursery() as nursery:
            async with trio.open_nursery() as wants:
                nursery.start_soon(stranger.answer, node, promise)
                for number in range(8):
                    wants.start_soon(want, number)
            nursery.cancel_scope.cancel()


async def endless(
    content_node: NodeMaker, caplog: pytest.LogCaptureFixture, blocks: dict[bytes, bytes], top: bytes, why: str
) -> None:
    """A fetch of what never ends ends, and whoever gives it is dropped."""
    async with content_node() as node, content_node() as other:
        stranger = Stranger(other)
        await node.meet(other)

        def give(message: Message) -> bytes:
            asked = [entry.cid for entry in message.entries if not entry.cancel and entry.cid in blocks]
            return encode((), [(cid_of(blocks[cid], DAG_PB), blocks[cid]) for cid in asked], (), ())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(stranger.answer, node, give)
            async with dropped(node, other, caplog, why):
                with trio.fail_after(20), pytest.raises(RemoteProtocolError, match=why):
                    await node.content.fetch(cid_of(top, DAG_PB), [other.network.peer_id])
            nursery.cancel_scope.cancel()
        assert not await node.content.has(cid_of(top, DAG_PB))


def directory(links: int, below: bytes, number: int) -> bytes:
    inside = [Link(f"{number}-{i}", cid_of(below, DAG_PB), 1) for i in range(links)]
    return encode_node(Node(Kind.DIRECTORY, links=tuple(inside))).data


async def test_a_chain_of_blocks_without_end(
    content_node: NodeMaker, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "DEPTH_MAX", 30)
    top, blocks = b"", {}
    for number in range(100):
        top = directory(1, top, number)
        blocks[cid_bytes(cid_of(top, DAG_PB))] = top
    await endless(content_node, caplog, blocks, top, "over 30 blocks above one another")


@pytest.mark.parametrize(("limit", "why"), [("BLOCKS_MAX", "over 40 blocks"), ("BYTES_MAX", "over 40 bytes")])
async def test_more_blocks_and_bytes_than_anybody_needs(
    content_node: NodeMaker, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, limit: str, why: str
) -> None:
    monkeypatch.setattr(fetching, limit, 40)
    leaves = [directory(1, b"%d" % number, number) for number in range(100)]
    links = tuple(Link(f"{number:03}", cid_of(leaf, DAG_PB), 1) for number, leaf in enumerate(leaves))
    top = encode_node(Node(Kind.DIRECTORY, links=links)).data
    blocks = {cid_bytes(cid_of(data, DAG_PB)): data for data in (*leaves, top)}
    await endless(content_node, caplog, blocks, top, why)


def test_an_allowance_comes_back_with_time() -> None:
    allowance = Allowance(3, 2.0, now=0.0)
    assert [allowance.spend(1, 1.0) for _ in range(4)] == [True, True, True, False]
    assert allowance.spend(1, 5.0)
    assert not allowance.spend(1, 5.0)
    assert allowance.spend(3, 1000.0)
    assert not allowance.spend(1, 1000.0), "it never exceeds what it was"


def test_a_block_that_was_asked_for_may_come_late_and_only_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conduct, "UNASKED_BLOCKS_MAX", 1)
    peer = Conduct(0.0)
    peer.asked(b"a")
    peer.gave(b"a", 0.0)
    peer.gave(b"a", 0.0)
    with pytest.raises(RemoteProtocolError, match="not asked for"):
        peer.gave(b"a", 0.0)


def test_who_is_shut_out_is_heard_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conduct, "SHUT_OUT_MAX", 2)
    shut_out = ShutOut()
    one, two, three = (PeerId(f"12D3KooW{name}") for name in ("A", "B", "C"))
    shut_out.add(one, 0.0)
    assert shut_out.holds(one, conduct.SHUT_OUT_SECONDS - 1)
    assert not shut_out.holds(one, conduct.SHUT_OUT_SECONDS + 1)
    for peer in (one, two, three):
        shut_out.add(peer, 100.0)
    assert [shut_out.holds(peer, 101.0) for peer in (one, two, three)] == [False, True, True]

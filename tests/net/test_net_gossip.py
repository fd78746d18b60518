"""Gossip between real hosts, and against hosts that misbehave (rows 2 and 8 of the show-stoppers)."""

import random
import time

import pytest
import trio
from libp2p.network.stream.exceptions import StreamError
from libp2p.peer.id import ID
from libp2p.pubsub.pb import rpc_pb2
from libp2p.utils import encode_varint_prefixed
from net_helpers import poll

from mesh.net.gossip import PROTOCOL
from mesh.ports import MESSAGE_BYTES_MAX
from protocols.errors import LocalProtocolError

TOPIC = "presence"


async def heard(sender, payload, inboxes):
    """Publish until everyone has it: gossip is a hint, and a mesh takes a moment to form."""
    with trio.fail_after(10):
        while not all(any(got[1] == payload for got in inbox) for inbox in inboxes):
            await sender.publish(TOPIC, payload)
            with trio.move_on_after(0.1):
                await poll(lambda: all(any(got[1] == payload for got in inbox) for inbox in inboxes))


def listen(node):
    inbox = []
    node.subscribe(TOPIC, lambda peer, payload: inbox.append((peer, payload)))
    return inbox


async def test_reaches_everyone_through_others_with_the_authors_name(make_node, connect):
    async with make_node() as a, make_node() as b, make_node() as c:
        await connect(a, b)
        await connect(b, c)
        inboxes = {node: listen(node) for node in (a, b, c)}
        await heard(a, b"hello", [inboxes[b], inboxes[c]])
        assert set(inboxes[b]) == set(inboxes[c]) == {(a.peer_id, b"hello")}
        assert inboxes[a] == []  # not one's own
        assert not any(other in a.links() for other in (c.peer_id,))


async def test_payloads_up_to_the_bound_and_not_over(make_node, connect):
    async with make_node() as a, make_node() as b:
        await connect(a, b)
        listen(a)
        inbox = listen(b)
        await heard(a, b"warm", [inbox])
        await a.publish(TOPIC, bytes(MESSAGE_BYTES_MAX))
        with trio.fail_after(5):
            await poll(lambda: (a.peer_id, bytes(MESSAGE_BYTES_MAX)) in inbox)
        with pytest.raises(LocalProtocolError, match="900001"):
            await a.publish(TOPIC, bytes(MESSAGE_BYTES_MAX + 1))


async def test_a_raising_handler_does_not_stop_the_next_one(make_node, connect, caplog):
    async with make_node() as a, make_node() as b:
        await connect(a, b)

        def bad(peer, payload):
            raise ValueError("handler bug")

        b.subscribe(TOPIC, bad)
        inbox = listen(b)
        listen(a)
        await heard(a, b"1", [inbox])
        await heard(a, b"2", [inbox])
        assert "handler bug" in caplog.text


async def test_row_8_a_restarted_publisher_is_heard(make_node, connect):
    """Unpatched: its first messages had the sequence numbers of its last life, and were dropped as seen."""
    async with make_node() as b:
        inbox = listen(b)
        for life in range(2):
            async with make_node(home="a") as a:
                listen(a)
                await connect(a, b)
                await heard(a, b"warm %d" % life, [inbox])
                for number in range(20):
                    await a.publish(TOPIC, b"%d %d" % (life, number))
                with trio.fail_after(5):
                    await poll(lambda life=life: (a.peer_id, b"%d 19" % life) in inbox)
            got = {payload for _, payload in inbox}
            assert {b"%d %d" % (life, number) for number in range(20)} <= got
    assert a._gossip.pubsub.counter > time.time_ns() - 3600e9


async def test_a_subscription_made_during_the_greeting_is_told(make_node, connect, monkeypatch):
    """Unpatched: the peer never learnt of it."""
    async with make_node() as a, make_node() as b:
        greeting, gate = trio.Event(), trio.Event()
        original = a.host.new_stream

        async def new_stream(peer, protocols):
            stream = await original(peer, protocols)
            if protocols == (PROTOCOL,) or list(protocols) == [PROTOCOL]:
                write = stream.write

                async def late(data):
                    greeting.set()
                    await gate.wait()
                    await write(data)

                stream.write = late
            return stream

        monkeypatch.setattr(a.host, "new_stream", new_stream)
        await connect(a, b)
        with trio.fail_after(5):
            await greeting.wait()
            inbox = listen(a)
            await poll(lambda: TOPIC in a._gossip.pubsub.topic_ids)
            gate.set()
        listen(b)
        await heard(b, b"hello", [inbox])


async def gossip_stream(a, b):
    return await a.host.new_stream(ID.from_base58(b.peer_id), [PROTOCOL])


@pytest.mark.parametrize("junk", [b"\x05\xff\xff\xff\xff\xff", b"\xff" * 12, b"\xff\xff\xff\x7f", b"\x03ab"])
async def test_row_2_garbage_on_a_gossip_stream(make_node, connect, junk):
    """Unpatched: six bytes took the host down."""
    async with make_node() as a, make_node() as b:
        await connect(a, b)
        inbox = listen(b)
        listen(a)
        stream = await gossip_stream(a, b)
        await stream.write(junk)
        await stream.close()
        await heard(a, b"still here", [inbox])


async def test_row_2_a_raising_validator(make_node, connect):
    async with make_node() as a, make_node() as b:
        await connect(a, b)
        inbox = listen(b)
        listen(a)
        await heard(a, b"before", [inbox])

        def raising(forwarder, message):
            if message.data == b"bad":
                raise ZeroDivisionError
            return True

        b._gossip.pubsub.set_topic_validator(TOPIC, raising, False)
        await a.publish(TOPIC, b"bad")
        await heard(a, b"after", [inbox])
        assert (a.peer_id, b"bad") not in inbox


async def test_unsigned_and_forged_messages_are_dropped(make_node, connect):
    async with make_node() as a, make_node() as b:
        await connect(a, b)
        inbox = listen(b)
        listen(a)
        await heard(a, b"true", [inbox])
        stream = await gossip_stream(a, b)
        for number, author in enumerate((a, b)):
            forged = rpc_pb2.Message(
                data=b"forged",
                topicIDs=[TOPIC],
                from_id=ID.from_base58(author.peer_id).to_bytes(),
                seqno=number.to_bytes(8, "big"),
                signature=bytes(64),
                key=author.host.get_public_key().serialize(),
            )
            await stream.write(encode_varint_prefixed(rpc_pb2.RPC(publish=[forged]).SerializeToString()))
        await heard(a, b"later", [inbox])
        assert {payload for _, payload in inbox} == {b"true", b"later"}


async def test_row_2_fuzzed_rpcs(make_node, connect):
    """One peer's junk does not come between two others."""
    chance = random.Random(7)
    async with make_node() as a, make_node() as b, make_node() as hostile:
        await connect(a, b)
        await connect(hostile, b)
        inbox = listen(b)
        listen(a)
        stream = await gossip_stream(hostile, b)
        with trio.fail_after(20):
            for _ in range(300):
                try:
                    await stream.write(encode_varint_prefixed(fuzzed(chance).SerializeToString()))
                except StreamError:
                    stream = await gossip_stream(hostile, b)
            await heard(a, b"still here", [inbox])
        assert {author for author, _ in inbox} == {a.peer_id}


def fuzzed(chance):
    """An RPC that parses, full of things that should not be there."""

    def junk(most=40):
        return chance.randbytes(chance.randrange(most))

    topics = [TOPIC, "", "x" * 300, "other"]
    rpc = rpc_pb2.RPC()
    for _ in range(chance.randrange(3)):
        rpc.subscriptions.add(subscribe=chance.random() < 0.5, topicid=chance.choice(topics))
    for _ in range(chance.randrange(3)):
        rpc.publish.add(
            data=junk(),
            from_id=junk(),
            seqno=junk(12),
            signature=junk(70),
            key=junk(),
            topicIDs=chance.choices(topics, k=2),
        )
    if chance.random() < 0.6:
        rpc.control.ihave.add(topicID=chance.choice(topics), messageIDs=[b"('a', 'b')", b"junk", junk()])
        rpc.control.iwant.add(messageIDs=[b"junk", b"__import__('os')", junk(), b""])
        rpc.control.graft.add(topicID=chance.choice(topics))
        prune = rpc.control.prune.add(topicID=chance.choice(topics), backoff=chance.getrandbits(40))
        prune.peers.add(peerID=junk(), signedPeerRecord=junk())
    if chance.random() < 0.2:
        rpc.senderRecord = junk(200)
    return rpc

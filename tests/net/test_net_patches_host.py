"""What the other patches mend, on real hosts (rows 2, 3, 4, 8, 9 and 10 of the show-stoppers)."""

import importlib.metadata
import logging
import socket
from contextlib import suppress

import libp2p.io.trio
import libp2p.network.swarm
import pytest
import trio
import trio.testing
from libp2p.custom_types import TProtocol
from libp2p.host.exceptions import StreamFailure
from libp2p.network.stream.exceptions import StreamError
from libp2p.peer.id import ID
from net_helpers import KEY, poll

from mesh.net import patches, transport
from mesh.net.contain import contained
from mesh.net.psk import XSalsa20
from protocols.errors import MeshError, NodeUnavailable

ODD = TProtocol("/test/odd/1")


@pytest.fixture
async def pair(make_node, connect):
    async with make_node() as a, make_node() as b:
        await connect(a, b)
        yield a, b


async def alive(a, b):
    async def echo(peer, payload):
        return payload

    b.on_call("/test/echo/1", echo)
    with trio.fail_after(5):
        return await a.call(b.peer_id, "/test/echo/1", b"alive") == b"alive"


async def open_stream(a, b, protocol=ODD):
    return await a.host.new_stream(ID.from_base58(b.peer_id), [protocol])


def test_another_release_is_refused(monkeypatch):
    monkeypatch.setattr(patches, "_applied", False)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.8.2")
    with pytest.raises(MeshError, match=r"libp2p 0\.8\.2 is installed.*needs 0\.8\.1"):
        patches.apply()


def test_patches_are_applied_once():
    patches.apply()
    before = libp2p.io.trio.TrioTCPStream.__init__
    patches.apply()
    assert libp2p.io.trio.TrioTCPStream.__init__ is before


@pytest.mark.parametrize(
    "raised", [ValueError("x"), ExceptionGroup("g", [OSError(), KeyError(1)]), trio.BrokenResourceError()]
)
async def test_row_2_a_raising_stream_handler_costs_its_stream(pair, raised):
    """Unpatched: it cancelled the whole host."""
    a, b = pair

    async def handler(stream):
        raise raised

    b.host.set_stream_handler(ODD, handler)
    with trio.fail_after(5), suppress(StreamError, StreamFailure):
        stream = await open_stream(a, b)
        assert not await stream.read(1)
    assert await alive(a, b)


async def test_contained_lets_cancellation_and_nothing_else_pass():
    with trio.move_on_after(0) as scope:
        with contained("sleeping"):
            await trio.sleep(1)
        pytest.fail("cancellation was swallowed")
    assert scope.cancelled_caught
    with trio.CancelScope() as scope, contained("a nursery"):
        async with trio.open_nursery() as nursery:

            async def fail():
                try:
                    await trio.sleep_forever()
                finally:
                    raise ValueError

            nursery.start_soon(fail)
            await trio.lowlevel.checkpoint()
            scope.cancel()
            await trio.sleep_forever()
    with pytest.raises(SystemExit), contained("exiting", logging.ERROR):
        raise SystemExit


async def test_row_2_a_raising_task_of_a_service_costs_itself(pair):
    a, b = pair

    async def fail():
        raise ValueError("a task")

    for service in (b.host.get_network(), b._gossip.pubsub):
        service.manager.run_task(fail)
    await trio.testing.wait_all_tasks_blocked()
    assert b.host.get_network().manager.is_running
    assert b._gossip.pubsub.manager.is_running
    assert await alive(a, b)


async def test_row_3_inbound_slots_are_given_back(make_node, connect, monkeypatch):
    """Unpatched: each slot was held until the node ended."""
    monkeypatch.setattr(transport, "CONNECTIONS_INBOUND_MAX", 3)
    async with make_node() as b:
        swarm = b.host.get_network()
        for _ in range(5):
            async with make_node() as a:
                await connect(a, b)
            with trio.fail_after(5):
                await poll(lambda: swarm._inbound_limiter.borrowed_tokens == 0)


async def test_row_3_refused_connections_give_their_slots_back(make_node):
    async with make_node() as a, make_node(key=KEY[::-1]) as stranger:
        swarm = a.host.get_network()
        for _ in range(3):
            with pytest.raises(Exception, match=r"fail|Fail|refused|lost|key"), trio.fail_after(5):
                await stranger.host.get_network().dial_addr(
                    libp2p.network.swarm.Multiaddr(a.addresses()[0]), ID.from_base58(a.peer_id)
                )
        with trio.fail_after(5):
            await poll(lambda: swarm._inbound_limiter.borrowed_tokens == 0)
        assert not a.links()


async def test_row_4_sockets_notice_a_dead_link(pair):
    for node, other in (pair, pair[::-1]):
        conn = node._connections.of(other.peer_id)[0].raw.muxed_conn.secured_conn
        protected = conn.conn.read_writer.read_write_closer
        sock = protected._conn.stream.stream.socket
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 8000
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 3


async def test_row_9_a_dial_does_not_wait_for_a_failure(make_node):
    """Unpatched: 250 ms, always."""
    assert libp2p.network.swarm._HAPPY_EYEBALLS_DELAY == 0


async def test_row_10_the_stream_is_xsalsa20_with_its_nonce_first():
    """The specification's bytes, against our own end."""

    class Pipe:
        is_initiator = True

        def __init__(self, data=b""):
            self.data = data

        async def write(self, data):
            self.data += data

        async def read(self, n):
            n = min(n, 7)  # short reads
            taken, self.data = self.data[:n], self.data[n:]
            return taken

    pipe = Pipe()
    conn = patches.ProtectedConnection(pipe, KEY.hex())
    await conn.write(patches.GREETING)
    await conn.write(b"more")
    nonce, body = pipe.data[:24], pipe.data[24:]
    assert XSalsa20(KEY, nonce).xor(body) == patches.GREETING + b"more"

    received = b""
    conn = patches.ProtectedConnection(Pipe(pipe.data), KEY.hex())
    while data := await conn.read(3):
        received += data
    assert received == patches.GREETING + b"more"

    conn = patches.ProtectedConnection(Pipe(pipe.data), KEY[::-1].hex())
    with pytest.raises(Exception, match="another swarm key"):
        await conn.read(3)
    assert await patches.ProtectedConnection(Pipe(b"short"), KEY.hex()).read(3) == b""


async def test_a_mute_server_does_not_hold_a_dial(make_node, monkeypatch):
    """Unpatched: a refused client hung for 30 s and more."""
    monkeypatch.setattr(transport, "HANDSHAKE_SECONDS_MAX", 0.2)
    async with make_node() as a:
        with socket.create_server(("127.0.0.1", 0)) as mute:
            peer = "12D3KooWGKpUCcDq5rNABuEvxE1N4awkcVx1jaF6aMGohJo12kWZ"
            a.know(peer, [f"/ip4/127.0.0.1/tcp/{mute.getsockname()[1]}/p2p/{peer}"])
            with trio.fail_after(3), pytest.raises(NodeUnavailable):
                await a.call(peer, "/x/1", b"")


async def test_streams_of_one_connection_are_bounded_and_no_other_peer_notices(make_node, connect, monkeypatch):
    monkeypatch.setattr(patches, "STREAMS_PER_CONNECTION_MAX", 40)
    async with make_node() as a, make_node() as b, make_node() as c:
        await connect(a, b)
        await connect(c, b)
        connection = a._connections.of(b.peer_id)[0].raw.muxed_conn
        with trio.fail_after(20):
            for _ in range(200):  # opened, and never negotiated
                await connection.open_stream()
            inbound = b._connections.of(a.peer_id)[0].raw
            await poll(lambda: 0 < len(inbound.streams) <= 41)
            assert await alive(c, b)
            assert len(inbound.streams) <= 41


async def test_handlers_of_many_short_streams_leak_nothing(pair):
    a, b = pair

    async def answer(stream):
        await stream.write(b"ok")
        await stream.close()

    b.host.set_stream_handler(ODD, answer)
    for _ in range(150):
        stream = await open_stream(a, b)
        assert await stream.read(2) == b"ok"
        await stream.close()
    for one, other in ((a, b), (b, a)):
        muxer = one._connections.of(other.peer_id)[0].raw.muxed_conn
        with trio.fail_after(5):
            await poll(lambda muxer=muxer: len(muxer.streams) < 10)

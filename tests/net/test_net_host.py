"""Connections: made, kept, refused, lost and found again; and nothing left behind."""

import os
import signal
import socket
import subprocess
import sys

import base58
import pytest
import trio
from net_helpers import KEY, poll, until

from mesh.net import connections, keeper
from protocols.errors import MeshError, UsageError

P = "/mesh/test/1"

NODE = """
import sys, pathlib, trio
from mesh.net.host import open_network
from mesh.net.identity import open_identity

async def echo(peer, payload):
    return payload

async def main():
    with open_identity(pathlib.Path(sys.argv[1])) as identity:
        async with open_network(
            identity=identity, swarm_key=bytes.fromhex(sys.argv[2]), listen=["/ip4/127.0.0.1/tcp/0"], mdns=False
        ) as network:
            network.on_call("/mesh/test/1", echo)
            print(network.peer_id, network.addresses()[0], flush=True)
            await trio.sleep_forever()

trio.run(main)
"""


async def test_both_sides_see_the_link_and_its_round_trip_time(make_node, connect, monkeypatch):
    monkeypatch.setattr(connections, "PING_SECONDS", 0.02)
    async with make_node() as a, make_node() as b:
        await connect(a, b)
        with trio.fail_after(5):
            await poll(lambda: a.links()[b.peer_id].rtt and b.links()[a.peer_id].rtt)
        assert 0 < a.links()[b.peer_id].rtt < 1
        assert 0 < b.links()[a.peer_id].rtt < 1


async def test_watchers_hear_of_both_ends(make_node, connect):
    async with make_node() as a:
        events = []
        a.watch(lambda peer, connected: events.append((peer, connected)))
        async with make_node() as b:
            await connect(a, b)
        with trio.fail_after(5):
            await until(lambda: not a.links(), a)
        assert events == [(b.peer_id, True), (b.peer_id, False)]


async def test_a_restarted_peer_is_found_again_at_its_port(make_node, connect):
    async with make_node() as a:
        async with make_node(home="b") as b:
            await connect(a, b)
            port = b.port
        async with make_node(home="b", listen=(f"/ip4/127.0.0.1/tcp/{port}",)) as again:
            assert again.peer_id == b.peer_id
            with trio.fail_after(5):
                await until(lambda: b.peer_id in a.links(), a)


async def test_a_dropped_connection_comes_back(make_node, connect):
    async with make_node() as a, make_node() as b:
        await connect(a, b)
        lost = trio.Event()
        b.watch(lambda peer, connected: None if connected else lost.set())
        await a._connections.of(b.peer_id)[0].abort()
        with trio.fail_after(5):
            await lost.wait()
            await until(lambda: b.peer_id in a.links() and a.peer_id in b.links(), a, b)


async def test_forget_drops_and_does_not_redial(make_node, connect, monkeypatch):
    monkeypatch.setattr(keeper, "RETRY_SECONDS", (0.01,))
    async with make_node() as a, make_node() as b:
        await connect(a, b)
        a.forget(b.peer_id)
        with trio.fail_after(5):
            await until(lambda: not a.links(), a)
        await trio.sleep(0.2)
        assert not a.links()


async def test_both_may_dial_at_once(make_node):
    async with make_node() as a, make_node() as b:
        a.know(b.peer_id, b.addresses())
        b.know(a.peer_id, a.addresses())

        async def echo(peer, payload):
            return payload

        for node in (a, b):
            node.on_call(P, echo)
        with trio.fail_after(10):
            assert await a.call(b.peer_id, P, b"x") == b"x"
            assert await b.call(a.peer_id, P, b"y") == b"y"
        assert list(a.links()) == [b.peer_id]


async def test_the_direction_that_works_is_used_whoever_has_the_lower_id(make_node):
    """Each in turn knows the other while the other knows nothing."""
    async with make_node() as a, make_node() as b, make_node() as c:
        for one, other in ((a, b), (b, c), (c, a)):
            one.know(other.peer_id, other.addresses())
        with trio.fail_after(10):
            await until(lambda: all(len(node.links()) == 2 for node in (a, b, c)), a, b, c)


async def test_a_good_address_is_found_behind_bad_ones(make_node):
    async with make_node() as a, make_node() as b:
        closed = socket.create_server(("127.0.0.1", 0))
        dead_port = closed.getsockname()[1]
        closed.close()
        with socket.create_server(("127.0.0.1", 0)) as mute:  # accepts and says nothing
            bad = [
                f"/ip4/127.0.0.1/tcp/{dead_port}/p2p/{b.peer_id}",
                f"/ip4/127.0.0.1/tcp/{mute.getsockname()[1]}/p2p/{b.peer_id}",
                f"/ip4/127.0.0.1/tcp/{a.port}/p2p/{b.peer_id}",
                f"/dns4/no-such-host.invalid/tcp/1/p2p/{b.peer_id}",
            ]
            with trio.fail_after(10):
                a.know(b.peer_id, [*bad, f"/dns4/localhost/tcp/{b.port}/p2p/{b.peer_id}"])
                await until(lambda: b.peer_id in a.links(), a)


async def test_what_is_no_peer_is_not_dialled(make_node, connect):
    async with make_node() as a, make_node() as b:
        for junk in ("no peer", "", f"{b.peer_id} ", "1" * 100_000):
            a.know(junk, b.addresses())
        assert not a._keeper._kept
        await connect(a, b)


async def test_who_is_told_takes_the_place_of_who_was_only_found(make_node, connect, monkeypatch):
    monkeypatch.setattr(keeper, "PEERS_MAX", 3)
    made_up = [base58.b58encode(b"\x00\x24" + bytes([number]) * 36).decode() for number in range(5)]
    async with make_node() as a, make_node() as b:
        a.know(made_up[0], [f"/ip4/127.0.0.1/tcp/1/p2p/{made_up[0]}"])
        for peer in made_up[1:]:
            a._keeper.found(peer, [f"/ip4/127.0.0.1/tcp/1/p2p/{peer}"])
        await connect(a, b)
        assert list(a._keeper._kept) == [made_up[0], made_up[2], b.peer_id]


async def test_another_swarm_key_gets_a_closed_connection_and_a_sentence(make_node, monkeypatch):
    async with make_node() as a, make_node(key=KEY[::-1]) as stranger:
        stranger.know(a.peer_id, a.addresses())
        with trio.fail_after(2):  # at once, not when the handshake has timed out
            await poll(lambda: stranger.problem(a.peer_id))
        assert "swarm key" in stranger.problem(a.peer_id)
        assert not a.links()
        assert not stranger.links()


@pytest.mark.parametrize("greeting", [b"", b"GET / HTTP/1.1\r\n\r\n", b"\x13/multistream/1.0.0\n", os.urandom(70_000)])
async def test_a_stranger_gets_nothing_but_a_closed_connection(make_node, connect, monkeypatch, greeting):
    monkeypatch.setattr("mesh.net.transport.HANDSHAKE_SECONDS_MAX", 0.5)
    async with make_node() as a, make_node() as b:
        stream = await trio.open_tcp_stream("127.0.0.1", a.port)
        async with stream:
            received = b""
            with trio.fail_after(5):
                try:
                    await stream.send_all(greeting)
                    while data := await stream.receive_some():
                        received += data
                except trio.BrokenResourceError:
                    pass
        assert b"multistream" not in received
        assert b"/noise" not in received
        await connect(b, a)


async def test_a_stopped_peer_is_dropped_and_returns_and_a_killed_one_is_noticed_at_once(
    make_node, tmp_path, monkeypatch
):
    assert connections.PING_SECONDS + connections.SILENCE_SECONDS_MAX <= 5
    monkeypatch.setattr(connections, "SILENCE_SECONDS_MAX", 1.5)
    arguments = [sys.executable, "-c", NODE, str(tmp_path / "other"), KEY.hex()]
    process = await trio.lowlevel.open_process(arguments, stdout=subprocess.PIPE)
    try:
        async with make_node() as a:
            with trio.fail_after(30):
                line = b""
                while not line.endswith(b"\n"):
                    more = await process.stdout.receive_some()
                    assert more, "the other node ended"
                    line += more
                peer, address = line.decode().split()
            a.know(peer, [address])
            with trio.fail_after(10):
                assert await a.call(peer, P, b"up") == b"up"

            process.send_signal(signal.SIGSTOP)
            with trio.fail_after(8):
                await until(lambda: peer not in a.links(), a)
            process.send_signal(signal.SIGCONT)
            with trio.fail_after(10):
                await until(lambda: peer in a.links(), a)
                await poll(lambda: a.links()[peer].rtt)

            started = trio.current_time()
            process.kill()
            with trio.fail_after(5):
                await until(lambda: peer not in a.links(), a)
            assert trio.current_time() - started < 0.5  # 10 ms on an idle machine
    finally:
        process.kill()
        await process.wait()


async def test_a_silent_dialler_is_dropped_by_the_other_side(make_node, connect, monkeypatch):
    async with make_node() as a, make_node() as b:
        await connect(a, b)
        monkeypatch.setattr(connections, "SILENCE_SECONDS_MAX", 0.1)
        monkeypatch.setattr(connections, "PING_SECONDS", 0.1)
        gone = trio.Event()
        b.watch(lambda peer, connected: None if connected else gone.set())

        async def no_ping(connection):
            await trio.sleep_forever()

        monkeypatch.setattr(a._connections, "_ping", no_ping)
        for connection in a._connections.of(b.peer_id):
            await connection.abort()  # the next connection has no heartbeat
        with trio.fail_after(5):
            await gone.wait()
            await until(lambda: a.peer_id in b.links(), b)
            stream = await a._connections.of(b.peer_id)[0].raw.new_stream()
            from libp2p.protocol_muxer.multiselect_communicator import MultiselectCommunicator

            communicator = MultiselectCommunicator(stream)
            await a.host.multiselect_client.select_one_of([connections.HEARTBEAT_PROTOCOL], communicator)
            first = b._connections.of(a.peer_id)[0]
            await poll(lambda: first not in b._connections.of(a.peer_id))


async def test_the_port_is_remembered_and_never_shared(make_node):
    async with make_node(home="a", listen=()) as a:
        port = a.port
        assert all(f"/tcp/{port}/p2p/{a.peer_id}" in address for address in a.addresses())
        assert "/127.0.0.1/" in " ".join(a.addresses())
        assert "0.0.0.0" not in " ".join(a.addresses())
        with pytest.raises(UsageError, match=f"127.0.0.1/tcp/{port}"):
            async with make_node(listen=(f"/ip4/127.0.0.1/tcp/{port}",)):
                pass
    async with make_node(home="a", listen=()) as a:
        assert a.port == port
    with socket.create_server(("0.0.0.0", port)):
        async with make_node(home="a", listen=()) as a:
            assert a.port not in (0, port)


async def test_loopback_comes_last(make_node):
    async with make_node(listen=()) as a:
        loopback = ["/127." in address or "/::1/" in address for address in a.addresses()]
        assert loopback == sorted(loopback)


async def test_a_peer_that_asks_is_told_where_this_host_really_is(make_node):
    """Kubo asks a peer for nothing that says it is at 0.0.0.0."""
    async with make_node(listen=()) as a:
        assert [str(address) for address in a.host.get_addrs()] == list(a.addresses())


@pytest.mark.parametrize("listen", ["banana", "/ip4/192.0.2.77/tcp/0", "/ip4/127.0.0.1/udp/0"])
async def test_a_bad_listen_address_is_named(make_node, listen):
    with pytest.raises(UsageError, match=listen):
        async with make_node(listen=(listen,)):
            pass


async def test_the_bodys_exception_comes_out_unwrapped(make_node):
    with pytest.raises(MeshError, match="just this"):
        async with make_node():
            raise MeshError("just this")


def open_sockets():
    with os.scandir("/proc/self/fd") as entries:
        return sum(os.readlink(entry.path).startswith("socket:") for entry in entries)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts sockets in /proc")
@pytest.mark.parametrize("cancelled", [False, True])
async def test_nothing_is_left_behind(make_node, connect, cancelled):
    before = open_sockets()
    tasks = trio.lowlevel.current_statistics().tasks_living
    with trio.fail_after(10), trio.CancelScope() as scope:
        async with make_node() as a, make_node() as b, make_node() as c:
            for one, other in ((a, b), (b, c), (c, a)):
                await connect(one, other)
            a.subscribe("t", lambda peer, payload: None)
            a.send(b.peer_id, P, b"x")
            a.know("12D3KooWGKpUCcDq5rNABuEvxE1N4awkcVx1jaF6aMGohJo12kWZ", [])
            if cancelled:
                scope.cancel()
                await trio.sleep_forever()
    assert scope.cancelled_caught is cancelled
    assert open_sockets() == before
    for _ in range(100):  # the library's system tasks end a few turns after they were told to
        await trio.lowlevel.checkpoint()
    assert trio.lowlevel.current_statistics().tasks_living == tasks

"""Messages and calls between real hosts."""

from contextlib import suppress

import pytest
import trio
from libp2p.custom_types import TProtocol
from libp2p.network.stream.exceptions import StreamError
from libp2p.peer.id import ID
from net_helpers import poll

from mesh.net import channels, streams
from mesh.ports import MESSAGE_BYTES_MAX
from protocols.errors import LocalProtocolError, MeshError, NodeUnavailable, RemoteCallError, UsageError
from protocols.framing import frame

P = "/mesh/test/1"


@pytest.fixture
async def pair(make_node, connect):
    async with make_node() as a, make_node() as b:
        await connect(a, b)
        yield a, b


class Inbox:
    """Collects messages; `await inbox.wait(n)` until there are `n`."""

    def __init__(self):
        self.got = []
        self._changed = trio.Event()

    def __call__(self, peer, payload):
        self.got.append((peer, payload))
        self._changed.set()

    async def wait(self, count):
        with trio.fail_after(20):
            while len(self.got) < count:
                self._changed = trio.Event()
                await self._changed.wait()
        return self.got


async def test_messages_arrive_in_order_with_their_sender(pair):
    a, b = pair
    inbox = Inbox()
    b.on_message(P, inbox)
    sent = [bytes([n % 256]) * (n % 900) for n in range(3000)]
    assert all(a.send(b.peer_id, P, payload) for payload in sent)
    assert await inbox.wait(3000) == [(a.peer_id, payload) for payload in sent]


async def test_each_direction_and_protocol_is_its_own(pair):
    a, b = pair
    inboxes = {}
    for node in pair:
        for protocol in (P, "/mesh/other/1"):
            inboxes[node, protocol] = Inbox()
            node.on_message(protocol, inboxes[node, protocol])
    for protocol in (P, "/mesh/other/1"):
        assert a.send(b.peer_id, protocol, b"from a")
        assert b.send(a.peer_id, protocol, b"from b")
    for protocol in (P, "/mesh/other/1"):
        assert await inboxes[b, protocol].wait(1) == [(a.peer_id, b"from a")]
        assert await inboxes[a, protocol].wait(1) == [(b.peer_id, b"from b")]


async def test_payloads_up_to_the_bound_and_not_over(pair):
    a, b = pair

    async def echo(peer, payload):
        return payload

    b.on_call(P, echo)
    largest = bytes(range(250)) * (MESSAGE_BYTES_MAX // 250)
    assert len(largest) == MESSAGE_BYTES_MAX
    assert await a.call(b.peer_id, P, largest) == largest
    assert await a.call(b.peer_id, P, b"") == b""
    with pytest.raises(LocalProtocolError, match="900001"):
        await a.call(b.peer_id, P, largest + b"x")
    with pytest.raises(LocalProtocolError, match="900001"):
        a.send(b.peer_id, P, largest + b"x")


async def test_an_answer_over_the_bound_is_a_refusal(pair):
    a, b = pair

    async def too_much(peer, payload):
        return bytes(MESSAGE_BYTES_MAX + 1)

    b.on_call(P, too_much)
    with pytest.raises(RemoteCallError, match="900001"):
        await a.call(b.peer_id, P, b"")


async def test_concurrent_calls_are_answered_in_any_order(pair):
    a, b = pair
    gates = [trio.Event() for _ in range(50)]
    answers = {}

    async def serve(peer, payload):
        number = payload[0]
        if number + 1 < len(gates):
            await gates[number + 1].wait()  # the last to come is the first to go
        gates[number].set()
        return bytes([number, 7])

    b.on_call(P, serve)

    async def ask(number):
        answers[number] = await a.call(b.peer_id, P, bytes([number]))

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            for number in range(50):
                nursery.start_soon(ask, number)
    assert answers == {number: bytes([number, 7]) for number in range(50)}


async def test_no_more_calls_than_the_bound_run_at_once_and_all_are_served(pair):
    a, b = pair
    running = most = 0

    async def serve(peer, payload):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await trio.sleep(0.001)
        running -= 1
        return payload

    b.on_call(P, serve)
    served = []

    async def ask():
        served.append(await a.call(b.peer_id, P, b"x"))

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            for _ in range(3 * channels.CALLS_MAX):
                nursery.start_soon(ask)
    assert len(served) == 3 * channels.CALLS_MAX
    assert 1 < most <= channels.CALLS_MAX


async def test_refusals_carry_their_text_and_bugs_only_their_type(pair, caplog):
    a, b = pair

    async def serve(peer, payload):
        if payload == b"usage":
            raise UsageError("no such run: 7")
        raise ZeroDivisionError("secret detail")

    b.on_call(P, serve)
    for who in (a, b):
        with pytest.raises(RemoteCallError, match=r"^no such run: 7$") as error:
            await who.call(b.peer_id, P, b"usage")
        assert error.value.exit_code == UsageError.exit_code
        with pytest.raises(RemoteCallError, match="ZeroDivisionError") as error:
            await who.call(b.peer_id, P, b"bug")
        assert error.value.exit_code == RemoteCallError.exit_code
    assert "secret" not in str(error.value)
    assert "secret detail" in caplog.text


async def test_a_slow_answer_is_given_up_on_both_sides(pair):
    a, b = pair
    gave_up = trio.Event()

    async def serve(peer, payload):
        try:
            await trio.sleep_forever()
        finally:
            gave_up.set()

    b.on_call(P, serve)
    with pytest.raises(NodeUnavailable, match=r"within 0\.2 s"):
        await a.call(b.peer_id, P, b"", timeout=0.2)
    with trio.fail_after(5):
        await gave_up.wait()

    async def echo(peer, payload):
        return payload

    b.on_call("/mesh/other/1", echo)
    assert await a.call(b.peer_id, "/mesh/other/1", b"still fine") == b"still fine"


async def test_another_version_is_refused_at_once(pair):
    a, b = pair
    b.on_message("/mesh/test/2", lambda peer, payload: None)
    with trio.fail_after(5):
        with pytest.raises(RemoteCallError, match=r"does not speak /mesh/test/1: it runs another version"):
            await a.call(b.peer_id, P, b"")
        with pytest.raises(RemoteCallError, match="does not speak"):
            await a.call(b.peer_id, P, b"")
    assert a.send(b.peer_id, P, b"") is False


async def test_a_protocol_that_is_registered_later_is_found(pair, monkeypatch):
    monkeypatch.setattr(streams, "REFUSED_SECONDS", 0.0)
    a, b = pair
    with pytest.raises(RemoteCallError):
        await a.call(b.peer_id, P, b"")

    async def echo(peer, payload):
        return payload

    b.on_call(P, echo)
    assert await a.call(b.peer_id, P, b"now") == b"now"


async def test_unknown_and_unreachable_peers(pair):
    a, _ = pair
    stranger = "12D3KooWGKpUCcDq5rNABuEvxE1N4awkcVx1jaF6aMGohJo12kWZ"
    assert a.send(stranger, P, b"") is False
    with trio.fail_after(5):
        with pytest.raises(NodeUnavailable, match="no connection"):
            await a.call(stranger, P, b"")
        a.know(stranger, [f"/ip4/127.0.0.1/tcp/1/p2p/{stranger}"])
        with pytest.raises(NodeUnavailable, match="no connection"):
            await a.call(stranger, P, b"")
    assert "refused" in a.problem(stranger)


async def test_self(pair):
    a, _ = pair
    inbox = Inbox()
    inside = []

    def handler(peer, payload):
        assert not inside
        inbox(peer, payload)

    a.on_message(P, handler)
    inside.append(True)
    assert a.send(a.peer_id, P, b"one")
    assert a.send(a.peer_id, P, b"two")
    inside.clear()
    assert await inbox.wait(2) == [(a.peer_id, b"one"), (a.peer_id, b"two")]

    async def refuse(peer, payload):
        raise MeshError(f"no, {payload.decode()}")

    a.on_call(P, refuse)
    with pytest.raises(RemoteCallError, match="no, me"):
        await a.call(a.peer_id, P, b"me")
    with pytest.raises(RemoteCallError, match="/nobody/1"):
        await a.call(a.peer_id, "/nobody/1", b"")
    assert a.send(a.peer_id, "/nobody/1", b"") is False


async def test_a_raising_message_handler_costs_one_message(pair, caplog):
    a, b = pair
    inbox = Inbox()

    def handler(peer, payload):
        if payload == b"bad":
            raise ValueError("handler bug")
        inbox(peer, payload)

    b.on_message(P, handler)
    for payload in (b"1", b"bad", b"2"):
        assert a.send(b.peer_id, P, payload)
    assert [payload for _, payload in await inbox.wait(2)] == [b"1", b"2"]
    assert "handler bug" in caplog.text


async def test_a_full_queue_drops_and_recovers(pair):
    a, b = pair
    inbox = Inbox()
    b.on_message(P, inbox)
    big = bytes(800_000)
    sent = 0
    while a.send(b.peer_id, P, big):  # no checkpoint in between: nothing can leave
        sent += 1
        assert sent * len(big) <= channels.QUEUE_BYTES_MAX
    assert sent >= 9
    await inbox.wait(sent)
    assert a.send(b.peer_id, P, b"room again")
    await inbox.wait(sent + 1)


async def raw_stream(a, b, protocol=P):
    return await a.host.new_stream(ID.from_base58(b.peer_id), [TProtocol(protocol)])


async def ended(stream):
    """Wait until the other side ended or reset the stream."""
    with trio.fail_after(5), suppress(StreamError):
        while await stream.read(100):
            pass


@pytest.mark.parametrize(
    "junk",
    [
        b"\xff\xff\xff\xff",
        frame(b""),
        frame(b"\x09what"),
        frame(b"\x01\x00"),
        frame(b"\x02" + bytes(8) + b"an answer to nothing"),
        b"\x00\x00\x00\x09half",
    ],
)
async def test_garbage_costs_its_stream_only(pair, junk):
    a, b = pair
    inbox = Inbox()
    b.on_message(P, inbox)
    stream = await raw_stream(a, b)
    await stream.write(junk)
    if junk.endswith(b"half"):
        await stream.close()
    await ended(stream)
    assert a.send(b.peer_id, P, b"fine")
    assert await inbox.wait(1) == [(a.peer_id, b"fine")]


async def test_a_peer_that_answers_nonsense_fails_the_call(pair):
    a, b = pair

    async def nonsense(stream):
        await stream.read(100)
        await stream.write(frame(b"\x07nonsense"))
        await trio.sleep_forever()

    b.host.set_stream_handler(TProtocol(P), nonsense)
    with trio.fail_after(5), pytest.raises(NodeUnavailable, match="was lost"):
        await a.call(b.peer_id, P, b"")


async def test_inbound_streams_of_a_peer_are_bounded(pair):
    a, b = pair
    b.on_message(P, Inbox())
    opened = [await raw_stream(a, b) for _ in range(streams.SESSIONS_MAX + 1)]
    await ended(opened[0])
    with trio.move_on_after(0.1) as scope:
        await opened[-1].read(1)
    assert scope.cancelled_caught


async def test_calls_in_flight_fail_when_the_peer_goes(make_node, connect):
    async with make_node() as a:
        asked = trio.Event()

        async def never(peer, payload):
            asked.set()
            await trio.sleep_forever()

        failures = []

        async def ask(b):
            try:
                await a.call(b, P, b"")
            except NodeUnavailable as error:
                failures.append(str(error))

        async with trio.open_nursery() as nursery:
            async with make_node() as b:
                b.on_call(P, never)
                await connect(a, b)
                nursery.start_soon(ask, b.peer_id)
                with trio.fail_after(5):
                    await asked.wait()
            with trio.fail_after(5):
                await poll(lambda: failures)
    assert "lost" in failures[0]

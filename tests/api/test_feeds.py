"""The hub: real members of a log on a fake network, a node without a log, and who listens to them."""

import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio

from mesh import feeds
from mesh import listening as one_of_them
from mesh.feeds import Feeds
from mesh.ports import NodeView
from mesh.state import feed
from protocols.client import PROTOCOL, Watch
from protocols.codec import decode
from protocols.commands import Register
from protocols.errors import MeshFailed
from protocols.ids import PeerId
from protocols.presence import NodeState, Presence, Role
from tests.consensus.test_consensus import MESH, A, B, C, Group, group
from tests.fakes.network import FakeNetwork
from tests.fakes.waiting import until

W = PeerId("W")


def presence(peer: PeerId, raft: str) -> Presence:
    return Presence(peer, peer, Role.AUTO, 1, 0, (), 1, 0, False, {}, {}, (), (), MESH, raft)


@dataclass
class Table:
    """`Nodes`: who is where, as the test has it."""

    version: int = 1
    dead: set[PeerId] = field(default_factory=set)

    def nodes(self) -> dict[PeerId, NodeView]:
        return {
            peer: NodeView(presence(peer, raft), NodeState.DEAD if peer in self.dead else NodeState.ALIVE, 0, 0, True)
            for peer, raft in ((A, "voter"), (B, "voter"), (C, "voter"), (W, ""))
        }


class World:
    """Three members and W, which has no log; each with its feed."""

    def __init__(self, mesh: Group, nursery: trio.Nursery) -> None:
        self.mesh = mesh
        self.table = Table()
        self.feeds: dict[PeerId, Feeds] = {}
        self._nursery = nursery

    def serve(self, network: FakeNetwork) -> None:
        peer = network.peer_id
        made = self.feeds[peer] = Feeds(
            network=network,
            nodes=self.table,  # type: ignore[arg-type]
            group=lambda: self.mesh.members.get(peer),
            coordinator=lambda: self.coordinator,
            mesh_name=lambda: MESH,
            conflicts=lambda: (),
            documents=lambda: [{"peer": peer, "state": str(view.state)} for peer, view in self.table.nodes().items()],
            now=lambda: 1e9 + trio.current_time(),
        )

        async def call(sender: PeerId, payload: bytes) -> bytes:
            return await made.answer(decode(payload, Watch))

        network.on_call(PROTOCOL, call)
        self._nursery.start_soon(made.run)

    @property
    def coordinator(self) -> PeerId | None:
        return next((peer for peer, member in self.mesh.members.items() if member.is_leader), None)

    async def register(self, number: int) -> int:
        leader = await self.mesh.leader()
        return (await leader.propose(Register(PeerId(f"worker-{number}"), "", 1, 1))).index

    async def agree(self) -> None:
        leader = await self.mesh.leader()
        await until(lambda: all(member.applied == leader.applied for member in self.mesh.members.values()))


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    async with group() as mesh, trio.open_nursery() as nursery:
        made = World(mesh, nursery)
        node = mesh.lan.node

        @asynccontextmanager
        async def with_feed(peer: PeerId) -> AsyncIterator[FakeNetwork]:
            async with node(peer) as network:
                made.serve(network)
                yield network

        mesh.lan.node = with_feed  # type: ignore[method-assign]
        await mesh.three()
        async with mesh.lan.node(W) as network:
            for other in (A, B, C):
                network.know(other, ())
            await until(lambda: len(mesh.lan.links) == 6)
            yield made
            nursery.cancel_scope.cancel()


@dataclass
class Heard:
    """What one listener was told."""

    pieces: AsyncGenerator[bytes, None]
    events: list[tuple[int | None, str, dict[str, Any]]] = field(default_factory=list)

    @property
    def ids(self) -> list[int]:
        return [index for index, _, _ in self.events if index is not None]

    @property
    def hello(self) -> dict[str, Any]:
        return self.events[0][2]

    async def until(self, index: int) -> None:
        """Until the event with that ID has come."""
        with trio.fail_after(60):
            while index not in self.ids:
                await self.more()

    async def more(self) -> None:
        self.events += list(parsed(await anext(self.pieces)))


def parsed(piece: bytes) -> Iterator[tuple[int | None, str, dict[str, Any]]]:
    for block in piece.decode().split("\n\n"):
        fields = dict(line.partition(": ")[::2] for line in block.splitlines())
        if "event" in fields:
            yield int(fields["id"]) if "id" in fields else None, fields["event"], json.loads(fields["data"])


@asynccontextmanager
async def listening(made: World, peer: PeerId, after: int | None = None) -> AsyncIterator[Heard]:
    async with aclosing(made.feeds[peer].listen(after)) as pieces:
        heard = Heard(pieces)
        await heard.more()
        yield heard


async def test_every_node_tells_the_same_under_the_same_ids(autojump_clock: object) -> None:
    async with world() as made:
        first = await made.register(1)
        await made.agree()
        told = []
        for peer in (A, B, W):
            await made.agree()
            async with listening(made, peer) as heard:
                assert [name for _, name, _ in heard.events] == ["hello", "mesh"]
                assert (heard.hello["head"] >= first, heard.hello["reset"], heard.hello["mesh"]) == (True, False, MESH)
                mesh = heard.events[1][2]
                assert (mesh["coordinator"], mesh["voters"], mesh["agreed"]) == (A, [A, B, C], True)
                last = await made.register(100 + len(told))
                await heard.until(last)
                assert heard.ids == [last]
            async with listening(made, peer, first - 1) as again:
                await again.until(last)
                told.append(again.ids)
        assert told[2][: len(told[1])] == told[1]
        assert told[1][: len(told[0])] == told[0]
        assert told[0][0] == first


async def test_what_was_missed_while_a_member_was_down_comes_first(autojump_clock: object) -> None:
    async with world() as made:
        last = await made.register(1)
        await made.agree()
        async with listening(made, B, last - 1) as heard:
            await heard.until(last)
        await made.mesh.crash(B)
        missed = [await made.register(number) for number in range(2, 6)]
        await made.mesh.start(B)
        async with listening(made, B, last) as heard:
            await heard.until(missed[-1])
            assert (heard.ids, heard.hello["reset"]) == (missed, False)


async def test_a_node_without_a_log_goes_on_with_another_member(autojump_clock: object) -> None:
    async with world() as made:
        last = await made.register(1)
        await made.agree()
        async with listening(made, W, last) as heard:
            for number in range(10, 40, 10):
                first = await made.register(number)
                await heard.until(first)
                gone = made.feeds[W]._source
                assert gone is not None
                await made.mesh.crash(gone)
                second = await made.register(number + 1)
                await heard.until(second)
                assert heard.ids[-2:] == [first, second] or heard.ids[-1] == second
                await made.mesh.start(gone)
                await made.agree()
                await made.register(number + 2)
        assert heard.ids == sorted(set(heard.ids))


async def test_what_a_member_no_longer_knows_another_does(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world() as made:
        ids = [await made.register(number) for number in range(5)]
        await made.agree()
        made.mesh.members[B].feed.ring.restart(made.mesh.members[B].applied)
        async with listening(made, B, ids[0]) as heard:
            await heard.until(ids[-1])
            assert (heard.ids, heard.hello["reset"]) == (ids[1:], False)
        for member in made.mesh.members.values():
            member.feed.ring.restart(member.applied)
        for number, peer in enumerate((A, W), start=20):
            async with listening(made, peer, ids[0]) as heard:
                assert heard.hello["reset"]
                last = await made.register(number)
                await heard.until(last)
                assert heard.ids == [last]


async def test_an_id_that_lies_ahead_is_of_another_log(autojump_clock: object) -> None:
    async with world() as made:
        last = await made.register(1)
        await made.agree()
        for peer in (A, W):
            async with listening(made, peer, last + 1000) as heard:
                assert heard.hello["reset"]
                assert last <= heard.hello["head"] < last + 1000


async def test_the_state_of_the_mesh_comes_when_it_changes(autojump_clock: object) -> None:
    async with world() as made:
        await made.agree()
        async with listening(made, B) as heard, listening(made, W) as other:
            made.table.dead.add(C)
            made.table.version += 1
            for listener in (heard, other):
                await listener.more()
                state = listener.events[-1][2]
                assert [node["state"] for node in state["nodes"]] == ["alive", "alive", "dead", "alive"]
        await made.mesh.crash(A)
        await made.mesh.crash(C)
        await until(lambda: made.mesh.members[B].leader is None)
        lost = made.mesh.members[B].feed.led_until
        await trio.sleep(60)
        for peer in (B, W):
            async with listening(made, peer) as heard:
                state = heard.events[1][2]
                assert (state["agreed"], heard.hello["reset"]) == (False, False)
                assert state["as_of"] == lost if peer == B else 1e9 < state["as_of"] < 1e9 + trio.current_time() - 50


async def test_who_is_too_slow_is_cut_off_and_the_others_are_not(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(one_of_them, "QUEUE_BYTES_MAX", 700)
    async with world() as made:
        async with listening(made, A) as slow, listening(made, A) as quick:
            for number in range(20):
                await quick.until(await made.register(number))
            await made.agree()
            slow.events += [event async for piece in slow.pieces for event in parsed(piece)]
            assert slow.ids == []
        assert len(quick.ids) == 20


async def test_listeners_are_bounded_and_nobody_works_for_none(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "LISTENERS_MAX", 1)
    async with world() as made:
        async with listening(made, W) as first:
            with pytest.raises(MeshFailed, match="1 listen"):
                async with listening(made, W):
                    pass
            while (piece := await anext(first.pieces)) != b":\n\n":
                assert piece.startswith(b"event: mesh")
        asked = []
        monkeypatch.setattr(made.feeds[W], "_ask", lambda *request: asked.append(request))
        await trio.sleep(60)
        assert asked == []


async def test_a_ring_that_is_short_still_misses_nothing_that_it_says_it_knows(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feed, "EVENTS_MAX", 4)
    async with world() as made:
        ids = [await made.register(number) for number in range(12)]
        await made.agree()
        async with listening(made, W, ids[3]) as heard:
            assert heard.hello["reset"]
        async with listening(made, W, ids[8]) as heard:
            await heard.until(ids[-1])
            assert (heard.ids, heard.hello["reset"]) == (ids[9:], False)

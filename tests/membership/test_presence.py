"""The table of presences, several of them over a simulated network."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import trio

from mesh import presence as module
from mesh.presence import PresenceTable
from protocols.codec import INT_MAX, encode
from protocols.errors import UsageError
from protocols.ids import PeerId
from protocols.presence import PROTOCOL, TOPIC, NodeState
from tests.fakes.network import FakeNetwork, Lan
from tests.fakes.waiting import until
from tests.membership.mesh_rig import presence_of


def one_letter(peer: str) -> None:
    """What a peer's name is here."""
    if len(peer) != 1:
        raise UsageError(f"{peer!r} is no peer")


class Tables:
    def __init__(self, lan: Lan, nursery: trio.Nursery) -> None:
        self.lan = lan
        self.by: dict[str, PresenceTable] = {}
        self.networks: dict[str, FakeNetwork] = {}
        self._scopes: dict[str, trio.CancelScope] = {}
        self._nursery = nursery

    async def start(self, peer: str, knows: str = "", incarnation: int = 1) -> PresenceTable:
        started = trio.Event()

        async def run() -> None:
            with trio.CancelScope() as self._scopes[peer]:
                async with self.lan.node(PeerId(peer)) as network:
                    self.networks[peer] = network
                    own = presence_of(peer, incarnation=incarnation)
                    table = self.by[peer] = PresenceTable(
                        network=network, own=own, rng=random.Random(peer), check_peer=one_letter
                    )
                    for other in knows:
                        network.know(PeerId(other), ())
                    started.set()
                    await table.run()

        self._nursery.start_soon(run)
        await started.wait()
        return self.by[peer]

    async def crash(self, peer: str) -> None:
        self._scopes[peer].cancel()
        await until(lambda: peer not in self.lan.nodes)


@asynccontextmanager
async def tables(seed: int = 0) -> AsyncIterator[Tables]:
    lan = Lan(seed)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lan.run)
        yield Tables(lan, nursery)
        nursery.cancel_scope.cancel()


async def test_a_chain_of_acquaintances_becomes_fully_connected(autojump_clock: object) -> None:
    async with tables() as lab:
        for before, peer in zip("_abcdef", "abcdefg", strict=True):
            await lab.start(peer, knows=before)
        await until(lambda: all(len(network.links()) == 6 for network in lab.networks.values()), 3)
        await until(lambda: all(len(table.nodes()) == 7 for table in lab.by.values()), 1)


async def test_two_guests_of_one_host_know_each_other_at_once(autojump_clock: object) -> None:
    async with tables() as lab:
        await lab.start("a")
        await trio.sleep(5)
        for peer in "bc":
            await lab.start(peer, knows="a")
        await until(lambda: set(lab.networks["b"].links()) == {"a", "c"}, 1)


async def test_what_matters_is_known_at_once_and_load_with_the_next_beat(autojump_clock: object) -> None:
    async with tables() as lab:
        await lab.start("a")
        await lab.start("b", knows="a")
        await until(lambda: len(lab.by["a"].nodes()) == 2)
        await trio.sleep(10)
        version = lab.by["a"].version
        lab.by["b"].update(capabilities={"gpu": 1})
        with trio.fail_after(0.2):
            while lab.by["a"].nodes()["b"].presence.capabilities.get("gpu") != 1:
                version = await lab.by["a"].wait_changed(version)
        lab.by["b"].update(load={"cpu.percent": 50})
        await until(lambda: lab.by["a"].nodes()["b"].presence.load == {"cpu.percent": 50}, 4)
        before = lab.by["b"].own.sequence
        lab.by["b"].update(load={"cpu.percent": 50})
        assert lab.by["b"].own.sequence == before, "no news, no number"


async def test_a_restart_is_newer_and_an_old_presence_changes_nothing(autojump_clock: object) -> None:
    async with tables() as lab:
        await lab.start("a")
        await lab.start("b", knows="a", incarnation=5)
        await until(lambda: lab.by["a"].nodes().get("b") is not None)
        await lab.crash("b")
        await until(lambda: lab.by["a"].nodes()["b"].state is NodeState.SUSPECT)
        await lab.start("b", knows="a", incarnation=6)
        await until(lambda: lab.by["a"].nodes()["b"].presence.incarnation == 6)
        old = replace(presence_of("b", incarnation=5), sequence=1_000_000, name="old")
        lab.networks["b"].send(PeerId("a"), PROTOCOL, encode(old))
        await trio.sleep(1)
        assert lab.by["a"].nodes()["b"].presence.name == "name-b"


async def test_a_node_whose_clock_went_back_outdoes_its_former_self(autojump_clock: object) -> None:
    async with tables() as lab:
        await lab.start("a")
        await lab.start("b", knows="a", incarnation=100)
        await until(lambda: lab.by["a"].nodes().get("b") is not None)
        await lab.crash("b")
        table = await lab.start("b", knows="a", incarnation=7)
        table.update(name="reborn")
        await until(lambda: lab.by["a"].nodes()["b"].presence.name == "reborn", 5)
        assert table.own.incarnation == 101


async def test_anti_entropy_heals_what_gossip_and_greetings_lost(autojump_clock: object) -> None:
    async with tables() as lab:
        for peer in "abc":
            await lab.start(peer, knows="abc")
        await until(lambda: all(len(table.nodes()) == 3 for table in lab.by.values()))
        lab.lan.cut_if(lambda one, other: {one, other} == {"a", "c"})
        await trio.sleep(5)
        lab.networks["b"].subscribe(TOPIC, lambda peer, payload: None)
        lab.by["c"].update(name="renamed")
        await until(lambda: lab.by["b"].nodes()["c"].presence.name == "renamed", 15)
        await until(lambda: lab.by["a"].nodes()["c"].presence.name == "renamed", 40)


async def test_the_dead_are_not_passed_on_and_are_forgotten(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DEAD_SECONDS_MAX", 60.0)
    async with tables() as lab:
        await lab.start("a")
        await lab.start("b", knows="a")
        await lab.start("c", knows="a")
        await until(lambda: len(lab.by["a"].nodes()) == len(lab.by["c"].nodes()) == 3)
        await lab.crash("b")
        await until(lambda: all(lab.by[peer].nodes()["b"].state is NodeState.DEAD for peer in "ac"), 30)
        newcomer = await lab.start("d", knows="a")
        await trio.sleep(30)
        assert set(newcomer.nodes()) == {"a", "c", "d"}
        await trio.sleep(60)
        assert set(lab.by["a"].nodes()) == {"a", "c", "d"}
        assert "b" not in lab.networks["a"].known


async def test_the_table_is_bounded_and_the_dead_make_room(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "NODES_MAX", 3)
    async with tables() as lab:
        table = await lab.start("a")
        for peer in "bcd":
            await lab.start(peer, knows="a")
            await trio.sleep(1)
        assert set(table.nodes()) == {"a", "b", "c"}
        await lab.crash("b")
        await until(lambda: "d" in table.nodes(), 40)
        assert set(table.nodes()) == {"a", "c", "d"}


async def test_junk_is_dropped(autojump_clock: object, caplog: pytest.LogCaptureFixture) -> None:
    async with tables() as lab:
        table = await lab.start("a")
        await lab.start("b", knows="a")
        await until(lambda: "b" in table.nodes())
        for junk in (b"", b"\xff" * 100, encode(presence_of("z"))[:-1], b"x" * (module.PRESENCE_BYTES_MAX + 1)):
            lab.networks["b"].send(PeerId("a"), PROTOCOL, junk)
        await trio.sleep(1)
        assert caplog.text.count("dropped a presence from b") == 4
        assert set(table.nodes()) == {"a", "b"}
        assert set(table.addresses) == {"b"}


async def test_a_presence_of_what_is_no_peer_is_neither_kept_nor_passed_on(
    autojump_clock: object, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    async with tables() as lab:
        table = await lab.start("a")
        for peer in "bc":
            await lab.start(peer, knows="a")
        await until(lambda: len(table.nodes()) == 3)
        stranger = replace(presence_of("no peer"), addresses=("/ip4/192.0.2.1/tcp/1",))
        lab.networks["b"].send(PeerId("a"), PROTOCOL, encode(stranger))
        await trio.sleep(2 * module.EXCHANGE_SECONDS)
        assert "dropped a presence from b: 'no peer' is no peer" in caplog.text
        assert all(set(table.nodes()) == {"a", "b", "c"} for table in lab.by.values())
        assert "no peer" not in lab.networks["a"].known


async def test_echoes_from_the_end_of_all_numbers_are_dropped(autojump_clock: object) -> None:
    async with tables() as lab:
        table = await lab.start("a")
        await lab.start("b", knows="a")
        await until(lambda: len(table.nodes()) == 2)
        for incarnation in (module.INCARNATION_MAX, INT_MAX - 1, INT_MAX, INT_MAX):
            for peer in "ab":
                echo = replace(presence_of(peer, incarnation=incarnation), name="echo")
                lab.networks["b"].send(PeerId("a"), PROTOCOL, encode(echo))
            await trio.sleep(1)
        assert table.own.incarnation == module.INCARNATION_MAX
        assert table.nodes()["b"].presence.incarnation == module.INCARNATION_MAX
        before = table.own.sequence
        await trio.sleep(2 * module.BEAT_SECONDS_MIN)
        assert table.own.sequence > before, "it still tells of itself"

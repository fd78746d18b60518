"""One group of members over a simulated network and disks in memory."""

import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trio

from mesh.consensus import OPTIONS, Consensus
from mesh.log_home import LogHome
from mesh.raft.configuration import AddLearner, Promote, Remove
from mesh.raft.errors import ChangeRefused, NotLeader
from mesh.raft.options import TICK_SECONDS
from mesh.raft.raft import Raft
from mesh.raft.ready import Outgoing
from mesh.state.results import Applied, Rejected
from mesh.state.snapshot import state_hash
from protocols.codec import decode
from protocols.commands import Register
from protocols.errors import NoQuorum, OutcomeUnknown, StorageError
from protocols.ids import PeerId
from protocols.raft import PROTOCOL, GroupMessage, ReadIndex
from tests.fakes.disk import FakeDisk
from tests.fakes.network import FakeNetwork, Lan
from tests.fakes.waiting import until

A, B, C = PeerId("a"), PeerId("b"), PeerId("c")
MESH = "1000.a"


def register(number: int) -> Register:
    return Register(PeerId(f"worker-{number}"), f"worker {number}", number, 1)


async def found(disk: FakeDisk, mesh: str, founder: PeerId) -> None:
    lan = Lan()
    async with lan.node(founder) as network:
        home = LogHome(network=network, disk=disk, rng=random.Random(0))
        assert await home.resume() == ""
        await home.found(mesh)
        assert await home.resume() == mesh


class Group:
    """Members by peer, each in a nursery of its own, so that one can be crashed."""

    def __init__(self, lan: Lan, nursery: trio.Nursery, snapshot_entries: int) -> None:
        self.lan = lan
        self.disks: dict[PeerId, FakeDisk] = {}
        self.members: dict[PeerId, Consensus] = {}
        self.failures: dict[PeerId, Exception] = {}
        self._nursery = nursery
        self._scopes: dict[PeerId, trio.CancelScope] = {}
        self._snapshot_entries = snapshot_entries
        self._lives: Counter[PeerId] = Counter()

    async def start(self, peer: PeerId) -> Consensus:
        self.disks.setdefault(peer, FakeDisk(seed=ord(peer)))
        started = trio.Event()
        self._nursery.start_soon(self._run, peer, started)
        await started.wait()
        return self.members[peer]

    async def _run(self, peer: PeerId, started: trio.Event) -> None:
        self._lives[peer] += 1
        with trio.CancelScope() as self._scopes[peer]:
            async with self.lan.node(peer) as network:
                member = self.members[peer] = Consensus(
                    mesh=MESH,
                    network=network,
                    disk=self.disks[peer],
                    rng=random.Random(f"{peer}{self._lives[peer]}"),
                    snapshot_entries=self._snapshot_entries,
                )
                network.watch(lambda other, connected: None if connected else member.suspect(other))
                for other in (A, B, C):
                    network.know(other, ())
                started.set()
                try:
                    await member.run()
                except StorageError as error:
                    self.failures[peer] = error
        del self.members[peer]

    async def crash(self, peer: PeerId) -> None:
        self._scopes[peer].cancel()
        await until(lambda: peer not in self.members)

    async def leader(self, among: tuple[PeerId, ...] = (A, B, C), timeout: float = 10.0) -> Consensus:
        with trio.fail_after(timeout):
            while True:
                for peer in among:
                    if peer in self.members and self.members[peer].is_leader:
                        return self.members[peer]
                await trio.sleep(0.01)
        raise AssertionError

    async def three(self) -> Consensus:
        """A founds; B and C join, and are promoted."""
        self.disks[A] = FakeDisk(seed=1)
        await found(self.disks[A], MESH, A)
        for peer in (A, B, C):
            await self.start(peer)
        leader = await self.leader((A,))
        for peer in (B, C):
            await leader.change(AddLearner(peer))
            await until(lambda peer=peer: self.members[peer].applied >= leader.applied)
            await leader.change(Promote(peer))
        return leader


@asynccontextmanager
async def group(seed: int = 0, snapshot_entries: int = 10_000) -> AsyncIterator[Group]:
    lan = Lan(seed)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(lan.run)
        yield Group(lan, nursery, snapshot_entries)
        nursery.cancel_scope.cancel()


async def test_one_founder_commits_alone(autojump_clock: object) -> None:
    async with group() as mesh:
        mesh.disks[A] = FakeDisk()
        await found(mesh.disks[A], MESH, A)
        await mesh.start(A)
        leader = await mesh.leader()
        first, second = await leader.propose_many([register(1), register(2)])
        assert isinstance(first.result, Applied)
        assert second.index == first.index + 1
        assert set(leader.state.workers) == {"worker-1", "worker-2"}
        assert leader.state.mesh == MESH
        again = await leader.propose(register(1))
        assert again.index == second.index + 1
        refused = await leader.propose(Register(PeerId("w"), "w", 1, -1))
        assert isinstance(refused.result, Rejected)


async def test_the_group_replicates_and_a_follower_refuses_proposals(autojump_clock: object) -> None:
    async with group() as mesh:
        leader = await mesh.three()
        applied = await leader.propose(register(7))
        await until(lambda: all(member.applied >= applied.index for member in mesh.members.values()))
        assert len({state_hash(member.state) for member in mesh.members.values()}) == 1
        with pytest.raises(NotLeader) as refused:
            await mesh.members[B].propose(register(8))
        assert refused.value.leader == A
        assert await mesh.members[C].barrier() >= applied.index


async def test_proposals_of_many_tasks_share_syncs(autojump_clock: object) -> None:
    async with group() as mesh:
        leader = await mesh.three()
        before = mesh.disks[A].syncs
        async with trio.open_nursery() as nursery:
            for number in range(200):
                nursery.start_soon(leader.propose, register(number))
        assert len(leader.state.workers) == 200
        assert mesh.disks[A].syncs - before < 20


async def test_a_dead_leader_is_replaced_and_nothing_committed_is_lost(autojump_clock: object) -> None:
    async with group() as mesh:
        leader = await mesh.three()
        await leader.propose(register(1))
        start = trio.current_time()
        await mesh.crash(A)
        second = await mesh.leader((B, C))
        assert trio.current_time() - start < 2.0
        assert "worker-1" in second.state.workers
        await second.propose(register(2))
        await mesh.start(A)
        await until(lambda: "worker-2" in mesh.members[A].state.workers)
        assert not mesh.members[A].is_leader


async def test_all_come_back_from_their_disks(autojump_clock: object) -> None:
    async with group() as mesh:
        leader = await mesh.three()
        await leader.propose(register(1))
        for peer in (A, B, C):
            await mesh.crash(peer)
        for peer in (C, A, B):
            await mesh.start(peer)
        again = await mesh.leader()
        assert "worker-1" in again.state.workers
        assert set(again.configuration.voters) == {A, B, C}


async def test_a_cut_off_leader_confirms_nothing_and_learns_better(autojump_clock: object) -> None:
    async with group() as mesh:
        stale = await mesh.three()
        mesh.lan.cut([A], [B, C])
        outcomes: list[Exception] = []

        async def lose(timeout: float, number: int) -> None:
            try:
                await stale.propose(register(number), timeout)
            except NoQuorum as error:
                outcomes.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(lose, 0.2, 50)
            nursery.start_soon(lose, 10.0, 51)
            fresh = await mesh.leader((B, C))
            await fresh.propose(register(60))
        assert [type(error) for error in outcomes] == [OutcomeUnknown, OutcomeUnknown]
        assert not stale.is_leader
        with pytest.raises(NotLeader):
            await stale.barrier()
        mesh.lan.heal()
        await until(lambda: "worker-60" in stale.state.workers)
        assert "worker-50" not in stale.state.workers
        assert "worker-51" not in stale.state.workers


async def test_a_member_far_behind_gets_a_snapshot(autojump_clock: object) -> None:
    async with group(snapshot_entries=100) as mesh:
        leader = await mesh.three()
        await mesh.crash(C)
        for base in range(0, 1000, 50):
            await leader.propose_many([register(number) for number in range(base, base + 50)])
        assert mesh.disks[A].snapshot is not None
        assert mesh.disks[A].snapshot.index > 900
        assert len(mesh.disks[A].entries) < 150
        await mesh.start(C)
        await until(lambda: len(mesh.members[C].state.workers) == 1000)
        assert state_hash(mesh.members[C].state) == state_hash(leader.state)


async def test_services_run_where_the_leader_is_and_nowhere_else(autojump_clock: object) -> None:
    async with group() as mesh:
        leader = await mesh.three()
        running: set[PeerId] = set()

        def services(peer: PeerId) -> Callable[[], Awaitable[None]]:
            async def serve() -> None:
                assert mesh.members[peer].is_leader
                running.add(peer)
                try:
                    await trio.sleep_forever()
                finally:
                    running.discard(peer)

            return serve

        async with trio.open_nursery() as nursery:
            for peer, member in mesh.members.items():
                nursery.start_soon(member.lead, services(peer))
            await until(lambda: running == {A})
            assert await leader.transfer(B)
            await until(lambda: running == {B})
            await mesh.members[B].propose(register(1))
            mesh.lan.cut([B], [A, C])
            await until(lambda: bool(running) and B not in running)
            nursery.cancel_scope.cancel()


async def test_a_removed_voter_is_out(autojump_clock: object) -> None:
    async with group() as mesh:
        leader = await mesh.three()
        await leader.change(Remove(C))
        assert set(leader.configuration.voters) == {A, B}
        with pytest.raises(ChangeRefused):
            await leader.change(Remove(C))
        await until(lambda: C not in mesh.members[C].configuration.voters)
        await trio.sleep(10)
        assert leader.is_leader


async def test_a_full_disk_stops_the_node_with_a_sentence(autojump_clock: object) -> None:
    async with group() as mesh:
        leader = await mesh.three()
        mesh.disks[A].broken = True
        with pytest.raises(OutcomeUnknown):
            await leader.propose(register(1))
        await until(lambda: A in mesh.failures)
        assert str(mesh.failures[A]) == "the disk that holds the log is full"
        await (await mesh.leader((B, C))).propose(register(2))


async def test_messages_of_another_mesh_are_ignored(autojump_clock: object) -> None:
    async with group() as mesh:
        leader = await mesh.three()
        term = leader.term
        async with mesh.lan.node(PeerId("z")) as network:
            disk = FakeDisk()
            await found(disk, "2000.z", network.peer_id)
            other = Consensus(mesh="2000.z", network=network, disk=disk, rng=random.Random(1))
            network.know(A, ())
            async with trio.open_nursery() as nursery:
                nursery.start_soon(other.run)
                await until(lambda: other.is_leader)
                await other.change(AddLearner(A))
                await trio.sleep(5)
                nursery.cancel_scope.cancel()
        assert leader.is_leader
        assert leader.term == term
        assert "2000.z" not in leader.state.mesh


async def test_the_disk_must_hold_the_same_mesh(autojump_clock: object) -> None:
    async with group() as mesh, mesh.lan.node(A) as network:
        disk = FakeDisk()
        await found(disk, "2000.z", A)
        with pytest.raises(StorageError, match=r"is of mesh '2000\.z'"):
            Consensus(mesh=MESH, network=network, disk=disk, rng=random.Random(1))


async def test_no_two_lives_of_a_follower_number_a_read_alike(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the answer to the earlier one would serve a read of the later, in the same term: tests/raft/scripts."""
    asked: list[int] = []
    send = FakeNetwork.send

    def spy(self: FakeNetwork, peer: PeerId, protocol: str, payload: bytes) -> bool:
        if protocol == PROTOCOL:
            message = decode(payload, GroupMessage).message
            if isinstance(message, ReadIndex):
                asked.append(message.context)
        return send(self, peer, protocol, payload)

    monkeypatch.setattr(FakeNetwork, "send", spy)
    async with group() as mesh:
        leader = await mesh.three()
        for _ in range(2):
            for _ in range(3):
                assert await mesh.members[C].barrier() >= leader.applied
            await mesh.crash(C)
            await mesh.start(C)
            await until(lambda: mesh.members[C].leader == A)
    assert len(asked) == len(set(asked)) >= 6


async def test_a_stall_causes_no_election(autojump_clock: trio.abc.Clock) -> None:
    async with group() as mesh:
        leader = await mesh.three()
        term = leader.term
        network = mesh.lan.nodes[A]
        assert isinstance(network, FakeNetwork)
        for _ in range(10):
            autojump_clock.jump(5.0)  # type: ignore[attr-defined]
            await trio.sleep(0.5)
        assert leader.is_leader
        assert leader.term == term


async def test_an_idle_group_sleeps_between_its_heartbeats(
    autojump_clock: trio.abc.Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every tick is counted, but nobody wakes up for those that do nothing."""
    async with group() as mesh:
        leader = await mesh.three()
        await trio.sleep(1)
        ticks, looks = dict.fromkeys((A, B, C), 0), dict.fromkeys((A, B, C), 0)
        tick, take = Raft.tick, Raft.take_messages

        def counted_tick(self: Raft) -> None:
            ticks[self.status().peer] += 1
            tick(self)

        def counted_take(self: Raft) -> tuple[Outgoing, ...]:
            looks[self.status().peer] += 1
            return take(self)

        monkeypatch.setattr(Raft, "tick", counted_tick)
        monkeypatch.setattr(Raft, "take_messages", counted_take)
        await trio.sleep(30)
        due = round(30 / TICK_SECONDS)
        assert all(abs(count - due) <= OPTIONS.heartbeat_ticks for count in ticks.values()), ticks
        rounds = due / OPTIONS.heartbeat_ticks
        assert looks[A] < 5 * rounds, "heartbeats, and their answers"
        assert max(looks[B], looks[C]) < 3 * rounds, "heartbeats only"
        assert leader.is_leader

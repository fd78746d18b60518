"""Making a snapshot, of whatever size and on whatever disk, holds nothing up."""

import random

import trio

from mesh.consensus import Consensus
from mesh.log_home import LogHome
from mesh.state.snapshot import decode_state, encode_state
from protocols.commands import Register
from protocols.errors import StorageError
from protocols.ids import PeerId
from protocols.raft import Snapshot
from tests.fakes.disk import FakeDisk
from tests.fakes.network import Lan
from tests.fakes.waiting import until

A = PeerId("a")
MESH = "1000.a"


class SlowToKeep(FakeDisk):
    """Writes entries at once; a snapshot, but for the founding one, when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0
        self.may = trio.Event()

    async def save_snapshot(self, snapshot: Snapshot) -> None:
        if self.snapshot is not None:
            self.asked = snapshot.index
            await self.may.wait()
        await super().save_snapshot(snapshot)


def register(number: int) -> Register:
    return Register(PeerId(f"worker-{number}"), f"worker {number}", number, 1)


async def alone(lan: Lan, disk: FakeDisk, nursery: trio.Nursery, entries: int) -> Consensus:
    """One voter, which leads."""
    network = await nursery.start(_network, lan)
    await LogHome(network=network, disk=disk, rng=random.Random(0)).found(MESH)
    member = Consensus(mesh=MESH, network=network, disk=disk, rng=random.Random(0), snapshot_entries=entries)
    nursery.start_soon(member.run)
    await until(lambda: member.is_leader)
    return member


async def _network(lan, task_status):
    async with lan.node(A) as network:
        task_status.started(network)
        await trio.sleep_forever()


async def test_entries_are_committed_while_a_snapshot_is_written(autojump_clock: object) -> None:
    disk = SlowToKeep()
    async with trio.open_nursery() as nursery:
        member = await alone(Lan(), disk, nursery, entries=10)
        await member.propose_many([register(number) for number in range(20)])
        await until(lambda: disk.asked > 0)
        term = member.term
        for number in range(20, 60):
            await member.propose(register(number))
            await trio.sleep(0.1)  # longer in all than a disk may hang
        assert member.is_leader
        assert member.term == term
        assert member.applied == disk.asked + 40
        disk.may.set()
        await until(lambda: disk.snapshot is not None and disk.snapshot.index >= disk.asked > 1)
        await until(lambda: member.status().snapshot_index == disk.snapshot.index)
        kept = decode_state(disk.snapshot.data)
        assert kept.applied == disk.snapshot.index, "the state as it was there, not as it is now"
        again = Consensus(mesh=MESH, network=member._network, disk=disk, rng=random.Random(0))
        assert again.applied == disk.snapshot.index
        assert encode_state(again.state) == disk.snapshot.data
        nursery.cancel_scope.cancel()


async def test_a_snapshot_that_can_not_be_written_stops_the_node(autojump_clock: object) -> None:
    class Full(SlowToKeep):
        async def save_snapshot(self, snapshot: Snapshot) -> None:
            if self.snapshot is not None:
                raise StorageError("the disk is full")
            await super().save_snapshot(snapshot)

    disk = Full()
    failures: list[str] = []
    async with trio.open_nursery() as nursery:
        network = await nursery.start(_network, Lan())
        await LogHome(network=network, disk=disk, rng=random.Random(0)).found(MESH)
        member = Consensus(mesh=MESH, network=network, disk=disk, rng=random.Random(0), snapshot_entries=10)

        async def run() -> None:
            try:
                await member.run()
            except StorageError as error:
                failures.append(str(error))

        nursery.start_soon(run)
        await until(lambda: member.is_leader)
        await member.propose_many([register(number) for number in range(20)])
        await until(lambda: failures == ["the disk is full"])
        nursery.cancel_scope.cancel()

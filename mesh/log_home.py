"""Where a node's log begins and ends: of which mesh the disk holds a log, before a `Consensus` runs on it and after."""

import random

from mesh.consensus import Consensus
from mesh.measures import LogMeasures
from mesh.ports import Disk, Network, Saved
from mesh.state.apply import apply
from mesh.state.model import CoordinatorState
from mesh.state.replay import state_of
from mesh.state.snapshot import encode_state
from protocols.commands import Found
from protocols.raft import LOG_FORMAT_NEWEST, Configuration, HardState, Snapshot


class LogHome:
    """The place of a node's log, and the mesh that it is of: there is none, or one."""

    def __init__(self, network: Network, disk: Disk, rng: random.Random, measures: LogMeasures | None = None) -> None:
        self._network = network
        self._disk = disk
        self._rng = rng
        self._measures = measures

    async def resume(self) -> str:
        """The mesh whose log is here; empty for none. What a node kept that was about to join (a term, no log) goes."""
        saved = self._disk.load()
        if saved.snapshot is None and saved != Saved(HardState(), None, ()):
            await self.set_aside()
        return state_of(saved.snapshot).mesh if saved.snapshot else ""

    async def found(self, mesh: str) -> None:
        """Begin a mesh, whose one voter is this node, on the empty disk.

        Its beginning is a snapshot and no entry, so that no log ever exists that has no name yet.
        """
        state = CoordinatorState(format=LOG_FORMAT_NEWEST)
        apply(state, 1, Found(mesh))
        configuration = Configuration(voters=(self._network.peer_id,))
        await self._disk.save_snapshot(Snapshot(1, 1, configuration, encode_state(state)))

    async def set_aside(self) -> None:
        await self._disk.set_aside()

    def open(self, mesh: str) -> Consensus:
        return Consensus(mesh=mesh, network=self._network, disk=self._disk, rng=self._rng, measures=self._measures)

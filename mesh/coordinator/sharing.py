"""Shared names (`mesh_once`, `mesh_lock`) as workers ask for them: a claim waits here, for a while, for its turn."""

from collections.abc import Mapping

import trio

from mesh.coordinator.replicas import Replicas
from mesh.ports import NodeView, ReplicatedLog
from mesh.state.model import Claimed, CoordinatorState
from mesh.state.results import Applied
from mesh.state.shared import full
from protocols.commands import Claim, Settle
from protocols.errors import UsageError
from protocols.ids import PeerId
from protocols.work import Ack, ClaimName, NameClaimed, SettleName

WAIT_SECONDS_MAX = 4.0
"""How long a claim waits for the name to be free before its worker is told to ask again."""

NAME_BYTES_MAX = 500


class SharedNames:
    """Proposes what workers' processes ask for; the log's order decides who holds a name."""

    def __init__(self, log: ReplicatedLog, replicas: Replicas) -> None:
        self._log = log
        self._replicas = replicas

    async def claim(self, peer: PeerId, request: ClaimName) -> NameClaimed:
        if len(request.name.encode()) > NAME_BYTES_MAX:
            raise UsageError(f"a shared name has at most {NAME_BYTES_MAX} bytes")
        mine = Claimed(request.run, peer, request.holder)
        with trio.move_on_after(WAIT_SECONDS_MAX):
            while True:
                version = self._log.version
                state: CoordinatorState = self._log.state
                run = state.runs.get(request.run)
                if run is None:
                    raise UsageError(f"there is no run {request.run}")
                if request.name in run.values:
                    return NameClaimed(False, run.values[request.name], tuple(run.workers))
                held = state.claims.get(request.name)
                if held == mine:
                    return NameClaimed(True)
                if held is None:
                    command = Claim(request.run, request.name, peer, request.incarnation, request.holder)
                    result = (await self._log.propose(command)).result
                    if isinstance(result, Applied):
                        return NameClaimed(True)
                    if full(self._log.state, request.run):
                        raise UsageError(result.reason)
                    version = self._log.version  # or the refused proposal itself would be the news
                await self._log.wait_changed(version)
        return NameClaimed(False)

    async def settle(self, peer: PeerId, request: SettleName, nodes: Mapping[PeerId, NodeView]) -> Ack:
        if request.value is not None:
            await self._replicas.secure(request.value, peer, nodes, run=request.run)
        await self._log.propose(Settle(request.run, request.name, peer, request.holder, request.value))
        return Ack()

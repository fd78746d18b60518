"""The end of a run's processes, before its report is made: what fixtures of the session raise then belongs to it.

As with pytest, the run is over when they are torn down. A worker that is gone, or late with its answer, says nothing.
"""

import logging
from collections.abc import Sequence

from mesh.ports import Network
from mesh.together import together
from protocols.codec import decode, encode
from protocols.errors import NodeUnavailable, ProtocolError, RemoteCallError
from protocols.ids import PeerId, RunId
from protocols.work import PROTOCOL, EndRun, RunEnded

log = logging.getLogger(__name__)

ENDING_SECONDS_MAX = 75.0
"""For all processes of a run on one worker to end: a little more than they have."""


async def end(network: Network, run: RunId, workers: Sequence[PeerId]) -> dict[PeerId, tuple[str, ...]]:
    """Have the workers end the run's processes; the errors of those where something went wrong, in that order."""
    told: dict[PeerId, tuple[str, ...]] = {}

    async def ask(worker: PeerId) -> None:
        try:
            answer = await network.call(worker, PROTOCOL, encode(EndRun(run)), timeout=ENDING_SECONDS_MAX)
            told[worker] = decode(answer, RunEnded).errors
        except (NodeUnavailable, RemoteCallError, ProtocolError) as error:
            log.info("%s does not say how run %d ended there: %s", worker, run, error)

    await together(ask, list(workers))
    return {worker: told[worker] for worker in workers if told.get(worker)}

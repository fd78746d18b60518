"""What a worker reports, taken in: on two nodes before the log hears of it."""

from collections.abc import Mapping

from mesh.autopilot import reads_format
from mesh.coordinator.replicas import Replicas
from mesh.ports import Content, NodeView
from mesh.state.model import CoordinatorState
from mesh.state.signing import LOG_FORMAT_MIN
from protocols.codec import decode
from protocols.ids import Cid, PeerId, RunId
from protocols.manifests import Chunk, Record


def signs(state: CoordinatorState, worker: NodeView | None) -> bool:
    """Whether this worker is to sign its results: every member knows what that is, and it does, too."""
    known = worker is not None and reads_format(worker.presence) >= LOG_FORMAT_MIN
    return known and state.format >= LOG_FORMAT_MIN


async def take_in(
    content: Content, replicas: Replicas, chunk: Cid, peer: PeerId, nodes: Mapping[PeerId, NodeView], run: RunId
) -> list[Record]:
    """The records of a chunk, each of which is a block of its own here afterwards; what they refer to is safe, too, as
    long as the run is open."""
    await replicas.secure(chunk, peer, nodes, run=run)
    found = decode(await content.get(chunk), Chunk).records
    await content.put_many(found, "dag-cbor")
    records = [decode(data, Record) for data in found]
    for artifacts in (record.artifacts for record in records if record.artifacts is not None):
        await replicas.secure(artifacts, peer, nodes, run=run)
    for origin in dict.fromkeys(record.origin for record in records if record.origin is not None):
        await replicas.secure_origin(origin, peer, nodes, run)
    return records

"""Who signs, and what is safe before the log hears of it."""

from typing import Any

import pytest

from mesh.content.unixfs.cid import as_raw
from mesh.coordinator.replicas import Replicas
from mesh.coordinator.taking import signs, take_in
from mesh.ports import NodeView
from mesh.state.model import CoordinatorState
from protocols.codec import encode_block
from protocols.ids import Cid, LeaseId, PeerId, RunId, TestIndex
from protocols.manifests import Chunk, EnvironmentInfo, Origin, Outcome, Record, RunSpec
from protocols.presence import NodeState, Presence, Role
from protocols.raft import LOG_FORMAT_CAPABILITY
from tests.fakes.content import Shelves
from tests.fakes.network import FakeNetwork, Lan

HERE, WORKER = PeerId("coordinator"), PeerId("worker")


def view(capabilities: dict[str, Any]) -> NodeView:
    presence = Presence(WORKER, "w", Role.AUTO, 1, 1, (), 1, 0, False, capabilities, {}, (), ())
    return NodeView(presence, NodeState.ALIVE, 0.0, 0.0, True)


@pytest.mark.parametrize(
    ("log_format", "worker", "expected"),
    [
        (4, view({LOG_FORMAT_CAPABILITY: 4}), True),
        (4, view({LOG_FORMAT_CAPABILITY: 3}), False),
        (4, view({}), False),
        (4, None, False),
        (3, view({LOG_FORMAT_CAPABILITY: 4}), False),
    ],
)
def test_who_signs_is_known_to_read_it(log_format: int, worker: NodeView | None, expected: bool) -> None:
    assert signs(CoordinatorState(format=log_format), worker) is expected


async def test_what_records_refer_to_is_on_two_nodes() -> None:
    """The chunk, artifacts, the origin, and what was installed; not the bundle, which the run has anyway."""
    shelves = Shelves(Lan())
    for peer in (HERE, WORKER):
        shelves.lan.nodes[peer] = FakeNetwork(peer, shelves.lan, None)
    there, here = shelves.of(WORKER), shelves.of(HERE)
    bundle, manifest, listed, left = [await there.put(data) for data in (b"bundle", b"manifest", b"pytest 9\n", b"png")]
    environment = EnvironmentInfo("ambient", "d", "cpython", "3.12.1", "linux-x86_64", listed)
    spec = RunSpec(bundle, "s", "s", PeerId("x"))
    origin = await there.put(encode_block(Origin(RunId(2), spec, manifest, environment, ())))
    record = Record("t", Outcome.PASSED, 0.1, 1e9, WORKER, 0, 1, artifacts=left, origin=origin)
    data = encode_block(record)
    chunk = await there.put(encode_block(Chunk((TestIndex(0),), (data,), RunId(2), LeaseId(5), WORKER, origin)))
    replicas = Replicas(shelves.lan.nodes[HERE], here, lambda: [HERE])
    assert await take_in(here, replicas, chunk, WORKER, {}, RunId(2)) == [record]

    async def has(*cids: Cid) -> list[bool]:
        return [await here.has(cid) for cid in cids]

    assert await has(chunk, left, origin, listed) == [True] * 4
    assert await has(bundle, manifest) == [False] * 2
    held = {one.root for one in await here.kept() if one.run == 2}
    assert held == {chunk, left, as_raw(origin), listed}, "as long as the run is open"

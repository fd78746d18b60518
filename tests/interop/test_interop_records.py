"""Records, chunks and reports in the hands of a real Kubo: IPLD that it reads, links that it follows."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import trio

from mesh.content.unixfs.cid import as_raw
from mesh.state.signing import signed_chunk
from protocols.codec import decode, encode_block
from protocols.ids import LeaseId, PeerId, RunId, TestIndex
from protocols.manifests import Chunk, EnvironmentInfo, Origin, Outcome, Phase, Record, RunSpec
from tests.content.content_nodes import KEY, node_maker, poll
from tests.interop.kubo_daemon import Kubo, needs_kubo, new_kubo

pytestmark = [pytest.mark.kubo, needs_kubo]


@pytest.fixture(scope="module")
def kubo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kubo]:
    with new_kubo(tmp_path_factory.mktemp("kubo"), KEY).running() as running:
        yield running


async def test_kubo_reads_records_and_follows_their_links(kubo: Kubo, tmp_path: Path) -> None:
    """What `ipfs dag get` and `ipfs get` make of a run's content, fetched from a node by CID; and what Kubo writes as
    DAG-CBOR is what we wrote, byte by byte: it is as strict as can be."""
    async with node_maker(tmp_path)() as node:

        async def ipfs(*arguments: str) -> str:
            with trio.fail_after(30):
                return (await trio.to_thread.run_sync(lambda: kubo.run(*arguments))).strip()

        address = await trio.to_thread.run_sync(lambda: kubo.address)
        node.network.know(PeerId(kubo.peer), [address])
        with trio.fail_after(20):
            await poll(lambda: PeerId(kubo.peer) in node.network.links())
        content = node.content
        bundle = await content.add_files({"test_a.py": b"def test_a(): ..."})
        manifest, listed, shot = [await content.put(data) for data in (b"manifest", b"pytest 9.0\n", b"png")]
        environment = EnvironmentInfo("ambient", "d", "cpython", "3.12.1", "linux-x86_64", listed)
        spec = RunSpec(bundle, "s", "s", node.network.peer_id, timeout=1.5)
        origin = await content.put(
            encode_block(Origin(RunId(3), spec, manifest, environment, (("PYTHONHASHSEED", "1"),))), "dag-cbor"
        )
        record = Record(
            "test_a.py::test_a", Outcome.PASSED, 0.25, 1e9 / 3, node.network.peer_id, 0, 1,
            (Phase("call", "passed", 0.1),), properties=(("ä", "ö"),), artifacts=shot, origin=origin,
        )  # fmt: skip
        chunk = signed_chunk(
            Chunk((TestIndex(0),), (encode_block(record),), RunId(3), LeaseId(5), node.network.peer_id, origin),
            node.network.sign,
        )
        of_record, of_chunk = await content.put_many([chunk.records[0], encode_block(chunk)], "dag-cbor")
        report = await content.add_files({"report.json": b"{}", "chunks/0.cbor": as_raw(of_chunk)})

        told = json.loads(await ipfs("dag", "get", of_record))
        assert told[:3] == ["m.record", "test_a.py::test_a", "passed"]
        place = 1 + [field.name for field in dataclasses.fields(Record)].index("origin")
        assert told[place] == {"/": origin}
        assert await ipfs("dag", "resolve", f"{of_record}/{place}/2/1") == bundle
        assert await ipfs("dag", "resolve", f"{of_record}/{place}/3") == manifest
        assert await ipfs("dag", "resolve", f"{of_record}/{place}/4/6") == listed
        assert {shot, origin} == set((await ipfs("refs", of_record)).split())
        for cid in (of_record, of_chunk, origin):
            path = trio.Path(tmp_path / cid)
            await path.write_text(await ipfs("dag", "get", "--output-codec=dag-json", cid))
            again = await ipfs("dag", "put", "--input-codec=dag-json", "--store-codec=dag-cbor", str(path))
            assert again == cid

        await ipfs("pin", "add", report)
        assert of_chunk in await ipfs("dag", "resolve", of_chunk), "the pinned leaf is the block of the chunk"
        await ipfs("get", "-o", str(tmp_path / "got"), report)
        assert decode((tmp_path / "got" / "chunks" / "0.cbor").read_bytes(), Chunk) == chunk

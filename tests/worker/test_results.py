"""Batches of results, and the chunks that are made of them."""

from mesh.net.identity import is_signed_by, peer_id_of
from mesh.ports import Finished
from mesh.state.signing import is_signed
from mesh.worker.results import BATCH_TESTS_MAX, ResultBuffer, encode_batch, ended_as
from protocols.codec import decode, encode, encode_block
from protocols.ids import Cid, LeaseId, PeerId, RunId, TestIndex, cid_text
from protocols.manifests import Chunk, Outcome, Record

SEED = b"w" * 32
WORKER = peer_id_of(SEED)
ORIGIN = cid_text(b"\x01\x71\x12\x20" + bytes(32))


def sign(data: bytes) -> bytes:
    from nacl.signing import SigningKey

    return SigningKey(SEED).sign(data).signature


def record(index: int, origin: Cid | None) -> Record:
    return Record(f"t.py::test_{index}", Outcome.PASSED, 0.5, 1e9, WORKER, 0, 1, origin=origin)


def batch(origin: Cid | None, lease: int = 5, count: int = 3) -> list:
    made = [record(index, origin) for index in range(count)]
    return [ended_as(Finished(LeaseId(lease), TestIndex(i), one), RunId(2), one) for i, one in enumerate(made)]


def test_a_chunk_is_signed_where_its_records_tell_their_origin() -> None:
    chunk = decode(encode_batch(batch(ORIGIN), WORKER, sign), Chunk)
    assert (chunk.run, chunk.lease, chunk.worker, chunk.origin) == (2, 5, WORKER, ORIGIN)
    assert chunk.records == tuple(encode_block(record(index, ORIGIN)) for index in range(3))
    assert is_signed(chunk, is_signed_by)


def test_without_an_origin_a_chunk_is_what_it_always_was() -> None:
    """Nodes of the version before read it."""
    records = tuple(encode(record(index, None)) for index in range(3))
    as_before = encode(Chunk(tuple(map(TestIndex, range(3))), records))
    assert encode_batch(batch(None), PeerId("anyone"), sign) == as_before


def test_a_batch_is_of_one_lease_and_closes_when_it_is_full() -> None:
    buffer = ResultBuffer()
    full = [buffer.add(ended) for ended in batch(None, lease=7, count=BATCH_TESTS_MAX)]
    assert full[:-1] == [None] * (BATCH_TESTS_MAX - 1)
    assert len(full[-1]) == BATCH_TESTS_MAX
    for ended in (*batch(None, lease=9), *batch(None, lease=8)):
        buffer.add(ended)
    assert [[one.lease for one in taken] for taken in buffer.take_all()] == [[8] * 3, [9] * 3]
    assert buffer.take_all() == []

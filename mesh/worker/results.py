"""Finished tests on their way into chunks. Pure.

Invariant: a test lies in exactly one batch; a batch belongs to one lease. A batch closes when it is full, by count or
by bytes, or when the agent asks for all (it does so several times a second, and at the end of a lease).
"""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from mesh.ports import Finished
from mesh.state.signing import Sign, signed_chunk
from protocols.codec import encode, encode_block
from protocols.ids import Cid, LeaseId, PeerId, RunId, TestIndex
from protocols.inputs import Inputs, Place, pack, table
from protocols.manifests import Chunk, Outcome, Record

BATCH_TESTS_MAX = 512
BATCH_BYTES_MAX = 512 * 1024
"""A batch closes once it is over this; with one record of at most about 1 MiB it still fits a block."""

INPUTS_BYTES_MAX = 256 * 1024
"""Of what a batch's tests read, packed; more is left out, and these tests will run again."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A test's result, its record encoded. Duration in microseconds."""

    run: RunId
    lease: LeaseId
    test: TestIndex
    outcome: Outcome
    duration: int
    record: bytes
    origin: Cid | None = None
    """Of the record; None: its run's results are not signed."""
    inputs: Inputs | None = None
    place: Place | None = None
    """Where it ran, for those who may reuse its verdict."""


def ended_as(event: Finished, run: RunId, record: Record, place: Place | None = None) -> Ended:
    """A record that links its origin is a strict IPLD block."""
    data = encode(record) if record.origin is None else encode_block(record)
    micros = max(0, math.ceil(record.duration * 1e6))
    return Ended(run, event.lease, event.index, record.outcome, micros, data, record.origin, event.inputs, place)


def encode_batch(batch: Sequence[Ended], worker: PeerId, sign: Sign) -> bytes:
    """The chunk of a batch, signed if its records tell where they come from."""
    tests, records = tuple(ended.test for ended in batch), tuple(ended.record for ended in batch)
    first, inputs = batch[0], packed_inputs(batch)
    if first.origin is None:
        return encode(Chunk(tests, records, inputs=inputs))
    made = Chunk(tests, records, first.run, first.lease, worker, first.origin, inputs=inputs)
    return encode_block(signed_chunk(made, sign))


class ResultBuffer:
    """Batches of results, one open for each lease."""

    def __init__(self) -> None:
        self._open: defaultdict[LeaseId, list[Ended]] = defaultdict(list)
        self._bytes: defaultdict[LeaseId, int] = defaultdict(int)

    def add(self, ended: Ended) -> list[Ended] | None:
        """Take one result; a whole batch if it is full now."""
        lease = ended.lease
        self._open[lease].append(ended)
        self._bytes[lease] += len(ended.record)
        if len(self._open[lease]) >= BATCH_TESTS_MAX or self._bytes[lease] > BATCH_BYTES_MAX:
            return self.take(lease)
        return None

    def take(self, lease: LeaseId) -> list[Ended]:
        """The lease's open batch, which is empty from then on."""
        self._bytes.pop(lease, None)
        return self._open.pop(lease, [])

    def take_all(self) -> list[list[Ended]]:
        """Every open batch, oldest lease first."""
        return [self.take(lease) for lease in sorted(self._open)]


def packed_inputs(batch: Sequence[Ended]) -> bytes:
    """What the tests of a batch, of one lease, read; nothing where that is not known."""
    place = batch[0].place
    inputs = [ended.inputs for ended in batch]
    if place is None or not any(inputs):
        return b""
    packed = pack(table(place.setting, place.hardware, inputs))
    return packed if len(packed) <= INPUTS_BYTES_MAX else b""

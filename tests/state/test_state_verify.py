"""What `mesh verify` finds: each way of tampering with a report, and nothing in one that is as it was signed."""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest

from mesh.net.identity import is_signed_by, peer_id_of
from mesh.state.signing import is_signed, signed_chunk, signed_seal
from mesh.state.verify import PROBLEMS_MAX, UNSIGNED, Files, Findings, record_cid, verify
from protocols.codec import encode, encode_block
from protocols.ids import Cid, LeaseId, PeerId, RunId, TestIndex, cid_text
from protocols.manifests import (
    Chunk,
    CollectedTest,
    EnvironmentInfo,
    Manifest,
    Origin,
    Outcome,
    Record,
    RunSpec,
    Seal,
)

COORDINATOR, WORKER, OTHER, STRANGER = (hashlib.sha256(name).digest() for name in (b"c", b"w", b"o", b"s"))
"""Seeds of keys."""
BUNDLE, MANIFEST, LISTED = (cid_text(b"\x01\x55\x12\x20" + bytes([n]) * 32) for n in range(3))
TESTS = [f"test_a.py::test_{n}" for n in range(5)]
ORIGIN = Origin(
    RunId(7),
    RunSpec(BUNDLE, "s", "s", PeerId("x"), timeout=2.5),
    MANIFEST,
    EnvironmentInfo("ambient", "d", "cpython", "3.12.1", "linux-x86_64", LISTED),
    (("PYTHONHASHSEED", "5"),),
)


def signer(seed: bytes) -> Callable[[bytes], bytes]:
    from nacl.signing import SigningKey

    return lambda data: SigningKey(seed).sign(data).signature


class Report:
    """A report that can be changed before it is looked at, and be given a new seal."""

    def __init__(self) -> None:
        self.manifest = Manifest(BUNDLE, tuple(CollectedTest(test, "m") for test in TESTS))
        self.origin = encode_block(ORIGIN)
        self.records: dict[str, Record] = {}
        self.chunks: dict[str, Chunk] = {}
        for number, (seed, tests) in enumerate([(WORKER, (0, 1, 2)), (OTHER, (3, 4))]):
            self.chunks[f"chunks/{number:06d}.cbor"] = self.chunk(seed, tests, 11 + number)
        self.entries = [self.entry(record) for record in self.records.values()]
        self.counts = {"passed": 4, "failed": 1, "error": 0, "skipped": 0, "xfailed": 0, "xpassed": 0}
        self.reason, self.state = "", "failed"
        self.teardowns = 0
        self.junit = {"tests": "5", "failures": "1", "errors": "0", "skipped": "0"}
        self.workers = [COORDINATOR, WORKER, OTHER]
        self.files: dict[str, bytes] = {}
        self.seal = b""
        self.reseal()

    def chunk(self, seed: bytes, tests: tuple[int, ...], lease: int) -> Chunk:
        peer, made = peer_id_of(seed), []
        for test in tests:
            outcome = Outcome.FAILED if test == 3 else Outcome.PASSED
            made.append(Record(TESTS[test], outcome, 0.5, 1e9, peer, 0, 1, origin=record_cid(self.origin)))
            self.records[TESTS[test]] = made[-1]
        data = tuple(encode_block(record) for record in made)
        indexes = tuple(map(TestIndex, tests))
        chunk = Chunk(indexes, data, RunId(7), LeaseId(lease), peer, record_cid(self.origin))
        return signed_chunk(chunk, signer(seed))

    def entry(self, record: Record) -> dict[str, Any]:
        cid = record_cid(encode_block(record))
        return {
            "test": record.test,
            "outcome": record.outcome.value,
            "worker": record.worker,
            "attempt": 1,
            "record": cid,
        }

    def written(self) -> dict[str, bytes]:
        document = {
            "counts": self.counts,
            "teardowns": self.teardowns,
            "tests": self.entries,
            "reason": self.reason,
            "state": self.state,
        }
        lines = [json.dumps({"test": e["test"], "outcome": e["outcome"]}).encode() + b"\n" for e in self.entries]
        return {
            "report.json": json.dumps(document).encode(),
            "manifest.cbor": encode(self.manifest),
            "origins": self.origin,
            "chunks": b"".join(encode_block(chunk) for chunk in self.chunks.values()),
            "records": b"".join(lines),
        }

    def reseal(self, seed: bytes = COORDINATOR) -> None:
        """As a coordinator with this key would: over all that there is."""
        self.files = self.written()
        entries = tuple(sorted((name, hashed(data)) for name, data in self.files.items()))
        workers = tuple((peer_id_of(one), "name") for one in self.workers)
        seal = Seal(RunId(7), peer_id_of(seed), 1e9, workers, 1, len(self.chunks), entries)
        self.seal = encode_block(signed_seal(seal, signer(seed)))

    def verify(self, **changes: Any) -> Findings:
        self.files = self.written()
        files = Files(
            entries={name: hashed(data) for name, data in self.files.items()},
            seal=self.seal,
            report=self.files["report.json"],
            manifest=self.files["manifest.cbor"],
            junit=self.junit,
            chunks=[(name, encode_block(chunk)) for name, chunk in self.chunks.items()],
            origins=[("origins/0.cbor", self.origin)],
            lines=[("records/0.jsonl", self.files["records"])],
        )
        return verify(dataclasses.replace(files, **changes), is_signed_by)


def hashed(data: bytes) -> Cid:
    return record_cid(data)


def test_a_report_as_it_was_signed() -> None:
    found = Report().verify()
    assert (found.problems, found.notes) == ([], [])
    assert found.ran == {peer_id_of(WORKER): 3, peer_id_of(OTHER): 2}
    assert found.seal is not None
    assert found.seal.coordinator == peer_id_of(COORDINATOR)


def test_a_flipped_byte() -> None:
    report = Report()
    flipped = bytearray(report.seal)
    flipped[-1] ^= 1
    assert (
        report.verify(seal=bytes(flipped)).problems[0].startswith("the seal's signature is not that of the coordinator")
    )
    sealed = dict(report.verify().seal.entries) | {"junit.xml": hashed(b"<testsuite/>")}
    assert report.verify(entries=sealed).problems == ["junit.xml was added after the report was sealed"]
    name, chunk = next(iter(report.chunks.items()))
    data = bytearray(encode_block(chunk))
    data[data.index(b"passed")] ^= 1
    problems = report.verify(
        chunks=[(name, bytes(data)), *[(n, encode_block(c)) for n, c in list(report.chunks.items())[1:]]]
    ).problems
    assert f"{name} has a signature that is not that of the worker that it names, {chunk.worker}" in problems


def test_a_verdict_that_was_edited() -> None:
    report = Report()
    report.entries[3]["outcome"] = "passed"
    report.counts |= {"passed": 5, "failed": 0}
    report.junit |= {"failures": "0"}
    problems = report.verify().problems
    assert any(problem.startswith("report.json is not what was sealed") for problem in problems)
    edited = "test_a.py::test_3 is passed in report.json, and failed in its record"
    assert edited in problems
    report.reseal()
    assert report.verify().problems == [edited]


def test_a_verdict_that_was_edited_in_the_record_too() -> None:
    """Who holds the coordinator's key can't make a worker say what it did not."""
    report = Report()
    name, chunk = list(report.chunks.items())[1]
    record = dataclasses.replace(report.records[TESTS[3]], outcome=Outcome.PASSED)
    report.chunks[name] = dataclasses.replace(chunk, records=(encode_block(record), chunk.records[1]))
    report.entries[3] = report.entry(record)
    report.counts |= {"passed": 5, "failed": 0}
    report.junit |= {"failures": "0"}
    report.reseal()
    assert f"{name} has a signature that is not that of the worker" in report.verify().problems[0]


def test_a_record_that_was_removed() -> None:
    report = Report()
    name, chunk = list(report.chunks.items())[1]
    seed = OTHER
    report.chunks[name] = signed_chunk(
        dataclasses.replace(chunk, tests=chunk.tests[:1], records=chunk.records[:1]), signer(seed)
    )
    report.reseal()
    cid = report.entries[4]["record"]
    assert report.verify().problems == [
        f"test_a.py::test_4: its record {cid} is missing, or nobody's signature stands for it"
    ]
    del report.entries[4]
    report.counts["passed"] = 3
    report.junit["tests"] = "4"
    report.reseal()
    assert report.verify().problems == ["test_a.py::test_4 has no verdict: it is one of the run's tests"]
    report.reason, report.state = "cancelled by a user", "cancelled"
    report.reseal()
    found = report.verify()
    assert found.problems == []
    assert found.notes == ["1 of 5 tests have no verdict: the run was cancelled: cancelled by a user"]
    del report.chunks[name]
    assert "the report has 1 chunks of records, and was sealed with 2" in report.verify().problems


def test_a_record_that_a_stranger_signed() -> None:
    report = Report()
    name = list(report.chunks)[1]
    report.chunks[name] = report.chunk(STRANGER, (3, 4), 12)
    report.entries = [report.entry(record) for record in report.records.values()]
    report.reseal()
    stranger = peer_id_of(STRANGER)
    assert report.verify().problems[0] == (f"{name} was signed by a stranger: {stranger} is none of the run's workers")
    report.chunks[name] = dataclasses.replace(report.chunks[name], worker=peer_id_of(OTHER))
    report.reseal()
    assert "has a signature that is not that of the worker" in report.verify().problems[0]


def test_what_a_worker_may_not_sign() -> None:
    """Another worker's record, one of another run, a pass of a test that ran nowhere."""
    report = Report()
    name, chunk = next(iter(report.chunks.items()))
    others = encode_block(dataclasses.replace(report.records[TESTS[0]], worker=peer_id_of(OTHER)))
    report.chunks[name] = signed_chunk(dataclasses.replace(chunk, records=(others, *chunk.records[1:])), signer(WORKER))
    assert any(f"and {peer_id_of(WORKER)} signed it" in problem for problem in report.verify().problems)
    report.chunks[name] = signed_chunk(dataclasses.replace(chunk, run=RunId(8)), signer(WORKER))
    assert f"{name} is of run 8, not 7" in report.verify().problems
    nowhere = signed_chunk(dataclasses.replace(chunk, lease=LeaseId(0)), signer(WORKER))
    report.chunks[name] = nowhere
    assert f"{name}: {TESTS[0]} ran nowhere, and is said to be passed" in report.verify().problems


def test_a_coordinator_tells_of_tests_that_ran_nowhere() -> None:
    report = Report()
    test = TESTS[4]
    record = Record(test, Outcome.SKIPPED, 0.0, 1e9, PeerId(""), 0, 1, message="depends on another")
    made = Chunk((TestIndex(4),), (encode_block(record),), RunId(7), LeaseId(0), peer_id_of(COORDINATOR))
    report.chunks["chunks/000002.cbor"] = signed_chunk(made, signer(COORDINATOR))
    report.entries[4] = report.entry(record) | {"worker": None}
    report.counts |= {"passed": 3, "skipped": 1}
    report.junit["skipped"] = "1"
    report.reseal()
    found = report.verify()
    assert found.problems == []
    assert found.nowhere == {peer_id_of(COORDINATOR): 1}
    assert found.ran.total() == 4


def test_tries_are_counted_by_the_log() -> None:
    """A worker counts those that it, and nodes that died, began; the log each that was bad."""
    report = Report()
    report.entries[0]["attempt"] = 3
    report.reseal()
    assert report.verify().problems == []
    report.entries[0]["attempt"] = 0
    report.reseal()
    assert report.verify().problems == [f"{TESTS[0]} is attempt 0 in report.json, 1 in its record"]


def test_errors_after_the_last_test_are_no_verdicts() -> None:
    report = Report()
    report.teardowns = 2
    report.junit |= {"tests": "7", "errors": "2"}
    report.reseal()
    assert report.verify().problems == []
    report.teardowns = 1
    report.reseal()
    assert "junit.xml counts 2 errors, report.json 1" in report.verify().problems


def test_documents_that_disagree() -> None:
    report = Report()
    report.entries.append(report.entries[0])
    report.counts["passed"] = 9
    problems = report.verify(lines=[]).problems
    assert f"{TESTS[0]} has 2 verdicts" in problems
    assert "report.json counts 9 passed, and its tests are 5" in problems
    assert "junit.xml counts 5 tests, report.json 6" in problems
    assert f"{TESTS[0]} is in report.json only: report.json and records/ name different tests" in problems


def test_an_old_report_is_said_to_be_one() -> None:
    """Its documents are still compared."""
    report = Report()
    assert report.verify(seal=None, chunks=[], origins=[], manifest=None).problems == [UNSIGNED]
    report.chunks = {name: dataclasses.replace(chunk, signature=b"") for name, chunk in report.chunks.items()}
    report.reseal()
    assert "is not signed: its worker ran a version of the mesh before signatures" in report.verify().problems[0]


@pytest.mark.parametrize("name", ["seal", "report", "manifest"])
def test_junk_is_a_sentence(name: str) -> None:
    found = Report().verify(**{name: b"\x82\x00"})
    assert found.problems
    found = Report().verify(chunks=[("chunks/0.cbor", b"\xff")], origins=[("origins/0.cbor", b"\xff")])
    assert any(problem.startswith("chunks/0.cbor can't be read") for problem in found.problems)


def test_what_is_told_is_bounded() -> None:
    report = Report()
    found = report.verify(lines=[("records/0.jsonl", b"x\n" * (PROBLEMS_MAX + 50))])
    assert len(found.problems) == PROBLEMS_MAX
    assert found.more > 0


def test_a_signature_is_of_one_thing_only() -> None:
    chunk = next(iter(Report().chunks.values()))
    assert is_signed(chunk, is_signed_by)
    assert not is_signed(dataclasses.replace(chunk, lease=LeaseId(12)), is_signed_by)
    assert not is_signed_by(PeerId("QmNotEd25519"), b"data", chunk.signature)
    assert not is_signed_by(PeerId("0O"), b"data", b"short")

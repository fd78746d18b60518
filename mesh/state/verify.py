"""Whether a report is what its workers and its coordinator said: hashes, signatures, completeness, consistency. Pure.

Who verifies trusts keys, and nothing else. The seal names whatever the report holds, by hash, and is signed by the
coordinator that closed the run; each chunk of records is signed by the worker that ran them; and every document that
repeats a verdict (`report.json`, `junit.xml`, `records/`) must say what the signed record says. So a change is found
even by who has a new seal made over it: by the workers' signatures, and by the list of tests, of which each has one
verdict. Whether the coordinator itself is to be trusted is not decided here.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from mesh.state.signing import Check, is_signed
from protocols.codec import decode
from protocols.errors import RemoteProtocolError
from protocols.ids import Cid, PeerId, cid_text
from protocols.manifests import Chunk, Manifest, Origin, Outcome, Record, Seal

T = TypeVar("T")

PROBLEMS_MAX = 100
"""Told one by one; of the others their number."""

SEAL_FILE = "seal.cbor"

UNSIGNED = (
    "the report is not signed: it was made by a version of the mesh before signatures, or its seal (seal.cbor) was "
    "taken away"
)

_RAN_NOWHERE = (Outcome.ERROR, Outcome.SKIPPED)
"""The verdicts that a coordinator may give itself, of tests that ran nowhere; and it may say that the verdict of an
earlier run holds (`passed`, with the record that it comes from)."""

_DAG_CBOR_SHA2_256 = b"\x01\x71\x12\x20"


@dataclass(frozen=True, slots=True)
class Files:
    """A report, read. What lies in many files comes one by one, so that they are not in memory together."""

    entries: Mapping[str, Cid]
    """What lies at its root, each hashed anew."""
    seal: bytes | None
    report: bytes | None
    manifest: bytes | None
    junit: Mapping[str, str] | None
    """The attributes of the suite in `junit.xml`; None: there is none that can be read."""
    chunks: Iterable[tuple[str, bytes]]
    """(name, content) of what is in `chunks/`, and so on."""
    origins: Iterable[tuple[str, bytes]]
    lines: Iterable[tuple[str, bytes]]


@dataclass(slots=True)
class Findings:
    """What came of it."""

    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What is no fault, and yet to be known."""
    more: int = 0
    """Problems beyond `PROBLEMS_MAX`."""
    seal: Seal | None = None
    ran: Counter[PeerId] = field(default_factory=Counter)
    """Verdicts by the worker whose signature stands for them."""
    nowhere: Counter[PeerId] = field(default_factory=Counter)
    """Verdicts of tests that ran nowhere, by the coordinator that gave them."""
    reused: int = 0
    """Verdicts of earlier runs."""
    tests: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)

    def wrong(self, problem: str) -> None:
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(problem)
        else:
            self.more += 1

    @property
    def names(self) -> dict[PeerId, str]:
        return dict(self.seal.workers) if self.seal else {}


@dataclass(frozen=True, slots=True)
class _Signed:
    """A record that its worker's signature covers."""

    test: str
    index: int
    outcome: Outcome
    attempt: int
    signer: PeerId
    """Who signed it."""
    ran_on: PeerId | None
    """None: nowhere, as the coordinator that signed it says."""
    source: Cid | None
    """Of a verdict of an earlier run, which the coordinator took over: the record that it comes from."""


def verify(files: Files, check: Check) -> Findings:
    """`check` tells whether a signature is that of a peer ID's key."""
    found = Findings()
    _check_seal(files, check, found)
    records = _check_chunks(files, check, found) if found.seal is not None else {}
    document = _document(files, found)
    if document is None:
        return found
    manifest = _manifest(files, found)
    _check_verdicts(document, manifest, records, found)
    if found.reused:
        found.notes.append(
            f"{found.reused} of {found.tests} tests did not run: they have verdicts of earlier runs, for which the "
            "coordinator's signature stands, and the records that it names"
        )
    _check_counts(document, files.junit, found)
    _check_lines(document, files.lines, found)
    return found


def record_cid(data: bytes) -> Cid:
    """The CID of a record's block."""
    return cid_text(_DAG_CBOR_SHA2_256 + hashlib.sha256(data).digest())


def _check_seal(files: Files, check: Check, found: Findings) -> None:
    if files.seal is None:
        found.wrong(UNSIGNED)
        return
    try:
        seal = decode(files.seal, Seal)
    except RemoteProtocolError as error:
        found.wrong(f"{SEAL_FILE} can't be read: {error}")
        return
    found.seal = seal
    if not is_signed(seal, check):
        found.wrong(f"the seal's signature is not that of the coordinator that it names, {seal.coordinator}")
    sealed = dict(seal.entries)
    for name in sorted(sealed.keys() | files.entries.keys()):
        if name not in files.entries:
            found.wrong(f"{name} is gone: it was there when the report was sealed")
        elif name not in sealed:
            found.wrong(f"{name} was added after the report was sealed")
        elif sealed[name] != files.entries[name]:
            found.wrong(f"{name} is not what was sealed: {files.entries[name]}, not {sealed[name]}")


def _check_chunks(files: Files, check: Check, found: Findings) -> dict[Cid, _Signed]:
    """The records that are vouched for, by CID."""
    assert found.seal is not None, "there is no telling who may sign without a seal"
    origins = dict(_origins(files, found))
    records: dict[Cid, _Signed] = {}
    for name, _, chunk in _each(files.chunks, Chunk, "chunks", found.seal.chunks, found):
        problem = _problem_of_chunk(chunk, found, check)
        if problem:
            found.wrong(f"{name} {problem}")
            continue
        if len(chunk.tests) != len(chunk.records):
            found.wrong(f"{name} has {len(chunk.records)} records of {len(chunk.tests)} tests")
        for index, record in zip(chunk.tests, chunk.records, strict=False):
            signed = _signed_record(name, index, record, chunk, origins, found)
            if signed is not None:
                records[record_cid(record)] = signed
    return records


def _origins(files: Files, found: Findings) -> Iterator[tuple[Cid, Origin]]:
    assert found.seal is not None
    for name, data, origin in _each(files.origins, Origin, "origins", found.seal.origins, found):
        if origin.run != found.seal.run:
            found.wrong(f"{name} is of run {origin.run}, not {found.seal.run}")
        yield record_cid(data), origin


def _each(
    blocks: Iterable[tuple[str, bytes]], cls: type[T], kind: str, sealed: int, found: Findings
) -> Iterator[tuple[str, bytes, T]]:
    """Those that can be read, with their names; and whether there are as many as were `sealed`."""
    number = 0
    for name, data in blocks:
        number += 1
        try:
            value = decode(data, cls)
        except RemoteProtocolError as error:
            found.wrong(f"{name} can't be read: {error}")
            continue
        yield name, data, value
    if number != sealed:
        found.wrong(f"the report has {number} {kind} of records, and was sealed with {sealed}")


def _problem_of_chunk(chunk: Chunk, found: Findings, check: Check) -> str:
    """What speaks against it; empty: its signature stands."""
    assert found.seal is not None
    if not chunk.signature:
        return "is not signed: its worker ran a version of the mesh before signatures, or somebody took it away"
    if not is_signed(chunk, check):
        return f"has a signature that is not that of the worker that it names, {chunk.worker}"
    if chunk.worker not in found.names:
        return f"was signed by a stranger: {chunk.worker} is none of the run's workers"
    if chunk.run != found.seal.run:
        return f"is of run {chunk.run}, not {found.seal.run}"
    return ""


def _signed_record(
    name: str, index: int, data: bytes, chunk: Chunk, origins: Mapping[Cid, Origin], found: Findings
) -> _Signed | None:
    try:
        record = decode(data, Record)
    except RemoteProtocolError as error:
        found.wrong(f"{name} has a record that can't be read: {error}")
        return None
    if chunk.lease:
        if record.worker != chunk.worker:
            found.wrong(f"{name}: {record.test} is said to have run on {record.worker}, and {chunk.worker} signed it")
        if record.origin != chunk.origin or record.origin not in origins:
            found.wrong(f"{name}: the record of {record.test} comes from elsewhere: its origin is not in the report")
    elif record.reused is not None:
        if record.outcome is not Outcome.PASSED:
            found.wrong(
                f"{name}: {record.test} takes the verdict of an earlier run, which can't be {record.outcome.value}"
            )
    elif record.worker or record.outcome not in _RAN_NOWHERE:
        found.wrong(f"{name}: {record.test} ran nowhere, and is said to be {record.outcome.value}")
    return _Signed(
        record.test, index, record.outcome, record.attempt, chunk.worker, record.worker or None, record.reused
    )


def _document(files: Files, found: Findings) -> dict[str, Any] | None:
    try:
        document = json.loads(files.report or b"")
        tests = document["tests"]
        if not all(isinstance(entry["test"], str) and isinstance(entry["outcome"], str) for entry in tests):
            raise TypeError
        if not isinstance(document["counts"], dict) or type(document.setdefault("teardowns", 0)) is not int:
            raise TypeError
    except (ValueError, KeyError, TypeError, RecursionError):
        found.wrong("report.json is missing, or not the JSON that a report has")
        return None
    known: dict[str, Any] = document
    found.tests, found.counts = len(tests), document["counts"]
    return known


def _manifest(files: Files, found: Findings) -> Manifest | None:
    if files.manifest is None:
        return None
    try:
        return decode(files.manifest, Manifest)
    except RemoteProtocolError as error:
        found.wrong(f"manifest.cbor can't be read: {error}")
        return None


def _check_verdicts(
    document: Mapping[str, Any], manifest: Manifest | None, records: Mapping[Cid, _Signed], found: Findings
) -> None:
    """Every test once, and as its record says."""
    verdicts = Counter(entry["test"] for entry in document["tests"])
    if manifest is not None:
        _check_complete(document, manifest, verdicts, found)
    elif found.tests and found.seal is not None:
        found.wrong("the list of the run's tests is missing (manifest.cbor)")
    if found.seal is None:
        return
    places = {test.id: index for index, test in enumerate(manifest.tests)} if manifest is not None else {}
    for entry in document["tests"]:
        test, cid = entry["test"], entry.get("record")
        signed = records.get(Cid(cid)) if isinstance(cid, str) else None
        if cid is None:
            found.wrong(f"{test} has a verdict and no record: it was lost with the nodes that held it")
        elif signed is None:
            found.wrong(f"{test}: its record {cid} is missing, or nobody's signature stands for it")
        elif signed.test != test or places.get(test, signed.index) != signed.index:
            found.wrong(f"{test}: the record {cid} is that of {signed.test}")
        else:
            if signed.source is not None:
                found.reused += 1
            else:
                (found.ran if signed.ran_on else found.nowhere)[signed.signer] += 1
            if entry.get("source") != signed.source:
                found.wrong(f"{test} comes from {entry.get('source')} by report.json, {signed.source} by its record")
            if entry["outcome"] != signed.outcome.value:
                found.wrong(f"{test} is {entry['outcome']} in report.json, and {signed.outcome.value} in its record")
            if not isinstance(entry.get("attempt"), int) or entry["attempt"] < signed.attempt:
                # a worker does not know of tries that went wrong elsewhere, for which the log counts one more each
                found.wrong(f"{test} is attempt {entry.get('attempt')} in report.json, {signed.attempt} in its record")
            if entry.get("worker") != signed.ran_on:
                found.wrong(f"{test} ran on {entry.get('worker')} by report.json, and {signed.ran_on} by its record")


def _check_complete(
    document: Mapping[str, Any], manifest: Manifest, verdicts: Mapping[str, int], found: Findings
) -> None:
    listed = Counter(test.id for test in manifest.tests)
    for test, count in sorted(verdicts.items()):
        if test not in listed:
            found.wrong(f"{test} has a verdict and is none of the run's tests")
        elif count > listed[test]:
            found.wrong(f"{test} has {count} verdicts")
    missing = [test for test, count in listed.items() if verdicts.get(test, 0) < count]
    if missing and document.get("reason"):
        state = f"the run was {document.get('state')}: {document['reason']}"
        found.notes.append(f"{len(missing)} of {len(manifest.tests)} tests have no verdict: {state}")
    else:
        for test in missing:
            found.wrong(f"{test} has no verdict: it is one of the run's tests")


def _check_counts(document: Mapping[str, Any], junit: Mapping[str, str] | None, found: Findings) -> None:
    counted = Counter(entry["outcome"] for entry in document["tests"])
    told = document["counts"]
    for outcome in sorted(set(counted) | set(told)):
        if told.get(outcome, 0) != counted[outcome]:
            found.wrong(f"report.json counts {told.get(outcome, 0)} {outcome}, and its tests are {counted[outcome]}")
    if junit is None:
        found.wrong("junit.xml is missing, or no XML that can be read")
        return
    teardowns = document["teardowns"]  # errors of no test, beside the verdicts
    expected = {
        "tests": sum(counted.values()) + teardowns,
        "failures": counted["failed"],
        "errors": counted["error"] + teardowns,
        "skipped": counted["skipped"] + counted["xfailed"],
    }
    for name, count in expected.items():
        if junit.get(name) != str(count):
            found.wrong(f"junit.xml counts {junit.get(name)} {name}, report.json {count}")


def _check_lines(document: Mapping[str, Any], lines: Iterable[tuple[str, bytes]], found: Findings) -> None:
    """What `records/` repeats for those who read it as text."""
    outcomes = {entry["test"]: entry["outcome"] for entry in document["tests"]}
    told: Counter[str] = Counter()
    for name, data in lines:
        for line in data.splitlines():
            try:
                record = json.loads(line)
                test, outcome = record["test"], record["outcome"]
            except (ValueError, KeyError, TypeError, RecursionError):
                found.wrong(f"{name} has a line that is no record")
                continue
            told[test] += 1
            if test in outcomes and outcome != outcomes[test]:
                found.wrong(f"{test} is {outcome} in {name}, and {outcomes[test]} in report.json")
    for test in sorted(set(outcomes) ^ set(told)):
        where = "report.json" if test in outcomes else "records/"
        found.wrong(f"{test} is in {where} only: report.json and records/ name different tests")

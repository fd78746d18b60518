"""A run's report: the UnixFS directory of everything that the run produced.

`report.json` and `junit.xml` name every test once; `records/` has the records as lines of JSON, in the manifest's
order; `tries.jsonl` those of tries that `--retries` had followed by others, and `retried.json` what both say together;
`artifacts/<test>/` what tests left; `warnings.json` each warning once; `teardowns.json` what fixtures raised after the
last test; `collection.txt` (and packed, for pytest itself, `collection.notes`) what pytest said when nothing could be
collected; `coverage.json` what the tests covered together (`covering.py`), where that can be told here; and what it
takes to check all that (`sealing.py`). It is made of the log's completions and their chunks alone, so any coordinator
makes the same one, but for its signature. Long documents are written to files in a thread, piece by piece: a run of a
hundred thousand tests never stands in memory decoded.
"""

import hashlib
import json
import logging
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from urllib.parse import quote

import trio

from mesh.content.unixfs.cid import as_raw
from mesh.coordinator.covering import covered
from mesh.coordinator.history import History
from mesh.coordinator.reuse import Readings, Reuser
from mesh.coordinator.sealing import Evidence, seal
from mesh.coordinator.spool import Spool
from mesh.ports import Content, Network
from mesh.state import junit, report
from mesh.state.model import NO_VERDICT, NO_WORKER, Completion, Run
from mesh.state.remarks import Remarks
from mesh.state.truth import Try
from mesh.together import together
from protocols.codec import decode, encode
from protocols.commands import Finish
from protocols.errors import ContentNotFound, MeshFailed, RemoteProtocolError
from protocols.history import COVERAGE_FILE
from protocols.ids import Cid, PeerId, TestIndex
from protocols.manifests import Chunk, Manifest, Origin, Outcome, Record, Uncollected

log = logging.getLogger(__name__)

RECORDS_PER_FILE = 500

FOLDER_CHARACTERS_MAX = 200
"""Of a test's name in its artifact folder; the rest is replaced by a digest."""

FETCHES = 8
"""Chunks, and artifacts of tests, fetched at once; so many chunks are in memory."""

LOOK_SECONDS = 20.0
"""How long content is looked for; after that a chunk's records are written as lost (the verdicts stand in the log), and
artifacts are left out (their tests' records name them)."""

HURRIED_SECONDS = 1.0
"""The same once something of this run was found nowhere: there may be thousands more."""


NO_REPORT = (
    "the list of its tests is on no node in reach, so that no report could be built; its verdicts are in the log"
)


@dataclass(slots=True)
class _Material:
    """What a run's chunks hold."""

    records: Spool
    tries: dict[TestIndex, dict[int, tuple[Cid, bytes]]] = field(default_factory=dict)
    """Records of tries before the verdict, by their number."""
    evidence: Evidence = field(default_factory=Evidence)
    readings: Readings = field(default_factory=Readings)


class _Search:
    """Brings a run's content here from whoever worked on it: an earlier coordinator may have been told of it."""

    def __init__(self, content: Content, run: Run) -> None:
        self._content = content
        self._run = run
        self._limit = trio.CapacityLimiter(FETCHES)
        self._seconds = LOOK_SECONDS

    async def has(self, root: Cid, maker: PeerId = NO_WORKER) -> bool:
        """Whether all of it is here now. `maker` is asked first."""
        holders = list(dict.fromkeys(peer for peer in (maker, *self._run.workers) if peer != NO_WORKER))
        async with self._limit:
            try:
                await self._content.fetch(root, holders, self._seconds)
            except ContentNotFound as error:
                log.warning("the report of run %d lacks something: %s", self._run.id, error)
                self._seconds = HURRIED_SECONDS
                return False
        return True

    async def those_here(self, files: dict[str, bytes | Cid | Path]) -> dict[str, bytes | Cid | Path]:
        """The files without what is nowhere: a directory can only be made of what is on this node."""
        found = dict(files)

        async def look(name: str) -> None:
            root = files[name]
            if isinstance(root, str) and not await self.has(root):
                del found[name]

        await together(look, list(files))
        return found


class ReportBuilder:
    """Builds reports, in folders under `scratch` that are gone afterwards."""

    def __init__(
        self, network: Network, content: Content, history: History, scratch: Path, reuser: Reuser | None = None
    ) -> None:
        self._network = network
        self._content = content
        self._history = history
        self._reuser = reuser
        self._scratch = scratch
        scratch.mkdir(parents=True, exist_ok=True)

    async def finish(
        self,
        run: Run,
        now: float,
        hostname: str,
        names: Mapping[PeerId, str] = MappingProxyType({}),
        endings: report.Endings = report.NO_ENDINGS,
    ) -> Finish:
        """The command that closes the run, its report stored on this node. `names`: of workers."""
        reason, code = report.reason(run, endings, names), report.exit_code(run, endings)
        try:
            manifest = await self._history.manifest(run.manifest, tuple(run.workers)) if run.manifest else None
        except ContentNotFound:  # of a mesh that was founded anew, or whose disks are gone
            return Finish(run.id, None, code if reason else MeshFailed.exit_code, now, reason or NO_REPORT)
        search = _Search(self._content, run)
        folder = Path(tempfile.mkdtemp(dir=self._scratch, prefix=f"report-{run.id}-"))
        try:
            files: dict[str, bytes | Cid | Path] = {}
            with Spool(folder, run.tests) as records:
                material = await self._gather(run, search, records)
                files |= await trio.to_thread.run_sync(
                    _write, folder, run, manifest, material, now, hostname, names, endings
                )  # fmt: skip
                if run.spec.cached and manifest is not None and self._reuser is not None:
                    files |= await self._reuser.listed(run, manifest, material.readings, records)
            if run.failure is not None and run.failure.record is not None:
                with suppress(ContentNotFound):
                    said = _said(await self._content.get(run.failure.record))
                    files["collection.txt"] = said.output
                    if said.notes:
                        files["collection.notes"] = said.notes
            if manifest is not None and manifest.environment is not None and manifest.environment.distributions:
                files["distributions.txt"] = manifest.environment.distributions
            files = await search.those_here({**files, **material.evidence.files(run)})
            left = [root for name, root in files.items() if name.startswith("artifacts/") and isinstance(root, str)]
            told = await covered(self._content, run, left, folder)
            if told is not None:
                files[COVERAGE_FILE] = told
            root = await self._content.add_files(files)
            root = await seal(self._network, self._content, root, run, material.evidence, files, now, names)
        finally:
            await trio.to_thread.run_sync(lambda: shutil.rmtree(folder, ignore_errors=True))
        return Finish(run.id, root, code, now, reason)

    async def _gather(self, run: Run, search: _Search, records: Spool) -> _Material:
        """Every chunk of the run, from this node or from the worker that made it."""
        material = _Material(records)
        in_memory = trio.CapacityLimiter(FETCHES)

        async def take(done: Completion) -> None:
            async with in_memory:
                for test, data, cid in await self._records(done, search, material):
                    records.put(test, data, cid)

        async def take_tries(tried: Completion) -> None:
            number = dict(zip(tried.tests, tried.attempts, strict=True))
            async with in_memory:
                for test, data, cid in await self._records(tried, search, material):
                    material.tries.setdefault(test, {})[number[test]] = (cid, data)

        await together(take, list(run.chunks))
        await together(take_tries, list(run.tries))
        for origin in material.evidence.origins(run):
            await self._look_at(origin, search, material.evidence)
        return material

    async def _look_at(self, origin: Cid, search: _Search, evidence: Evidence) -> None:
        """What was installed where records come from."""
        if await search.has(as_raw(origin)):
            environment = decode(await self._content.get(as_raw(origin)), Origin).environment
            if environment is not None and environment.distributions is not None:
                evidence.installed[origin] = environment.distributions

    async def _records(
        self, done: Completion, search: _Search, material: _Material
    ) -> list[tuple[TestIndex, bytes, Cid]]:
        """Of the tests of a completion; none if no node has its chunk."""
        if not await search.has(done.chunk, done.worker):
            return []
        chunk = decode(await self._content.get(done.chunk), Chunk)
        material.evidence.add(done, chunk)
        cids = await self._content.put_many(chunk.records, "dag-cbor")
        wanted = set(done.tests)
        material.readings.add(done, chunk)
        return [one for one in zip(chunk.tests, chunk.records, cids, strict=True) if one[0] in wanted]


def _write(
    folder: Path,
    run: Run,
    manifest: Manifest | None,
    material: _Material,
    now: float,
    hostname: str,
    names: Mapping[PeerId, str],
    endings: report.Endings,
) -> dict[str, Path | Cid]:
    """The report's files: name -> file in `folder`, or CID."""
    files: dict[str, Path | Cid] = {}
    tests = manifest.tests if manifest else ()
    workers, attempts = report.who_ran(run)
    done = [TestIndex(index) for index in range(len(tests)) if run.outcomes[index] != NO_VERDICT]
    seconds = max(0.0, now - run.submitted_at)
    remarks = Remarks(run)
    shell = run.spec.command is not None
    sources: dict[int, tuple[Cid, PeerId]] = {}
    teardowns = report.teardowns(endings, names)
    with (folder / "junit.xml").open("wb") as xml:
        xml.write(junit.head(run.counts, seconds, run.submitted_at, hostname, len(teardowns)))
        for start in range(0, len(done), RECORDS_PER_FILE):
            group = done[start : start + RECORDS_PER_FILE]
            lines = folder / f"records-{start}.jsonl"
            with lines.open("wb") as out:
                for index in group:
                    data = material.records.get(index)
                    if data is None:
                        data = encode(_lost(run, index, tests[index].id, workers[index], attempts[index]))
                    record = decode(data, Record)
                    cid = material.records.cid(index)
                    last = Try(workers[index] or NO_WORKER, record.outcome, attempts[index], cid, record.reruns)
                    earlier = material.tries.get(index, {})
                    remarks.add(index, record, last, {number: cid for number, (cid, _) in earlier.items()})
                    if record.reused is not None:
                        sources[index] = (record.reused, record.worker)
                    properties = tuple(report.properties(record, last, remarks.tried.get(index), names))
                    xml.write(junit.case(record, properties, shell=shell))
                    out.write(report.record_line(index, record, cid or Cid("")))
                    if record.artifacts is not None:
                        files[f"artifacts/{artifact_folder(record.test)}"] = record.artifacts
            files[f"records/{group[0]:06d}-{group[-1]:06d}.jsonl"] = lines
        for ending in teardowns:
            xml.write(junit.teardown(ending["name"] or ending["worker"], ending["error"]))
        xml.write(junit.tail())
    entries = report.report_json(run, manifest, material.records.cid, now, remarks.tried, names, endings, sources)
    _write_pieces(folder / "report.json", entries)
    if material.tries:
        files["tries.jsonl"] = folder / "tries.jsonl"
        _write_pieces(folder / "tries.jsonl", _tries(material))
    retried = remarks.retried(tests, names)
    if retried is not None:
        files["retried.json"] = folder / "retried.json"
        (folder / "retried.json").write_text(json.dumps(retried))
    if teardowns:
        files["teardowns.json"] = folder / "teardowns.json"
        (folder / "teardowns.json").write_text(json.dumps(teardowns))
    warnings = remarks.warnings()
    if warnings is not None:
        files["warnings.json"] = folder / "warnings.json"
        (folder / "warnings.json").write_text(json.dumps(warnings))
    return {**files, "junit.xml": folder / "junit.xml", "report.json": folder / "report.json"}


def _tries(material: _Material) -> Iterator[bytes]:
    """The records of all tries that were not the last ones, in the manifest's order."""
    for index, tries in sorted(material.tries.items()):
        for _, (cid, data) in sorted(tries.items()):
            yield report.record_line(index, decode(data, Record), cid)


def _said(data: bytes) -> Uncollected:
    """Versions before kept the output alone."""
    try:
        return decode(data, Uncollected)
    except RemoteProtocolError:
        return Uncollected(data)


def _write_pieces(path: Path, pieces: Iterable[bytes]) -> None:
    with path.open("wb") as out:
        for piece in pieces:
            out.write(piece)


def _lost(run: Run, index: TestIndex, test: str, worker: PeerId | None, attempt: int) -> Record:
    """What is known of a test whose record no node has any more."""
    text = "the record of this verdict was lost with the nodes that held it"
    outcome = Outcome.of_code(run.outcomes[index])
    return Record(
        test, outcome, run.durations[index] / 1e6, run.submitted_at, worker or PeerId(""), 0, attempt, (), text
    )


def artifact_folder(test: str) -> str:
    """A test's folder below `artifacts/`: its node ID, with what can't stand in a path escaped."""
    path, separator, rest = test.partition("::")
    parts = [quote(part, safe=" []()=,+@:~!$&'*;") for part in path.split("/") if part]
    last = quote(separator + rest, safe=" []()=,+@:~!$&'*;")
    named = "/".join(part if part.strip(".") else part.replace(".", "%2E") for part in parts)
    whole = named + last
    if len(whole) <= FOLDER_CHARACTERS_MAX:
        return whole
    return f"{whole[:FOLDER_CHARACTERS_MAX]}-{hashlib.sha256(test.encode()).hexdigest()[:12]}"

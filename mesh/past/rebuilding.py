"""A run's history out of its report alone: of a mesh that was founded anew, or from before this voter was one."""

import json
from array import array
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import trio

from mesh.histories import RunHistory
from mesh.past.covered import coverage
from mesh.ports import Clock, Content
from mesh.state.model import NO_VERDICT
from mesh.state.past import DURATION_MAX, NOBODY, WORKERS_MAX, Results
from mesh.state.verify import SEAL_FILE
from protocols.codec import decode
from protocols.errors import ContentNotFound, MeshError, RemoteProtocolError, UsageError
from protocols.history import FLAKY_MAX, PastRun
from protocols.ids import Cid, PeerId, RunId
from protocols.manifests import Manifest, Origin, Outcome, Seal

FETCH_SECONDS = 30.0

REPORT_FILE, MANIFEST_FILE, ORIGIN_FILE = "report.json", "manifest.cbor", "origins/0.cbor"


class Rebuilding:
    def __init__(self, history: RunHistory, content: Content, clock: Clock) -> None:
        self._history = history
        self._content = content
        self._clock = clock

    async def rebuild(self, reports: Sequence[Cid]) -> dict[str, Any]:
        """Take in what the reports tell; those that are known are passed over, and those that can't be read named."""
        added: list[str] = []
        failed: list[dict[str, str]] = []
        known = 0
        for report in reports:
            if self._history.has(report, whole=True):
                known += 1
                continue
            try:
                run, tests, results = await self._read(report)
                await self._history.add(run, tests, results, self._clock.now())
                added.append(str(run.run))
            except (ContentNotFound, UsageError, RemoteProtocolError) as error:
                failed.append({"report": report, "error": str(error)})
        return {"added": added, "known": known, "failed": failed}

    async def _read(self, report: Cid) -> tuple[PastRun, list[str], Results]:
        await self._content.fetch(report, (), FETCH_SECONDS)
        seal = decode(await self._file(report, SEAL_FILE), Seal)
        manifest = decode(await self._file(report, MANIFEST_FILE), Manifest)
        origin = decode(await self._file(report, ORIGIN_FILE), Origin)
        data = await self._file(report, REPORT_FILE)
        try:
            run, tests, results = await trio.to_thread.run_sync(_past, report, json.loads(data), seal, manifest, origin)
        except (ValueError, KeyError, TypeError) as error:
            raise RemoteProtocolError(f"{report} is no report ({type(error).__name__})") from None
        return replace(run, coverage=await coverage(self._content, report, FETCH_SECONDS)), tests, results

    async def _file(self, report: Cid, path: str) -> bytes:
        try:
            return b"".join([part async for part in self._content.read(report, path)])
        except MeshError as error:
            raise UsageError(f"{report} is not a report that tells its history: {error}") from None


def _past(
    report: Cid, told: dict[str, Any], seal: Seal, manifest: Manifest, origin: Origin
) -> tuple[PastRun, list[str], Results]:
    names = [test.id for test in manifest.tests]
    place = {name: index for index, name in enumerate(names)}
    peers = [PeerId(str(peer)) for peer in told["workers"]][:WORKERS_MAX]
    hosts = {peer: index for index, peer in enumerate(peers)}
    outcomes = bytearray([NO_VERDICT]) * len(names)
    workers = bytearray([NOBODY]) * len(names)
    attempts = bytearray(len(names))
    durations = array("q", bytes(8 * len(names)))
    flaky: list[int] = []
    reused = 0
    for entry in told["tests"]:
        index = place[entry["test"]]
        outcomes[index] = Outcome(entry["outcome"]).code
        durations[index] = min(max(round(entry["duration"] * 1e6), 0), DURATION_MAX)
        attempts[index] = min(max(int(entry["attempt"]), 0), 255)
        reused += bool(entry.get("reused"))
        if not entry.get("reused"):
            workers[index] = hosts.get(entry["worker"], NOBODY)
        if entry.get("flaky"):
            flaky.append(index)
    called = dict(seal.workers)
    run = PastRun(
        key=report,
        run=RunId(int(told["run"])),
        mesh="",
        project=origin.spec.project,
        name=str(told["name"]),
        state=str(told["state"]),
        exit_code=int(told["exit_code"]),
        submitted_at=seal.closed - float(told["wall_seconds"]),
        at=seal.closed,
        tests=len(names),
        counts=tuple(outcomes.count(code) for code in range(len(Outcome))),
        test_seconds=sum(durations) / 1e6,
        reused=reused,
        queue_seconds=None,
        slots=0,
        report=report,
        manifest=Cid(told["manifest"]) if told["manifest"] else None,
        workers=tuple((peer, called.get(peer, "")) for peer in peers),
        flaky=tuple(sorted(flaky)[:FLAKY_MAX]),
    )
    return run, names, Results(bytes(outcomes), durations, bytes(workers), bytes(attempts))

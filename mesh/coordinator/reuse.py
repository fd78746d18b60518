"""Verdicts of earlier runs, for runs that may reuse them (`--cached`): looked up when a run was collected, and listed
when it is closed. What is decided is decided in `mesh.scheduler.reuse`; whether it counts, by the log.

A run's report lists, in one file (`protocols.inputs.INDEX_FILE`), each test whose verdict a later run may take over,
with all that it read. Those that were reused are listed with the inputs and the record that they had before: so the
newest report of a project says all, and any coordinator can go on from it.
"""

import json
import logging
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import trio

from mesh.content.unixfs.cid import RAW, parse_cid
from mesh.content.unixfs.hamt import shard_entries
from mesh.content.unixfs.nodes import Kind, decode_node
from mesh.coordinator.spool import Spool
from mesh.coordinator.unrun import Recording
from mesh.scheduler import reuse
from mesh.scheduler.hardware import hardware_class
from mesh.scheduler.hopeless import PROBING
from mesh.scheduler.reuse import Earlier, Tree, Verdict
from mesh.state.model import Completion, CoordinatorState, Run
from mesh.state.unrun import REUSE_FORMAT_MIN
from protocols.codec import decode
from protocols.commands import Reuse
from protocols.errors import MeshError, RemoteProtocolError, UsageError
from protocols.ids import Cid, RunId, TestIndex
from protocols.inputs import (
    INDEX_FILE,
    TABLE_BYTES_MAX,
    UNSEEN,
    Inputs,
    Place,
    pack,
    table,
    unpack_index,
    unpack_table,
    unpacked_sets,
)
from protocols.manifests import Chunk, Manifest, Outcome, Record, RunSpec
from protocols.presence import NodeState

log = logging.getLogger(__name__)

TESTS_PER_CHUNK = 1_000
"""Reused verdicts that one block holds."""
EARLIER_MAX = 4
"""Runs whose verdicts are looked at, the newest of the same project and arguments."""
REPORTS_MAX = 16
"""Reports that are asked for such a list, at most."""
LOOK_SECONDS = 5.0
"""For all of them together."""
OFFER_SECONDS = 20.0
"""For all that is done before a run starts; without an answer by then, it runs as if there were no other."""
PROBE_SECONDS = 5.0
"""How long it is waited for workers that still look for what hardware they have."""
TREE_ENTRIES_MAX = 2_000_000
TREES_MAX = 2
"""Kept in memory."""
EXAMPLES_MAX = 20
"""Tests named in a report's `cached.json`, of each kind."""

TOLD_FILE = "cached.json"
"""In a report, for people: how many verdicts were reused, which tests did not bear it out, and what keeps others from
being reused."""

_UNSEEN = tuple(f"{kind}:" for kind in UNSEEN)


@dataclass(slots=True)
class Readings:
    """What the tests of a run read, gathered from its chunks."""

    verdicts: dict[TestIndex, tuple[Inputs, Place]] = field(default_factory=dict)

    def add(self, done: Completion, chunk: Chunk) -> None:
        """Of those of the chunk's tests whose verdicts count."""
        if not chunk.inputs:
            return
        try:
            told = unpack_table(chunk.inputs)
            sets = unpacked_sets(told.names, told.sets)
        except RemoteProtocolError as error:
            log.warning("what some tests read can't be told: %s", error)
            return
        place, wanted = Place(told.setting, told.hardware, done.worker), set(done.tests)
        for test, number in zip(chunk.tests, told.of, strict=False):
            if test in wanted and 0 <= number < len(sets):
                self.verdicts[test] = (sets[number], place)


class Reuser:
    """Offers earlier verdicts to new runs."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self._content = recording.content
        self._nodes = recording.nodes
        self._log = recording.log
        self._earlier: OrderedDict[Cid, Earlier | None] = OrderedDict()
        """By report; None: it lists nothing."""
        self._trees: OrderedDict[Cid, dict[str, Cid]] = OrderedDict()
        self._turn = trio.Lock()
        self._newest: tuple[RunId, list[Reuse]] = (RunId(0), [])

    async def offers(self, run: Run, manifest: Manifest) -> list[Reuse]:
        """Commands that give tests of a run that was just collected the verdicts of earlier ones."""
        if not run.spec.cached or not manifest.setting or self._log.state.format < REUSE_FORMAT_MIN:
            return []
        async with self._turn:
            if self._newest[0] != run.id:  # a worker that waits for too long tells its collection again
                commands: list[Reuse] = []
                with trio.move_on_after(OFFER_SECONDS):
                    try:
                        await self._offer(run, manifest, commands)
                    except MeshError as error:
                        log.warning("run %d: no more verdicts are reused: %s", run.id, error)
                self._newest = (run.id, commands)
            return self._newest[1]

    async def _offer(self, run: Run, manifest: Manifest, commands: list[Reuse]) -> None:
        """Append commands, one as good without the next."""
        of_run = reuse.context(run.spec)
        earlier = await self.earlier(run.id, run.spec)
        if not earlier:
            return
        tree = Tree(await self.tree(run.spec.bundle))
        hardware = await self._hardware()
        found = await trio.to_thread.run_sync(
            reuse.candidates, manifest, earlier, tree, of_run, hardware, run.spec.cached_allow
        )
        sampled = reuse.sample({test: manifest.tests[test].id for test in found}, f"{run.id} {run.spec.bundle}")
        for test in sampled:
            del found[test]
        by_hardware: dict[str, list[TestIndex]] = {}
        for test in sorted(found):
            by_hardware.setdefault(found[test].place.hardware, []).append(test)
        for name, tests in sorted(by_hardware.items()):
            for start in range(0, len(tests), TESTS_PER_CHUNK):
                group = tests[start : start + TESTS_PER_CHUNK]
                chunk = await self._chunk(run.id, manifest, name, {test: found[test] for test in group})
                durations = tuple(found[test].duration for test in group)
                commands.append(Reuse(run.id, tuple(group), chunk, durations))
        log.info("run %d: %d verdicts are reused, and %d that could be are not", run.id, len(found), len(sampled))

    async def _chunk(self, run: RunId, manifest: Manifest, hardware: str, found: dict[TestIndex, Verdict]) -> Cid:
        """The records of reused verdicts, and what these tests read."""
        now = self._recording.clock.now()
        records = [
            Record(
                test=manifest.tests[test].id,
                outcome=Outcome.PASSED,
                duration=verdict.duration / 1e6,
                started=now,
                worker=verdict.place.worker,
                slot=0,
                attempt=1,
                reused=verdict.record,
            )
            for test, verdict in found.items()
        ]
        inputs = pack(table(manifest.setting, hardware, [verdict.inputs for verdict in found.values()]))
        return await self._recording.keep(run, tuple(found), records, inputs)

    async def _hardware(self) -> set[str]:
        """The classes of the workers that are here."""
        with trio.move_on_after(PROBE_SECONDS):
            while any(PROBING in view.presence.capabilities for view in self._nodes.nodes().values()):
                await self._nodes.wait_changed(self._nodes.version)
        return {
            hardware_class(view.presence.capabilities)
            for view in self._nodes.nodes().values()
            if view.presence.slots and view.state is not NodeState.DEAD
        } - {""}

    # Earlier runs

    async def earlier(self, run: RunId, spec: RunSpec) -> list[Earlier]:
        """What went before `run` in its project, with the same arguments: the newest first."""
        found: list[Earlier] = []
        of_run = reuse.context(spec)
        with trio.move_on_after(LOOK_SECONDS):
            for report in _reports(self._log.state, run, spec.project):
                one = await self._read(report)
                if one is not None and one.index.context == of_run:
                    found.append(one)
                if len(found) == EARLIER_MAX:
                    break
        return found

    async def _read(self, report: Cid) -> Earlier | None:
        if report not in self._earlier:
            try:
                data = bytearray()
                async for part in self._content.read(report, INDEX_FILE):
                    data += part
                    if len(data) > TABLE_BYTES_MAX:
                        raise RemoteProtocolError(f"{INDEX_FILE} of {report} has no end")
                index = await trio.to_thread.run_sync(unpack_index, bytes(data))
                manifest = await self._recording.history.manifest(index.manifest, (), LOOK_SECONDS)
                self._earlier[report] = Earlier(index, [test.id for test in manifest.tests])
            except UsageError:  # of a run that was not to be cached
                self._earlier[report] = None
            except MeshError as error:  # of one that is too old to be here, or that is not to be had now
                log.info("no verdict of report %s can be reused: %s", report, error)
                return None
        self._earlier.move_to_end(report)
        while len(self._earlier) > REPORTS_MAX:
            self._earlier.popitem(last=False)
        return self._earlier[report]

    async def tree(self, root: Cid) -> dict[str, Cid]:
        """Path -> CID of every file and link of a bundle."""
        if root in self._trees:
            return self._trees[root]
        files: dict[str, Cid] = {}
        todo: list[tuple[str, Cid]] = [("", root)]
        while todo:
            path, cid = todo.pop()
            node = decode_node(cid, await self._content.get(cid))
            if node.kind not in (Kind.DIRECTORY, Kind.SHARD):
                files[path] = cid
                continue
            entries, shards = shard_entries(node) if node.kind is Kind.SHARD else (list(node.links), [])
            todo += [(path, shard.cid) for shard in shards]
            for link in entries:
                inner = f"{path}/{link.name}" if path else link.name
                if parse_cid(link.cid)[0] == RAW:
                    files[inner] = link.cid
                else:
                    todo.append((inner, link.cid))
            if len(files) + len(todo) > TREE_ENTRIES_MAX:
                raise RemoteProtocolError(f"the tree {root} has over {TREE_ENTRIES_MAX} entries")
        self._trees[root] = files
        while len(self._trees) > TREES_MAX:
            self._trees.popitem(last=False)
        return files

    # Closing

    async def listed(self, run: Run, manifest: Manifest, readings: Readings, records: Spool) -> dict[str, bytes]:
        """The report's files for later runs, and for people. `records`: of all verdicts."""
        assert run.manifest is not None, "a run with verdicts has a manifest"
        try:
            tree = Tree(await self.tree(run.spec.bundle))
        except MeshError as error:
            log.warning("what run %d read can't be listed: %s", run.id, error)
            return {}
        earlier, hardware = await self.earlier(run.id, run.spec), await self._hardware()
        return await trio.to_thread.run_sync(_listed, run, manifest, tree, earlier, hardware, readings, records)


def _listed(
    run: Run,
    manifest: Manifest,
    tree: Tree,
    earlier: Sequence[Earlier],
    hardware: set[str],
    readings: Readings,
    records: Spool,
) -> dict[str, bytes]:
    of_run = reuse.context(run.spec)
    known = reuse.candidates(manifest, earlier, tree, of_run, hardware, run.spec.cached_allow)
    settled: dict[int, Inputs] = {}
    """By the identity of what `readings` hold: most tests share it."""
    verdicts: dict[TestIndex, Verdict] = {}
    refused, lies = [], []
    for test, data, cid in records.items():
        record = decode(data, Record)
        passed = record.outcome is Outcome.PASSED and not record.reruns and test not in run.retried
        if not passed and test in known:
            lies.append(test)
        if not passed or record.attempt > 1 or record.subtests or record.artifacts is not None:
            refused.append(test)
        elif test in readings.verdicts:
            read, place = readings.verdicts[test]
            if id(read) not in settled:
                settled[id(read)] = tree.settled(read)
            if record.reused is not None:
                place = replace(place, worker=record.worker)
            verdicts[test] = Verdict(settled[id(read)], place, run.durations[test], record.reused or cid)
    distrusted = reuse.distrusted(earlier, tree)
    for test in lies:
        name = manifest.tests[test].id
        distrusted[name] = tree.state(reuse.own_file(name))
    assert run.manifest is not None, "a run with verdicts has a manifest"
    index = reuse.index_of(run.manifest, reuse.context(run.spec), tree, verdicts.items(), refused, distrusted.items())
    told = {
        "reused": run.reused,
        "sampled": max(0, len(known) - run.reused),
        "lies": [
            {"test": manifest.tests[test].id, "outcome": Outcome.of_code(run.outcomes[test]).value} for test in lies
        ],
        "distrusted": sorted(distrusted),
        "not_reusable": _unseen(manifest, verdicts),
    }
    return {
        INDEX_FILE: pack(index),
        TOLD_FILE: json.dumps(told, ensure_ascii=False).encode("utf-8", "backslashreplace"),
    }


def _unseen(manifest: Manifest, verdicts: dict[TestIndex, Verdict]) -> dict[str, dict[str, object]]:
    """By kind, how many tests did what can't be compared later, and some of them with what they did."""
    counts: Counter[str] = Counter()
    examples: dict[str, dict[str, str]] = {kind: {} for kind in UNSEEN}
    known: dict[int, list[tuple[str, str]]] = {}  # by the identity of a set
    for test, verdict in verdicts.items():
        found = known.get(id(verdict.inputs))
        if found is None:
            words = [name.partition(":") for name in verdict.inputs if name.startswith(_UNSEEN)]
            found = known[id(verdict.inputs)] = [(kind, what) for kind, _, what in words]
        for kind, what in found:
            counts[kind] += 1
            if len(examples[kind]) < EXAMPLES_MAX:
                examples[kind][manifest.tests[test].id] = what
    return {kind: {"tests": counts[kind], "examples": examples[kind]} for kind in UNSEEN if counts[kind]}


def _reports(state: CoordinatorState, before: RunId, project: str) -> Sequence[Cid]:
    """Of the project's finished runs before this one, the newest first."""
    whole = [state.runs[run] for run in reversed(state.finished)]
    found = [
        run.report
        for run in whole
        if run.id < before and run.spec.project == project and run.spec.cached and run.report is not None
    ]
    summed = [
        run.report
        for run in reversed(state.archive.values())
        if run.id < before and run.project == project and run.report is not None
    ]
    return [*found, *summed][:REPORTS_MAX]

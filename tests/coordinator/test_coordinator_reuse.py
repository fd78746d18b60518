"""What a report lists for later runs, and what a new run is offered, with a real store and real trees."""

import dataclasses
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mesh.content.store import EmbeddedContent, open_content
from mesh.coordinator.history import History
from mesh.coordinator.reuse import Readings, Reuser
from mesh.coordinator.spool import Spool
from mesh.coordinator.unrun import Recording
from mesh.manifests import Manifests
from mesh.ports import NodeView
from mesh.state.apply import apply
from mesh.state.model import CoordinatorState, Run
from protocols.codec import decode, encode
from protocols.commands import Collected, Complete, Finish, Grant, RaiseFormat, Register, Submit, TaskRange
from protocols.ids import Cid, LeaseId, PeerId, RunId, TestIndex
from protocols.inputs import INDEX_FILE, Inputs, pack, table, unpack_index
from protocols.manifests import Chunk, CollectedTest, Manifest, Outcome, Phase, Record, RunSpec
from protocols.presence import NodeState, Presence, Role

ME, WORKER = PeerId("me"), PeerId("worker")
TESTS = [f"test_a.py::test_{number}" for number in range(6)]
READ: Inputs = ("file:test_a.py", "file:data.txt")
LINUX = "linux x86_64"


class Desk:
    """One coordinator's node: a store, a state, and a worker that is there."""

    def __init__(self, content: EmbeddedContent, scratch: Path) -> None:
        self.content = content
        self.scratch = scratch
        self.state = CoordinatorState()
        self.index = 0
        self.kept: dict[Cid, Chunk] = {}
        has = {"os": "linux", "arch": "x86_64"}
        presence = Presence(WORKER, "w", Role.AUTO, 1, 2, (), 1, 0, False, has, {}, (), ())
        view = NodeView(presence, NodeState.ALIVE, 0.0, 0.0, True)
        held: list[Cid] = []

        async def secure(root: Cid, *_: object, run: int) -> None:
            held.append(root)

        self.held = held
        recording = Recording(
            cast("Any", SimpleNamespace(peer_id=ME, sign=lambda data: b"signed")),
            content,
            cast("Any", SimpleNamespace(secure=secure)),
            History(Manifests(content)),
            cast("Any", SimpleNamespace(state=self.state)),
            cast("Any", SimpleNamespace(nodes=lambda: {WORKER: view})),
            cast("Any", SimpleNamespace(now=lambda: 100.0)),
        )
        self.reuser = Reuser(recording)
        self.do(RaiseFormat(4))
        self.do(Register(WORKER, "w", 1, 2))

    def do(self, command: Any) -> Any:
        self.index += 1
        return apply(self.state, self.index, command)

    async def run(self, tree: Path, **changes: Any) -> tuple[Run, Manifest]:
        """A run that was just collected, all its tests with the worker."""
        bundle = await self.content.add_path(tree)
        spec = RunSpec(bundle, "suite", "suite", ME, cached=True, **changes)
        listed = tuple(CollectedTest(test, "test_a.py") for test in TESTS)
        manifest = Manifest(bundle, listed, setting="environment")
        cid = await self.content.add_files({"manifest": encode(manifest)})
        cid = (await self.reuser.tree(cid))["manifest"]
        run = RunId(self.do(Submit(os.urandom(8), spec, 1.0)).run)
        lease = self.do(Grant(run, WORKER, 1, ())).lease
        self.do(Collected(lease, cid, len(TESTS), (TaskRange(0, len(TESTS)),)))
        return self.state.runs[run], manifest

    async def close(self, run: Run, manifest: Manifest, records: dict[int, Record], read: Inputs = READ) -> Any:
        """All verdicts come in, and the report is there; `cached.json`."""
        lease = LeaseId(self.do(Grant(run.id, WORKER, 1, tuple(run.pending))).lease)
        encoded = tuple(encode(record) for record in records.values())
        inputs = pack(table("environment", LINUX, [read] * len(records)))
        chunk = Chunk(tuple(map(TestIndex, records)), encoded, inputs=inputs)
        cids = await self.content.put_many(encoded, "dag-cbor")
        outcomes = bytes(record.outcome.code for record in records.values())
        self.do(Complete(lease, Cid("bafychunk"), chunk.tests, outcomes, (1000,) * len(records)))
        readings = Readings()
        readings.add(run.chunks[-1], chunk)
        with Spool(self.scratch, run.tests) as spool:
            for test, data, cid in zip(chunk.tests, encoded, cids, strict=True):
                spool.put(test, data, cid)
            files = await self.reuser.listed(run, manifest, readings, spool)
        report = await self.content.add_files(dict(files))
        self.do(Finish(run.id, report, 0, 2.0))
        index = unpack_index(files[INDEX_FILE])
        return index, json.loads(files["cached.json"])


@asynccontextmanager
async def desk(tmp_path: Path) -> AsyncIterator[Desk]:
    async with open_content(tmp_path / "home") as content:
        yield Desk(content, tmp_path)


def record(test: int, outcome: Outcome = Outcome.PASSED, **fields: Any) -> Record:
    return dataclasses.replace(Record(TESTS[test], outcome, 0.001, 1.0, WORKER, 0, 1), **fields)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "suite"
    folder.mkdir()
    (folder / "test_a.py").write_text("tests")
    (folder / "data.txt").write_text("data")
    return folder


ALL = {number: record(number) for number in range(len(TESTS))}


async def test_a_tree_is_known_file_by_file(tmp_path: Path) -> None:
    folder = tmp_path / "tree"
    (folder / "a/b").mkdir(parents=True)
    (folder / "a/b/large").write_bytes(os.urandom(600_000))
    (folder / "a/program").write_text("#!")
    (folder / "a/program").chmod(0o755)
    (folder / "link").symlink_to("a/program")
    (folder / "many").mkdir()
    for number in range(3_000):
        (folder / "many" / f"{'long name ' * 8}{number}").touch()
    async with desk(tmp_path) as made:
        found = await made.reuser.tree(await made.content.add_path(folder))
        paths = [path for path in folder.rglob("*") if path.is_symlink() or path.is_file()]
        assert found.keys() == {str(path.relative_to(folder)) for path in paths}
        assert found["a/b/large"] == await made.content.add_path(folder / "a/b/large")


async def test_only_clean_first_passes_are_listed(tmp_path: Path, tree: Path) -> None:
    async with desk(tmp_path) as made:
        run, manifest = await made.run(tree)
        records = {
            0: record(0),
            1: record(1, Outcome.FAILED),
            2: record(2, reruns=1),
            3: record(3, attempt=2),
            4: record(4, artifacts=Cid("bafyartifacts")),
            5: record(5, subtests=(Phase("one", "skipped", 0.1),)),
        }
        index, told = await made.close(run, manifest, records)
        assert index.tests == (0,)
        assert index.refused == (1, 2, 3, 4, 5)
        assert told == {"reused": 0, "sampled": 0, "lies": [], "distrusted": [], "not_reusable": {}}


async def test_a_later_run_is_offered_what_did_not_change(tmp_path: Path, tree: Path) -> None:
    async with desk(tmp_path) as made:
        run, manifest = await made.run(tree)
        assert await made.reuser.offers(run, manifest) == [], "there is nothing yet"
        index, _ = await made.close(run, manifest, ALL)

        run, manifest = await made.run(tree)
        (offer,) = await made.reuser.offers(run, manifest)
        assert len(offer.tests) == len(TESTS) - 1, "one is the sample"
        assert made.held == [offer.chunk]
        chunk = decode(await made.content.get(offer.chunk), Chunk)
        assert (chunk.run, chunk.lease, chunk.worker, chunk.signature) == (run.id, 0, ME, b"signed")
        records = [decode(data, Record) for data in chunk.records]
        assert [one.reused for one in records] == [index.records[test] for test in offer.tests]
        assert {(one.outcome, one.worker, one.duration) for one in records} == {(Outcome.PASSED, WORKER, 0.001)}
        assert [one.test for one in records] == [TESTS[test] for test in offer.tests]
        assert made.do(offer).tests == offer.tests
        assert list(run.pending) == [TaskRange((set(range(6)) - set(offer.tests)).pop(), 1)]

        (tree / "data.txt").write_text("other data")
        run, manifest = await made.run(tree)
        assert await made.reuser.offers(run, manifest) == []


async def test_a_run_that_does_not_ask_and_one_with_other_arguments_are_offered_nothing(
    tmp_path: Path, tree: Path
) -> None:
    async with desk(tmp_path) as made:
        await made.close(*await made.run(tree), ALL)
        run, manifest = await made.run(tree)
        run.spec = dataclasses.replace(run.spec, cached=False)
        assert await made.reuser.offers(run, manifest) == []
        assert await made.reuser.offers(*await made.run(tree, arguments=("-k", "test_1"))) == []


async def test_whoever_could_be_reused_and_does_not_pass_has_lied(tmp_path: Path, tree: Path) -> None:
    async with desk(tmp_path) as made:
        await made.close(*await made.run(tree), ALL)
        run, manifest = await made.run(tree)
        _, told = await made.close(run, manifest, {**ALL, 2: record(2, Outcome.FAILED)})
        assert told["lies"] == [{"test": TESTS[2], "outcome": "failed"}]
        for _ in range(2):
            run, manifest = await made.run(tree)
            _, told = await made.close(run, manifest, ALL)
            assert (told["lies"], told["distrusted"]) == ([], [TESTS[2]])
            (offer,) = await made.reuser.offers(*await made.run(tree))
            assert 2 not in offer.tests
        (tree / "test_a.py").write_text("mended")
        run, manifest = await made.run(tree)
        _, told = await made.close(run, manifest, ALL)
        assert told["distrusted"] == []


async def test_what_can_t_be_compared_is_told(tmp_path: Path, tree: Path) -> None:
    async with desk(tmp_path) as made:
        run, manifest = await made.run(tree)
        _, told = await made.close(run, manifest, ALL, (*READ, "network:socket.connect ::1", "file:left/behind"))
        assert told["not_reusable"]["network"]["tests"] == 6
        assert told["not_reusable"]["files"]["examples"][TESTS[0]] == "left/behind is not of the bundle"
        assert await made.reuser.offers(*await made.run(tree)) == []
        assert await made.reuser.offers(*await made.run(tree, cached_allow=("files",))) == []
        (offer,) = await made.reuser.offers(*await made.run(tree, cached_allow=("files", "network")))
        assert len(offer.tests) == 5


async def test_a_report_that_is_nowhere_holds_nothing_up(tmp_path: Path, tree: Path) -> None:
    async with desk(tmp_path) as made:
        run, manifest = await made.run(tree)
        await made.close(run, manifest, ALL)
        run.report = Cid("bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku")
        assert await made.reuser.offers(*await made.run(tree)) == []

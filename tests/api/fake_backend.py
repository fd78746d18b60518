"""A node's two ports as data in memory, for the API and the commands to be tested against over real HTTP."""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import trio

from mesh.entries import Archived
from mesh.ports import ContentStat, KeptRoot, PinKey
from mesh.raft.raft import PeerStatus, RaftStatus, RoleName
from mesh.state.model import CoordinatorState
from mesh.state.snapshot import encode_state, snapshot_file
from mesh.views.raft import raft_document
from protocols.errors import ContentNotFound, MeshError, NoQuorum, UsageError
from protocols.ids import NO_RUN, Cid, PeerId, RunId
from protocols.manifests import Outcome, Phase, Record, RunSpec
from protocols.raft import Configuration, Snapshot
from protocols.work import CommandVerb
from tests.api.fake_views import ALERT, PEER, FakeDetails, FakeFeed, host_runs, load_history

OTHER = PeerId("12D3KooWNodeTwo")
TREE = Cid("bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi")
RECORD = Cid("bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy")
ABSENT = Cid("bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku")


def node(peer: PeerId, name: str, role: str = "auto", state: str = "alive") -> dict[str, Any]:
    return {
        "peer": peer,
        "name": name,
        "role": role,
        "state": state,
        "addresses": [f"/ip4/10.0.0.1/tcp/4001/p2p/{peer}"],
        "slots": 2,
        "busy": 1,
        "capabilities": {"cpu.cores": 2, "memory": 4 * 2**30, "os": "linux", "python": "3.11.7", "gpu": []},
    }


def gpu_node() -> dict[str, Any]:
    """Node one, with two unlike GPUs, of which the second does not tell how busy it is."""
    big = {"index": 0, "uuid": "GPU-0", "name": "NVIDIA H200", "memory": 141 * 2**30, "cuda": 12.4, "compute": 9.0}
    small = {"index": 1, "uuid": "GPU-1", "name": "NVIDIA T400 4GB", "memory": 4 * 2**30}
    load = {
        "cpu.percent": 35.0,
        "memory.available": 3 * 2**30,
        "disk.free": 40 * 2**30,
        "gpu": [
            {"index": 1, "memory.free": 3 * 2**30},
            {"index": 0, "percent": 92.0, "memory.free": 20 * 2**30},
        ],
    }
    made = node(PEER, "one")
    capabilities = {**made["capabilities"], "cpu.threads": 4, "disk.total": 100 * 2**30, "gpu": [big, small]}
    return {**made, "raft": "voter", "capabilities": capabilities, "load": load}


def verdict(test: str, outcome: str, duration: float = 0.01) -> dict[str, Any]:
    return {"event": "verdict", "test": test, "outcome": outcome, "duration": duration, "worker": PEER, "attempt": 1}


class FakeBackend:
    """`Backend`: `script` is what every run goes through; a run is remembered by its nonce."""

    def __init__(self) -> None:
        self.feed = FakeFeed()
        self.details = FakeDetails()
        self.submitted: dict[bytes, RunSpec] = {}
        self.cancelled: list[RunId] = []
        self.commands: list[tuple[str, CommandVerb]] = []
        self.planned: list[tuple[list[RunSpec], list[Cid | None]]] = []
        self.unknown = False
        """Whether no run of the same was ever here."""
        self.would_wait: list[dict[str, Any]] = []
        self.raised = [dict(ALERT)]
        self.failure: Exception | None = None
        self.hang_at: int | None = None
        """Verdict before which a run stands still until it is cancelled."""
        self.cut_at: int | None = None
        """Verdict before which the stream fails, once."""
        self.drop_at: int | None = None
        """Verdict before which `drop` is called, once, and nothing more comes on that stream."""
        self.drop: Callable[[], None] = lambda: None
        self.quorum = True
        self.pinned: dict[Cid, int] = {}
        """Root -> replicas; what is on two nodes or more is the mesh's, and on one of them so far."""
        self.report: Cid | None = TREE
        self.reason = ""
        self.cancel_wanted = trio.Event()
        self.tests = [
            verdict("tests/test_a.py::test_good", "passed"),
            verdict("tests/test_a.py::test_bad", "failed", 0.25),
            verdict("tests/test_a.py::test_later", "skipped"),
        ]
        self.exit_code = 1
        self.exit_codes: dict[str, int] = {}
        """By the Python that a run asked for; others end with `exit_code`."""
        self.state = "failed"

    def _check(self) -> None:
        if self.failure is not None:
            raise self.failure

    async def status(self) -> dict[str, Any]:
        self._check()
        return {
            "mesh": "1f2e",
            "self": PEER,
            "term": 3,
            "coordinator": PEER,
            "voters": [PEER, OTHER],
            "commit_index": 17,
            "nodes": [node(PEER, "one"), node(OTHER, "two", state="suspect")],
            "runs": [{"run": "17", "state": "running", "pending": 1, "leased": 2, "done": 3}],
        }

    async def ticket(self) -> str:
        return "mesh1secret"

    async def topology(self) -> dict[str, Any]:
        nodes = [{**node(PEER, "one"), "coordinator": True}, node(OTHER, "two")]
        return {"mesh": "1f2e", "nodes": nodes, "links": [{"a": PEER, "b": OTHER, "rtt": 0.0004}]}

    async def overview(self) -> dict[str, Any]:
        return {"nodes": [node(PEER, "one")], "runs": [], "verdicts": []}

    async def raft(self) -> dict[str, Any]:
        self._check()
        configuration = Configuration(voters=(PEER, OTHER))
        peers = {OTHER: PeerStatus(match=16, active=True, silent_ticks=2, flow="replicating")}
        status = RaftStatus(
            PEER, RoleName.LEADER, 3, PEER, 17, 17, 5, 17, 4, configuration, True, None, peers if self.quorum else {}
        )
        return raft_document("1f2e", status, 2, {})

    async def snapshot(self) -> bytes:
        self._check()
        state = CoordinatorState(applied=17, mesh="1000.a", format=2)
        made = Snapshot(17, 3, Configuration(voters=(PEER, OTHER)), encode_state(state))
        return snapshot_file(made, "1000.a", PEER, 1.8e9)

    async def runs(self) -> dict[str, Any]:
        run = {"run": "17", "state": "running", "pending": 1, "leased": 2, "done": 3}
        return {"runs": [run], "agreed": self.quorum, "as_of": 90.0}

    async def run(self, run: RunId) -> dict[str, Any]:
        self._known(run)
        return {"run": str(run), "state": self.state, "pending": 0, "leased": 0, "done": 3, "report": TREE}

    async def submit(self, nonce: bytes, spec: RunSpec) -> RunId:
        self._check()
        self.submitted[nonce] = spec
        return RunId(17 + self._pythons().index(spec.python))

    def _pythons(self) -> list[str]:
        """Each has a run of its own, from 17 on."""
        return list(dict.fromkeys(spec.python for spec in self.submitted.values()))

    async def cancel(self, run: RunId) -> None:
        self._known(run)
        self.cancelled.append(run)
        self.cancel_wanted.set()

    def finished(self) -> dict[str, Any]:
        counts = {outcome.value: 0 for outcome in Outcome}
        for test in self.tests:
            counts[test["outcome"]] += 1
        return {
            "event": "finished",
            "state": self.state,
            "exit_code": self.exit_code,
            "counts": counts,
            "tests": len(self.tests),
            "wall_seconds": 1.5,
            "report": self.report,
            "bundle": TREE,
            "manifest": TREE,
            "reason": self.reason,
        }

    async def output(self, run: RunId, test: str) -> AsyncIterator[dict[str, Any]]:
        self._known(run)
        told = [each["test"] for each in self.tests if test in each["test"]]
        if not told:
            raise UsageError(f"run {run} has no test {test!r}")
        for name in told:
            yield {"event": "output", "run": str(run), "test": name, "stream": "stdout", "text": "half a line,"}
            yield {"event": "output", "run": str(run), "test": name, "stream": "stdout", "text": " the rest\n"}
            yield {"event": "output", "run": str(run), "test": name, "stream": "stderr", "text": "trouble\n"}
            yield {"event": "verdict", "run": str(run), "test": name, "outcome": "passed", "duration": 1.5}
        yield {"event": "ended", "run": str(run)}

    async def follow(self, run: RunId, cursor: int = 0, whole: bool = False) -> AsyncIterator[dict[str, Any]]:
        """A cursor counts verdicts; whoever takes up a stream is told of the collection again."""
        self._known(run)
        yield {"event": "collected", "run": str(run), "tests": len(self.tests), "cursor": cursor}
        for place, test in enumerate(self.tests):
            if place < cursor:
                continue
            yield {"event": "started", "run": str(run), "test": test["test"], "worker": PEER, "cursor": place}
            if self.cut_at == place:
                self.cut_at = None
                raise NoQuorum("the mesh has no coordinator for now")
            if self.drop_at == place:
                self.drop_at = None
                self.drop()
                await trio.sleep_forever()
            if self.hang_at == place:
                await self.cancel_wanted.wait()
                yield {**self.finished(), "run": str(run), "state": "cancelled", "exit_code": 2, "cursor": place}
                return
            yield {**test, "run": str(run), "cursor": place + 1}
        codes = [self.exit_codes.get(python, self.exit_code) for python in self._pythons()]
        code = codes[run - 17] if codes else self.exit_code
        yield {**self.finished(), "exit_code": code, "run": str(run), "cursor": len(self.tests)}

    def _known(self, run: RunId) -> None:
        self._check()
        if not 17 <= run < 17 + max(1, len(self._pythons())):
            raise UsageError(f"there is no run {run} in this mesh")

    async def why(self, target: str) -> dict[str, Any]:
        return {
            "target": target,
            "run": "17",
            "state": "pending",
            "explanation": ["1 tests wait for a worker with gpu", "  two: it has no gpu"],
            "waiting": [],
        }

    async def plan(self, specs: Sequence[RunSpec], manifests: Sequence[Cid | None]) -> dict[str, Any]:
        self._check()
        self.planned.append((list(specs), list(manifests)))
        known = [manifest is not None or not self.unknown for manifest in manifests]
        runs = [
            {
                "project": spec.project,
                "python": spec.python,
                "tests": 3 * is_known,
                "source": ("collected" if manifest else "run") if is_known else "unknown",
                "durations": "guessed",
                "expected_seconds": 0.3,
                "last_run": {"run": "12", "tests": 3, "wall_seconds": 2.5},
                "prediction_error": {"run": "12", "median_relative": 0.08, "tests": 3, "under_upper_estimate": 1.0},
            }
            for spec, manifest, is_known in zip(specs, manifests, known, strict=True)
        ]
        node = {"peer": PEER, "name": "one", "slots": 2, "tests": 3, "busy_seconds": 0.3}
        return {
            "runs": runs,
            "tests": sum(run["tests"] for run in runs),
            "placed": sum(run["tests"] for run in runs),
            "makespan_seconds": 0.25,
            "lower_bound_seconds": 0.15,
            "cut": False,
            "other_runs": 1,
            "nodes": [{**node, "first_seconds": 0.0, "last_seconds": 0.25}],
            "waiting": self.would_wait,
        }

    async def rebuild(self, reports: Sequence[Cid] | None) -> dict[str, Any]:
        self._check()
        return {"added": ["17"] if reports is None else list(reports), "known": 1, "failed": []}

    async def alerts(self) -> dict[str, Any]:
        self._check()
        return {"alerts": self.raised, "quarantine": [], "agreed": True, "as_of": 1_000.0}

    async def acknowledge(self, alert: str, by: str) -> dict[str, Any]:
        self._check()
        for one in self.raised:
            if one["id"] == alert:
                one |= {"acknowledged_by": by, "acknowledged_at": 2_000.0}
                return one
        raise UsageError(f"there is no alert {alert}")

    async def past(self, view: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        self._check()
        return {"view": view, "asked": dict(asked), "agreed": True, "as_of": 1_000.0}

    async def node_history(self, node: str, hours: int) -> dict[str, Any]:
        self._check()
        if node not in (PEER, OTHER, "one", "two"):
            raise UsageError(f"no node answers to {node!r}: give a name or a peer ID of `mesh nodes`")
        return load_history(hours)

    async def node_runs(self, node: str, limit: int) -> dict[str, Any]:
        return {"host": node, "runs": host_runs()[:limit], "agreed": True, "as_of": 1_000.0}

    async def record(self, cid: Cid) -> Record:
        if cid != RECORD:
            raise ContentNotFound(f"nobody reachable has {cid}")
        return Record(
            test="tests/test_a.py::test_bad",
            outcome=Outcome.FAILED,
            duration=0.25,
            started=1.0,
            worker=PEER,
            slot=0,
            attempt=1,
            phases=(Phase("call", "failed", 0.25),),
            message="assert 1 == 2",
            longrepr="    def test_bad():\n>       assert 1 == 2\nE       assert 1 == 2\n\ntest_a.py:3: AssertionError",
            stdout="printed before\n",
        )

    async def pins(self) -> dict[str, Any]:
        self._check()
        holder = {"peer": PEER, "name": "one", "state": "alive"}
        pins = []
        for root, replicas in sorted(self.pinned.items()):
            pin: dict[str, Any] = {"cid": root, "reason": "user", "here": True}
            if replicas > 1:
                pin |= {"wanted": replicas, "holders": [holder], "under_replicated": True, "size": 2048, "why": []}
            pins.append(pin)
        return {"pins": pins, "agreed": self.quorum, "as_of": 1_000.0}

    async def pin(self, root: Cid, replicas: int) -> dict[str, Any]:
        self._check()
        if root != TREE:
            raise ContentNotFound(f"nobody reachable has {root}")
        self.pinned[root] = replicas
        return (await self.pins())["pins"][0] if replicas > 1 else {"cid": root}

    async def unpin(self, root: Cid) -> dict[str, Any]:
        self._check()
        if root not in self.pinned:
            raise UsageError(f"{root} is not pinned in the mesh")
        del self.pinned[root]
        return {"cid": root, "ended": ["report of run 17"], "left": ["user"]}

    async def command(self, node: str, verb: CommandVerb) -> None:
        if node not in ("one", "two"):
            raise UsageError(f"no node of this mesh is called {node!r}")
        self.commands.append((node, verb))


class FakeContent:
    """`Content`: one tree, and what is added."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self.files = dict(files)
        self.added: list[tuple[Path, Sequence[str] | None]] = []
        self.break_after: int | None = None
        self.archive_is_whole = True

    async def add_path(self, path: Path, names: Sequence[str] | None = None) -> Cid:
        if not path.exists():
            raise UsageError(f"{path} does not exist")
        self.added.append((path, names))
        return TREE

    async def fetch(self, root: Cid, holders: Sequence[PeerId] = (), timeout: float = 300.0) -> None:
        if root != TREE:
            raise ContentNotFound(f"nobody reachable has {root}")

    async def checkout(self, root: Cid, target: Path) -> None:
        target.mkdir()
        for name, data in self.files.items():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes(data)

    async def read(self, root: Cid, path: str = "") -> AsyncIterator[bytes]:
        if root != TREE:
            raise ContentNotFound(f"nobody reachable has {root}")
        if path not in self.files:
            raise UsageError(f"there is no {path!r} under {root}")
        data = self.files[path]
        for start in range(0, len(data), 4096):
            if self.break_after is not None and start >= self.break_after:
                raise ContentNotFound("a block is gone")
            yield data[start : start + 4096]

    async def export_archive(self, root: Cid, target: Path) -> Archived:
        await self.fetch(root)
        target.write_bytes(b"archive")
        return Archived((root,), 3, 1700)

    async def import_archive(self, path: Path) -> Archived:
        if path.read_bytes() != b"archive":
            raise UsageError(f"{path} is no CAR file that can be imported")
        return Archived((TREE if self.archive_is_whole else ABSENT,), 3, 1700)

    async def size(self, root: Cid) -> int:
        raise MeshError("not in this test")

    async def pin(self, root: Cid, reason: str) -> None:
        raise MeshError("not in this test")

    async def unpin(self, root: Cid) -> None:
        raise MeshError("not in this test")

    async def hold(self, roots: Sequence[Cid], reason: str, run: RunId = NO_RUN) -> None:
        raise MeshError("not in this test")

    async def release(self, kept: Sequence[PinKey]) -> None:
        raise MeshError("not in this test")

    async def kept(self) -> list[KeptRoot]:
        raise MeshError("not in this test")

    async def pins(self) -> Mapping[Cid, str]:
        raise MeshError("not in this test")

    async def put(self, data: bytes, codec: str = "raw") -> Cid:
        raise MeshError("not in this test")

    async def put_many(self, blocks: Sequence[bytes], codec: str = "raw") -> list[Cid]:
        raise MeshError("not in this test")

    async def get(self, cid: Cid, holders: Sequence[PeerId] = (), timeout: float = 30.0) -> bytes:
        raise MeshError("not in this test")

    async def has(self, root: Cid) -> bool:
        return root == TREE

    async def add_files(self, files: Mapping[str, bytes | Cid | Path]) -> Cid:
        raise MeshError("not in this test")

    async def stat(self) -> ContentStat:
        return ContentStat(0, 0, len(self.kept))

"""`mesh_once` and `mesh_lock` in real slots of two sessions, as of two hosts, before one coordinator's state."""

from pathlib import Path

import pytest
import trio
from runner_harness import SECONDS_MAX, collect, job, take, work, write

from mesh.coordinator.sharing import SharedNames
from mesh.ports import Applied
from mesh.state.model import Task
from mesh.worker.runner import PytestRunner
from mesh.worker.sharing import Shares
from protocols.commands import Grant
from protocols.ids import Cid, PeerId, RunId
from protocols.manifests import Record
from protocols.work import ClaimName, NameClaimed, SettleName
from tests.fakes.content import FakeContent, Shelves
from tests.fakes.network import Lan
from tests.scheduler.scheduler_rig import Rig


class Log:
    """A log of one voter."""

    def __init__(self) -> None:
        self.rig = Rig()
        self.state = self.rig.state
        self.version = 0
        self._changed = trio.Event()

    async def propose(self, command: object) -> Applied:
        await trio.lowlevel.checkpoint()
        result = self.rig.do(command)  # type: ignore[arg-type]
        self.version += 1
        self._changed.set()
        self._changed = trio.Event()
        return Applied(self.version, result)

    async def wait_changed(self, since: int) -> int:
        while self.version <= since:
            await self._changed.wait()
        return self.version


class Replicas:
    async def secure(self, *_: object, run: int = 0) -> None:
        await trio.lowlevel.checkpoint()


class Host:
    """One worker's `Names`."""

    def __init__(self, peer: PeerId, names: SharedNames) -> None:
        self.peer, self._names = peer, names

    async def claim(self, run: RunId, name: str, holder: int) -> NameClaimed:
        return await self._names.claim(self.peer, ClaimName(run, name, 1, holder))

    async def settle(self, run: RunId, name: str, holder: int, value: Cid | None) -> None:
        await self._names.settle(self.peer, SettleName(run, name, holder, value), {})


async def on_two_hosts(root: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Record]:
    """Every test on both; the records by host and test."""
    monkeypatch.setenv("NOTES", str(root.parent / "notes"))
    log = Log()
    for name in "ab":
        log.rig.worker(name)
    run = log.rig.running([Task(0, 1), Task(1, 1)])
    names = SharedNames(log, Replicas())  # type: ignore[arg-type]
    content = FakeContent(Shelves(Lan()), PeerId("all"))
    records: dict[str, Record] = {}
    manifest = await collect(job(root))

    async def host(number: int, name: str) -> None:
        peer = PeerId(name)
        log.rig.accept(Grant(run.id, peer, 1, (Task(number, 1),)))
        shares = Shares(Host(peer, names), content, run.id)
        async with (
            shares.serving() as socket,
            PytestRunner().session(job(root, share=str(socket), first_slot=2 * number)) as session,
        ):
            session.submit(work(manifest))
            for event in await take(session, len(manifest.tests)):
                records[name + event.record.test.partition("::")[2]] = event.record

    with trio.fail_after(SECONDS_MAX):
        async with trio.open_nursery() as nursery:
            for number, name in enumerate("ab"):
                nursery.start_soon(host, number, name)
    assert not log.state.claims, "nobody holds anything at the end"
    return records


async def test_one_process_computes_for_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = """
        import os, pytest, time
        def make():
            with open(os.environ["NOTES"], "a") as file: file.write("made\\n")
            time.sleep(0.2)
            return {"by": os.environ["PYTEST_XDIST_WORKER"]}
        @pytest.fixture(scope="session")
        def database(mesh_once): return mesh_once("database", make)
        @pytest.mark.parametrize("i", range(4))
        def test_it(database, record_property, i): record_property("by", database["by"])
        def test_bytes(mesh_once): assert mesh_once("bytes", lambda: b"\\x00\\xff") == b"\\x00\\xff"
        def test_bad(mesh_once):
            own = "bad" + os.environ["PYTEST_XDIST_WORKER"]
            with pytest.raises(Exception, match="what JSON can hold"): mesh_once(own, object)
            assert mesh_once(own, lambda: 3) == 3
        def test_name(mesh_once):
            with pytest.raises(Exception, match="at most 400 bytes"): mesh_once("x" * 500, dict)
    """
    records = await on_two_hosts(write(tmp_path / "tree", {"test_a.py": suite}), monkeypatch)
    assert {record.outcome.value for record in records.values()} == {"passed"}
    assert len({record.properties for name, record in records.items() if "test_it" in name}) == 1
    assert (tmp_path / "notes").read_text() == "made\n"


async def test_who_dies_or_fails_leaves_it_to_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = """
        import os, pytest
        def make():
            notes = open(os.environ["NOTES"], "a+")
            tries = notes.tell()
            notes.write("x")
            notes.close()
            if tries == 0: os._exit(9)
            if tries == 1: raise ValueError("second")
            return tries
        @pytest.mark.parametrize("i", range(3))
        def test_it(mesh_once, i): assert mesh_once("it", make) == 2
    """
    records = await on_two_hosts(write(tmp_path / "tree", {"test_a.py": suite}), monkeypatch)
    assert sorted(record.outcome.value for record in records.values()) == ["error", "failed", *["passed"] * 4]
    assert (tmp_path / "notes").read_text() == "xxx"


async def test_a_lock_is_held_by_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    suite = """
        import os, pytest, time
        @pytest.mark.parametrize("i", range(4))
        def test_it(mesh_lock, i):
            with mesh_lock("licence"):
                flag = os.environ["NOTES"] + ".inside"
                os.close(os.open(flag, os.O_CREAT | os.O_EXCL))
                time.sleep(0.02)
                os.unlink(flag)
                if i == 2: raise ValueError("inside")
        def test_dies_inside(mesh_lock):
            with mesh_lock("licence"): os._exit(3)
        def test_twice(mesh_lock):
            with mesh_lock("other"), pytest.raises(Exception, match="holds 'other' already"):
                with mesh_lock("other"): ...
    """
    records = await on_two_hosts(write(tmp_path / "tree", {"test_a.py": suite}), monkeypatch)
    outcomes = sorted(record.outcome.value for record in records.values())
    assert outcomes == ["error"] * 2 + ["failed"] * 2 + ["passed"] * 8
    assert {record.message for record in records.values() if record.outcome.value == "failed"} == {"ValueError: inside"}


async def test_without_a_mesh_it_says_so(tmp_path: Path) -> None:
    the_job = job(write(tmp_path, {"test_a.py": "def test_it(mesh_once): mesh_once('x', dict)"}))
    items = work(await collect(the_job))
    async with PytestRunner().session(the_job) as session:
        session.submit(items)
        (ended,) = await take(session, 1)
    assert "need a node of a mesh" in ended.record.message

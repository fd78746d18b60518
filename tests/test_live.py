"""Live output: every byte that a test prints is told once, however the looks fall between its phases and its end."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mesh.live import LiveOutput
from mesh.worker.tailing import TAIL_BYTES_MAX, TAIL_LAG_BYTES_MAX, tail
from protocols.client import Follow, Progress, Verdicts
from protocols.codec import decode, encode
from protocols.errors import NodeUnavailable, UsageError
from protocols.ids import Cid, PeerId, RunId, TestIndex
from protocols.manifests import Chunk, CollectedTest, Manifest, Outcome, Record
from protocols.work import Tailed, TailTest
from tests.fakes.content import FakeContent, Shelves
from tests.fakes.network import Lan

WORKER = PeerId("worker")
MANIFEST = Manifest(Cid("b"), (CollectedTest("t.py::test_a", "t"), CollectedTest("t.py::test_b", "t")))


class Worker:
    """The worker's side of the network: its slot's folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.gone = False

    async def call(self, peer: PeerId, protocol: str, payload: bytes) -> bytes:
        request = decode(payload, TailTest)
        if self.gone:
            raise NodeUnavailable("gone")
        found = tail(self.folder, request.offsets)
        return encode(Tailed(found.pieces, found.offsets, found.skipped))


def progress(running: bool, verdicts: tuple[Verdicts, ...] = (), final: bytes = b"") -> Progress:
    under_way = ((TestIndex(0), WORKER, 1),) if running else ()
    return Progress("running", 2, Cid("m"), (), verdicts, under_way, final)


async def told(worker: Worker, story: Iterator[Progress], content: FakeContent, test: str = "") -> list[dict[str, Any]]:
    async def ask(request: Follow) -> Progress:
        return next(story)

    async def manifest(progress: Progress) -> Manifest:
        return MANIFEST

    network: Any = worker
    live = LiveOutput(network=network, content=content, ask=ask, manifest=manifest, run=RunId(3), test=test)
    return [event async for event in live.events()]


async def verdict(content: FakeContent, **fields: Any) -> Verdicts:
    record = Record("t.py::test_a", Outcome.PASSED, 1.0, 0.0, WORKER, 0, 1, **fields)
    cid = await content.put(encode(Chunk((TestIndex(0),), (encode(record),))))
    return Verdicts(cid, WORKER, (TestIndex(0),), bytes([Outcome.PASSED.code]), (1_000_000,), (1,))


def text(events: list[dict[str, Any]], stream: str) -> str:
    return "".join(event["text"] for event in events if event["event"] == "output" and event["stream"] == stream)


@pytest.mark.parametrize("test", ["", "t.py::test_a"])
async def test_nothing_is_missed_and_nothing_told_twice(tmp_path: Path, autojump_clock: object, test: str) -> None:
    content = FakeContent(Shelves(Lan()), PeerId("me"))
    worker = Worker(tmp_path)
    last = await verdict(content, stdout="in setup\nin call é\nlast\nloose\n", stderr="err\n")

    def story() -> Iterator[Progress]:
        yield progress(False)
        (tmp_path / "out").write_bytes(b"in setup\n")
        yield progress(True)
        (tmp_path / "out").write_bytes(b"")  # between two phases: taken out of the one file, not yet in the other
        yield progress(True)
        (tmp_path / "early1").write_bytes(b"in setup\n")
        (tmp_path / "out").write_bytes(b"in call \xc3")
        (tmp_path / "fd1").write_bytes(b"loose\n")
        yield progress(True)
        (tmp_path / "out").write_bytes(b"in call \xc3\xa9\n")
        yield progress(True)
        worker.gone = True
        yield progress(True)
        yield progress(False, (last,))
        yield progress(False, final=b"{}")

    events = await told(worker, story(), content, test)
    assert text(events, "stdout") == "in setup\nin call loose\né\nlast\n"
    assert text(events, "stderr") == "err\n"
    assert events[-1] == {"event": "verdict", "run": "3", "test": "t.py::test_a", "outcome": "passed", "duration": 1.0}


async def test_a_test_that_ended_unseen_is_told_of_if_named(tmp_path: Path, autojump_clock: object) -> None:
    content = FakeContent(Shelves(Lan()), PeerId("me"))
    last = await verdict(content, stdout="all of it\n")

    def story() -> Iterator[Progress]:
        yield progress(False, (last,))
        yield progress(False, final=b"{}")

    assert text(await told(Worker(tmp_path), story(), content, "test_a"), "stdout") == "all of it\n"
    assert await told(Worker(tmp_path), story(), content) == []
    with pytest.raises(UsageError, match="run 3 has no test 'test_c'"):
        await told(Worker(tmp_path), story(), content, "test_c")


def test_a_tail_is_bounded(tmp_path: Path) -> None:
    (tmp_path / "early1").write_bytes(b"a" * 100)
    (tmp_path / "out").write_bytes(b"b" * TAIL_BYTES_MAX)
    first = tail(tmp_path, ())
    assert first.pieces == (b"a" * 100 + b"b" * (TAIL_BYTES_MAX - 100), b"", b"", b"")
    second = tail(tmp_path, first.offsets)
    assert (second.pieces[0], second.offsets[0], second.skipped) == (b"b" * 100, TAIL_BYTES_MAX + 100, 0)
    (tmp_path / "out").write_bytes(b"c" * (2 * TAIL_LAG_BYTES_MAX) + b"end")
    third = tail(tmp_path, second.offsets)
    assert len(third.pieces[0]) == TAIL_BYTES_MAX
    assert third.pieces[0].endswith(b"cend")
    assert second.offsets[0] + third.skipped + TAIL_BYTES_MAX == third.offsets[0] == 100 + 2 * TAIL_LAG_BYTES_MAX + 3

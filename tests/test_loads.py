"""A node looks at all the others by itself, and remembers, also from one life to the next."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from mesh.loads import LOOK_SECONDS, LOOKS_PER_SAVE, Loads
from mesh.ports import NodeView
from mesh.views.load_history import BLANK
from protocols.codec import encode
from protocols.ids import PeerId
from protocols.loads import KeptLoads, NodeLoads
from protocols.presence import NodeState, Presence, Role

A = PeerId("12D3KooWa")
NOON = 1_800_000_000.0


class Changing:
    """`Nodes`: one, whose CPU is busier by a percent with each look."""

    def __init__(self) -> None:
        self.looks = 0

    def nodes(self) -> Mapping[PeerId, NodeView]:
        self.looks += 1
        presence = Presence(A, "a", Role.AUTO, 1, 0, (), 0, 0, False, {}, {"cpu.percent": self.looks}, (), ())
        return {A: NodeView(presence, NodeState.ALIVE, 0.0, 0.0, True)}


def clock() -> Callable[[], float]:
    """Noon, and what has passed since."""
    began = trio.current_time()
    return lambda: NOON + trio.current_time() - began


def made(path: Path, now: Callable[[], float]) -> Loads:
    return Loads(cast("Any", Changing()), path, now)


async def live(path: Path, seconds: float, now: Callable[[], float]) -> Loads:
    """A node's life of so many seconds."""
    loads = made(path, now)
    with trio.move_on_after(seconds):
        await loads.run()
    return loads


async def test_a_minute_is_the_mean_of_twelve_looks(tmp_path: Path, autojump_clock: MockClock) -> None:
    loads = await live(tmp_path / "loads", 119, clock())
    assert loads.knows(A)
    document = loads.document(A, 24)
    assert document["start"] == NOON
    assert document["cpu"] == pytest.approx([0.065, 0.185], abs=0.002)
    assert document["slots"] is None, "it has none"


async def test_the_next_life_knows_the_former_and_the_gap_between(tmp_path: Path, autojump_clock: MockClock) -> None:
    now = clock()
    former = await live(tmp_path / "loads", 119, now)
    await trio.sleep(121)
    later = await live(tmp_path / "loads", 1, now)
    assert later.document(A, 24)["cpu"] == [*former.document(A, 24)["cpu"], None, None, 0.008]
    assert [period["state"] for period in later.document(A, 24)["states"]] == ["alive", None, "alive"]


async def test_a_node_that_is_killed_loses_ten_minutes(tmp_path: Path, mock_clock: MockClock) -> None:
    now = clock()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(made(tmp_path / "loads", now).run)
        for _ in range(LOOKS_PER_SAVE):
            await wait_all_tasks_blocked()
            mock_clock.jump(LOOK_SECONDS)
        while not (tmp_path / "loads").exists():
            await trio.lowlevel.checkpoint()
        (tmp_path / "copy").write_bytes((tmp_path / "loads").read_bytes())
        nursery.cancel_scope.cancel()
    mock_clock.jump(300)
    mock_clock.autojump_threshold = 0
    killed = await live(tmp_path / "copy", 1, now)
    cpu = killed.document(A, 24)["cpu"]
    assert len(cpu) == 16
    assert None not in cpu[:10]
    assert cpu[10:15] == [None] * 5


@pytest.mark.parametrize(
    "junk",
    [
        b"junk",
        encode(KeptLoads(7, (NodeLoads(A, 7, b"", (b"",) * 5),))),
        encode(KeptLoads(7, (NodeLoads(A, 7, BLANK, (BLANK,) * 4),))),
        encode(KeptLoads(7, (NodeLoads(A, 7, BLANK[1:] + b"\7", (BLANK,) * 5),))),
        encode(KeptLoads(7, (NodeLoads(A, 7, BLANK, (b"\xfe" + BLANK[1:],) * 5),))),
    ],
)
async def test_a_file_that_is_none_of_ours_is_as_good_as_none(
    tmp_path: Path, autojump_clock: MockClock, junk: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "loads").write_bytes(junk)
    loads = await live(tmp_path / "loads", 1, clock())
    assert loads.document(A, 24)["cpu"] == [0.008]
    assert "loads can't be read" in caplog.text
    await live(tmp_path / "missing" / "loads", 1, clock())
    assert "loads can't be written" in caplog.text, "and goes on"

"""A node looks at all the others by itself, and remembers."""

from collections.abc import Mapping

import pytest
import trio
from trio.testing import MockClock

from mesh.loads import Loads
from mesh.ports import NodeView
from protocols.ids import PeerId
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


async def test_a_minute_is_the_mean_of_twelve_looks(autojump_clock: MockClock) -> None:
    began = trio.current_time()
    loads = Loads(Changing(), lambda: NOON + trio.current_time() - began)  # type: ignore[arg-type]
    assert not loads.knows(A)
    with trio.move_on_after(119):
        await loads.run()
    assert loads.knows(A)
    document = loads.document(A, 24)
    assert document["start"] == NOON
    assert document["cpu"] == pytest.approx([0.065, 0.185], abs=0.002)
    assert document["slots"] is None, "it has none"

"""`mesh why TEST` reads manifests, and the mesh goes on meanwhile."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from mesh.coordinator.why import WhyDesk
from protocols.errors import UsageError
from protocols.ids import RunId


async def test_runs_may_come_and_go_while_a_test_is_looked_for() -> None:
    runs: dict[RunId, Any] = {RunId(n): SimpleNamespace(manifest=f"m{n}", workers=()) for n in (1, 2, 3)}
    asked = []

    class History:
        async def manifest(self, cid: str, holders: tuple[str, ...]) -> Any:
            asked.append(cid)
            runs[RunId(10 + len(asked))] = SimpleNamespace(manifest=None, workers=())
            runs.pop(RunId(2), None)
            return SimpleNamespace(tests=())

    desk = WhyDesk(
        history=cast("Any", History()),
        fleet=cast("Any", None),
        outlook=lambda: cast("Any", SimpleNamespace(state=SimpleNamespace(runs=runs))),
        run=runs.__getitem__,
        standing=lambda run: None,
    )
    with pytest.raises(UsageError, match="'t' is neither a run nor a test of one"):
        await desk.why("t")
    assert asked == ["m3", "m1"]

"""Tests that slow each other down on one host, by real services on fake ports: found out, and kept apart since."""

import trio

from mesh.scheduler.contention import QUICK_RUNS, SLOW_RUNS
from tests.fakes.runner import suite_of
from tests.simulation.mesh_rig import mesh

HOGS = {"test_0.py::test_0", "test_0.py::test_1"}


async def test_tests_that_were_slow_beside_each_other_are_not_run_at_once_again(tmp_path, autojump_clock):
    suite = suite_of(14, modules=1)
    pace = {"hogs": 1.0}
    suite.seconds = lambda test: pace["hogs"] if test in HOGS else 0.7
    async with mesh(tmp_path, suite, {"a": 2}) as rig:
        node = await rig.leader()
        order: list[str] = []

        async def run(hogs: float) -> None:
            pace["hogs"] = hogs
            suite.ran.clear()
            with trio.fail_after(120):
                events = await rig.follow(node, await rig.submit(node))
            assert events[-1]["state"] == "passed"
            order[:] = [test for _, test in suite.ran]

        for _ in range(QUICK_RUNS):
            await run(1.0)
        for _ in range(SLOW_RUNS):
            await run(3.0)
        assert set(order[:2]) == HOGS, "the longest first, beside each other"
        for _ in range(2):
            await run(1.0)
            first, second = (place for place, test in enumerate(order) if test in HOGS)
            assert first == 0
            assert second >= 2, "something else meanwhile"

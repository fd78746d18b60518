"""Ends by force, of a lease, a session, a node, a zygote: nothing is left running, and no other test pays."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest
import trio
import trio.testing
from runner_harness import SECONDS_MAX, collect, gone, job, run, work, write

from mesh.ports import Finished, Started, WorkItem
from mesh.worker.processes import SlotProcess, Zygote
from mesh.worker.runner import PytestRunner
from mesh.worker.running import PytestSession
from protocols.ids import LeaseId


async def test_a_killed_lease_ends_without_a_word_and_costs_no_other_lease_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIDS", str(tmp_path / "pids"))
    write(
        tmp_path / "tree",
        {
            "test_a.py": """
            import os, subprocess, time
            def test_long():
                child = subprocess.Popen(["sleep", "1000"])
                with open(os.environ["PIDS"], "a") as file: print(os.getpid(), child.pid, file=file)
                time.sleep(1000)
            def test_short(): ...
            """
        },
    )
    the_job = job(tmp_path / "tree", slots=1)
    long, short = work(await collect(the_job))
    async with PytestRunner().session(the_job) as session:
        session.submit([long, WorkItem(LeaseId(2), short.index, short.id, short.scope)])
        with trio.fail_after(30):
            events = session.events()
            assert isinstance(await anext(events), Started)
            await appears(tmp_path / "pids")
            session.kill(LeaseId(1))
            event = await anext(events)
            while isinstance(event, Started):
                event = await anext(events)
        assert isinstance(event, Finished)
        assert (event.lease, event.index, event.record.outcome.value) == (2, 1, "passed")
        for pid in (tmp_path / "pids").read_text().split():
            assert await gone(int(pid))


@pytest.mark.parametrize("way", ["cancel", "leave"])
async def test_leaving_kills_everything_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    monkeypatch.setenv("PIDS", str(tmp_path / "pids"))
    write(tmp_path / "tree", {"test_a.py": HANGING})
    the_job = job(tmp_path / "tree", slots=1)
    items = work(await collect(the_job))
    with trio.fail_after(30):
        with trio.CancelScope() as scope:
            async with PytestRunner().session(the_job) as session:
                session.submit(items)
                await appears(tmp_path / "pids")
                if way == "cancel":
                    scope.cancel()
                    await trio.sleep_forever()
        for pid in (tmp_path / "pids").read_text().split():
            assert await gone(int(pid))


HANGING = """
    import os, subprocess, time
    def test_hang():
        child = subprocess.Popen(["sleep", "1000"])
        with open(os.environ["PIDS"], "w") as file: print(os.getppid(), os.getpid(), child.pid, file=file)
        time.sleep(1000)
"""

NODE = """
    import sys, trio
    from pathlib import Path
    sys.path[:0] = sys.argv[2:]
    from runner_harness import collect, job, work
    from mesh.worker.runner import PytestRunner

    async def main():
        the_job = job(Path(sys.argv[1]))
        items = work(await collect(the_job))
        async with PytestRunner().session(the_job) as session:
            session.submit(items)
            await trio.sleep_forever()

    trio.run(main)
"""


async def appears(path: Path) -> None:
    while not path.exists() or not path.read_text().endswith("\n"):  # noqa: ASYNC110 - written by another process
        await trio.sleep(0.01)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere a slot ends when its test does")
async def test_a_node_that_is_killed_leaves_no_zygote_and_no_slot(tmp_path: Path) -> None:
    write(tmp_path, {"tree/test_a.py": HANGING, "node.py": dedent(NODE)})
    here = Path(__file__).parent
    node = subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, str(tmp_path / "node.py"), str(tmp_path / "tree"), str(here), str(here.parent.parent)],
        env={**os.environ, "PIDS": str(tmp_path / "pids"), "TMPDIR": str(tmp_path)},
    )
    try:
        with trio.fail_after(30):
            await appears(tmp_path / "pids")
    finally:
        node.kill()
        node.wait()
    zygote, slot, grandchild = map(int, (tmp_path / "pids").read_text().split())
    try:
        assert await gone(zygote)
        assert await gone(slot)
    finally:
        os.kill(grandchild, signal.SIGKILL)


async def test_a_zygote_and_its_slot_that_are_killed_together_are_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The zygote's end may take its time: a slot that is opened meanwhile belongs to the next one."""
    suite = """
        import os, pytest, signal
        @pytest.mark.parametrize("i", range(6))
        def test(i):
            if i == 2:
                os.kill(os.getppid(), signal.SIGKILL)
                os.kill(os.getpid(), signal.SIGKILL)
    """
    wait, open_slot = Zygote.wait, PytestSession._open
    opened: list[int] = []

    async def slow(zygote: Zygote) -> int:
        monkeypatch.setattr(Zygote, "wait", wait)
        code = await wait(zygote)
        with trio.fail_after(SECONDS_MAX):
            while len(opened) < 2:  # noqa: ASYNC110
                await trio.sleep(0.01)
        await trio.testing.wait_all_tasks_blocked()
        return code

    def noted(session: PytestSession, number: int) -> SlotProcess:
        opened.append(number)
        return open_slot(session, number)

    monkeypatch.setattr(PytestSession, "_open", noted)
    monkeypatch.setattr(Zygote, "wait", slow)
    records = await run(job(write(tmp_path / "tree", {"test_a.py": suite}), slots=1))
    outcomes = {name: record.outcome.value for name, record in records.items()}
    assert outcomes == {f"test[{i}]": "error" if i == 2 else "passed" for i in range(6)}

"""Runs small made-up suites with the real runner, real pytest and real processes."""

import sys
from collections.abc import Mapping
from pathlib import Path
from textwrap import dedent

import trio

from mesh.ports import CollectionFailed, Finished, Job, RunnerSession, WorkItem
from mesh.worker.runner import PytestRunner
from protocols.ids import LeaseId, PeerId, TestIndex
from protocols.manifests import Manifest, Record

SECONDS_MAX = 60.0
PEER = PeerId("12D3KooWTest")


def write(root: Path, files: Mapping[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))
    return root


def job(root: Path, *arguments: str, slots: int = 2, timeout: float = 0.0, **more: object) -> Job:
    values: dict[str, object] = {
        "root": root,
        "arguments": arguments,
        "command": None,
        "files": (),
        "timeout": timeout,
        "python": sys.executable,
        "variables": {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        "slots": slots,
        "run": "7",
        "worker": PEER,
    }
    return Job(**{**values, **more})  # type: ignore[arg-type]


def work(manifest: Manifest, lease: int = 1) -> list[WorkItem]:
    return [
        WorkItem(LeaseId(lease), TestIndex(index), test.id, test.scope, test.timeout)
        for index, test in enumerate(manifest.tests)
    ]


async def take(session: RunnerSession, count: int) -> list[Finished]:
    """The next `count` results."""
    found: list[Finished] = []
    with trio.fail_after(SECONDS_MAX):
        async for event in session.events():
            if isinstance(event, Finished):
                found.append(event)
                if len(found) == count:
                    break
    return found


async def collect(job: Job, runner: PytestRunner | None = None) -> Manifest:
    """Without a runner that keeps what has collected, a session on the same job has a process of its own."""
    manifest = await (runner or PytestRunner()).collect(job)
    assert not isinstance(manifest, CollectionFailed), manifest.output
    return manifest


async def run_all(job: Job) -> list[Record]:
    """Collect and run everything, as a node does: in the process that has collected."""
    async with PytestRunner() as runner:
        items = work(await collect(job, runner))
        async with runner.session(job) as session:
            session.submit(items)
            found = await take(session, len(items))
    assert sorted(event.index for event in found) == [item.index for item in items]
    return [event.record for event in found]


async def run(job: Job) -> dict[str, Record]:
    """The same, by test ID without its file."""
    return {record.test.split("::", 1)[-1]: record for record in await run_all(job)}


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def gone(pid: int) -> bool:
    """Whether a process ends within two seconds."""
    with trio.move_on_after(2):
        while alive(pid):  # noqa: ASYNC110 - a process of nobody's
            await trio.sleep(0.01)
        return True
    return False

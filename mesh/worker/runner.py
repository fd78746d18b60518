"""The runner: tests of one job on this host, in processes of their own.

`PytestRunner` implements `mesh.ports.Runner`: it collects, and opens sessions (`mesh.worker.running`). A session has
one zygote (pytest configured once), which forks a process for each slot when there is work for it.
"""

import contextlib
import dataclasses
import json
import logging
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import trio

from mesh.ports import CollectionFailed, Job
from mesh.worker.arguments import for_slots
from mesh.worker.frames import collection_failed
from mesh.worker.leftovers import remove_leftovers, temporary_folder
from mesh.worker.processes import Zygote
from mesh.worker.pytest_side import telling
from mesh.worker.running import COLLECT_SECONDS_MAX, PytestSession
from protocols.errors import UsageError
from protocols.ids import Cid
from protocols.manifests import NOTHING, CollectedTest, Dependency, Manifest, Needs

log = logging.getLogger(__name__)


class PytestRunner:
    """Runs pytest, or shell commands.

    Used as a context (`async with PytestRunner() as runner`), it keeps the last collection's process for the session
    that follows on the same job, which then has nothing to import or to collect again; at most one, and for at most
    `zygote.WARM_SECONDS`.
    """

    def __init__(self) -> None:
        self._keeps = False
        self._warm: tuple[Job, Zygote] | None = None

    async def __aenter__(self) -> "PytestRunner":
        self._keeps = True
        for name in await trio.to_thread.run_sync(remove_leftovers):
            log.info("removed %s, which a killed node left behind", name)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._keeps = False
        self._drop()

    async def collect(self, job: Job) -> Manifest | CollectionFailed:
        """See `mesh.ports.Runner`. A job with a command is not collected: its files are its tests."""
        if job.command is not None:
            names = job.files or (job.command,)
            return Manifest(Cid(""), tuple(CollectedTest(name, name) for name in names))
        try:
            zygote = Zygote(job, for_slots(job.arguments), collect=True)
        except UsageError as error:
            return CollectionFailed(4, str(error))
        except OSError as error:
            return CollectionFailed(4, f"can't start {job.python} in {job.root}: {error.strerror}")
        kept = False
        try:
            with trio.fail_after(COLLECT_SECONDS_MAX):
                found = await self._collected(zygote)
            if isinstance(found, Manifest):
                if self._keeps:
                    self._drop()
                    self._warm, kept = (job, zygote), True
                else:
                    await zygote.stop()
            return found
        except trio.TooSlowError:
            return CollectionFailed(2, f"collecting took longer than {COLLECT_SECONDS_MAX:g} s")
        finally:
            if not kept:
                zygote.close()

    async def _collected(self, zygote: Zygote) -> Manifest | CollectionFailed:
        async with contextlib.aclosing(zygote.messages()) as messages:
            async for message in messages:
                if "collected" in message:
                    text = await trio.to_thread.run_sync(Path(message["collected"]).read_text)
                    return dataclasses.replace(_manifest(json.loads(text)), notes=_notes(zygote))
        failed = collection_failed(await zygote.wait(), *zygote.output())
        return dataclasses.replace(failed, notes=_notes(zygote))

    def _drop(self) -> None:
        if self._warm is not None:
            self._warm[1].close()
            self._warm = None

    def _adopt(self, job: Job) -> Zygote | None:
        """The process that has collected just this job, if it is still there."""
        if self._warm is None or self._warm[0] != job or not self._warm[1].alive:
            return None
        zygote, self._warm = self._warm[1], None
        return zygote

    @contextlib.asynccontextmanager
    async def session(self, job: Job) -> AsyncIterator[PytestSession]:
        directory = temporary_folder("slots")
        try:
            async with trio.open_nursery() as nursery:
                session = PytestSession(job, directory, nursery, self._adopt(job))
                try:
                    nursery.start_soon(session.keep)
                    nursery.start_soon(session.watch)
                    yield session
                    await session.stop()
                finally:
                    session.kill_all()
                    nursery.cancel_scope.cancel()
        finally:
            shutil.rmtree(directory, ignore_errors=True)


def _notes(zygote: Zygote) -> bytes:
    """What the collecting process left beside the manifest; nothing if it came to no end."""
    try:
        return (zygote.directory / "notes").read_bytes()[: telling.NOTES_BYTES_MAX]
    except FileNotFoundError:
        return b""


def _manifest(data: dict[str, Any]) -> Manifest:
    tests = tuple(CollectedTest(name, scope, index, limit) for name, scope, index, limit in data["tests"])
    requirements = tuple((requires, prefers) for requires, prefers in data["requirements"])
    needs = tuple(
        Needs(cpu, memory, gpu, disk, network, tuple(locks), priority)
        for cpu, memory, gpu, disk, network, locks, priority in data["needs"]
    )
    edges = tuple(Dependency(*edge) for edge in data["dependencies"])
    held = needs if any(one != NOTHING for one in needs) else ()
    return Manifest(Cid(""), tests, requirements, needs=held, dependencies=edges)

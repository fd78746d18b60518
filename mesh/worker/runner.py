"""The runner: tests of one job on this host, in processes of their own.

`PytestRunner` implements `mesh.ports.Runner`: it collects, and opens sessions (`mesh.worker.running`). A session has
one zygote (pytest configured once), which forks a process for each slot when there is work for it.
"""

import contextlib
import dataclasses
import json
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from mesh.ports import CollectionFailed, Job
from mesh.worker.arguments import for_slots
from mesh.worker.frames import collection_failed
from mesh.worker.leftovers import remove_leftovers, remove_tree, temporary_folder
from mesh.worker.limits import COLLECT_SECONDS_MAX
from mesh.worker.processes import Zygote
from mesh.worker.pytest_side import inputs, telling
from mesh.worker.running import PytestSession
from protocols.errors import UsageError
from protocols.ids import Cid
from protocols.manifests import NOTHING, CollectedTest, Dependency, Manifest, Needs

log = logging.getLogger(__name__)


WARM_MAX = 2
WARM_SECONDS_MAX = 240.0
"""A waiting process is used only for so long: less than it waits by itself (`zygote.WARM_SECONDS`)."""


@dataclass(frozen=True, slots=True)
class _Warm:
    """A process that has collected, and what it found."""

    key: Job
    zygote: Zygote
    manifest: Manifest
    stamps: inputs.Stamps
    since: float


def _key(job: Job) -> Job:
    """What a process that has collected depends on: all but the run and its limit of time."""
    return dataclasses.replace(job, run="", timeout=0.0)


def _usable(warm: _Warm) -> bool:
    return warm.zygote.alive and trio.current_time() - warm.since < WARM_SECONDS_MAX


class PytestRunner:
    """Runs pytest, or shell commands.

    Used as a context (`async with PytestRunner() as runner`), it keeps the process that has collected: for the session
    that follows on the same job, and after that for later runs of the same bundle, arguments and environment,
    which then have nothing to import and to collect. At most `WARM_MAX` wait, for `WARM_SECONDS_MAX`; one whose modules
    changed on the disk is not used again (`pytest_side/inputs.py`), nor one that can't serve twice (`plugin.may_stay`).
    """

    def __init__(self) -> None:
        self._keeps = False
        self._warm: list[_Warm] = []
        """Nobody's now, oldest first."""
        self._sessions: list[PytestSession] = []
        self._collecting = 0

    async def __aenter__(self) -> "PytestRunner":
        self._keeps = True
        for name in await trio.to_thread.run_sync(remove_leftovers):
            log.info("removed %s, which a killed node left behind", name)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._keeps = False
        self._drop()

    @property
    def processes(self) -> int:
        """Of tests, on this host now: those that wait for a run included, not those that tests have started."""
        waiting = sum(one.zygote.alive for one in self._warm)
        return waiting + self._collecting + sum(session.processes for session in self._sessions)

    async def collect(self, job: Job) -> Manifest | CollectionFailed:
        """See `mesh.ports.Runner`. A job with a command is not collected: its files are its tests."""
        if job.command is not None:
            names = job.files or (job.command,)
            return Manifest(Cid(""), tuple(CollectedTest(name, name) for name in names))
        warm = await self._lasting(job)
        if warm is not None:
            return warm.manifest
        try:
            zygote = Zygote(job, for_slots(job.arguments), collect=True)
        except UsageError as error:
            return CollectionFailed(4, str(error))
        except OSError as error:
            return CollectionFailed(4, f"can't start {job.python} in {job.root}: {error.strerror}")
        kept = False
        self._collecting += 1
        try:
            with trio.fail_after(COLLECT_SECONDS_MAX):
                found = await self._collected(zygote)
            if isinstance(found, CollectionFailed):
                return found
            manifest, stamps = found
            if self._keeps:
                zygote.lasting, kept = bool(stamps), True
                self._keep(_Warm(_key(job) if stamps else job, zygote, manifest, stamps, trio.current_time()))
            else:
                await zygote.stop()
            return manifest
        except trio.TooSlowError:
            return CollectionFailed(2, f"collecting took longer than {COLLECT_SECONDS_MAX:g} s")
        finally:
            self._collecting -= 1
            if not kept:
                zygote.close()

    async def _collected(self, zygote: Zygote) -> tuple[Manifest, inputs.Stamps] | CollectionFailed:
        async with contextlib.aclosing(zygote.messages()) as messages:
            async for message in messages:
                if "collected" in message:
                    text = await trio.to_thread.run_sync(Path(message["collected"]).read_text)
                    data = json.loads(text)
                    return dataclasses.replace(_manifest(data), notes=_notes(zygote)), data.get("inputs", {})
        failed = collection_failed(await zygote.wait(), *zygote.output())
        return dataclasses.replace(failed, notes=_notes(zygote))

    def _drop(self) -> None:
        for warm in self._warm:
            warm.zygote.close()
        self._warm.clear()

    def _keep(self, warm: _Warm) -> None:
        """Let it wait, the oldest make room, and those that are of no use any more end."""
        self._warm.append(warm)
        useful = [one for one in self._warm if _usable(one)][-WARM_MAX:]
        for one in self._warm:
            if one not in useful:
                one.zygote.close()
        self._warm = useful

    async def _lasting(self, job: Job) -> _Warm | None:
        """One whose collection holds for this job too; those that would be, but are stale, end here."""
        for warm in [one for one in self._warm if one.zygote.lasting and one.key == _key(job)]:
            fresh = await trio.to_thread.run_sync(inputs.unchanged, warm.stamps, str(job.root))
            if warm in self._warm:
                if fresh and _usable(warm):
                    return warm
                self._warm.remove(warm)
                warm.zygote.close()
        return None

    async def _adopt(self, job: Job) -> _Warm | None:
        """A process that has collected just this, if there is one: no other session gets it meanwhile."""
        own = [one for one in self._warm if one.key == job and _usable(one)]
        warm = own[0] if own else await self._lasting(job)
        if warm is not None:
            self._warm.remove(warm)
        return warm

    @contextlib.asynccontextmanager
    async def session(self, job: Job) -> AsyncIterator[PytestSession]:
        directory = temporary_folder("slots")
        warm = await self._adopt(job)
        try:
            async with trio.open_nursery() as nursery:
                session = PytestSession(job, directory, nursery, warm.zygote if warm else None)
                self._sessions.append(session)
                try:
                    nursery.start_soon(session.keep)
                    nursery.start_soon(session.watch)
                    yield session
                    await session.stop()
                finally:
                    self._sessions.remove(session)
                    session.kill_all()
                    nursery.cancel_scope.cancel()
                    if session.rested is not None and warm is not None and self._keeps:
                        self._keep(dataclasses.replace(warm, zygote=session.rested, since=trio.current_time()))
                    elif session.rested is not None:
                        session.rested.close()
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(remove_tree, directory)


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
        Needs(cpu, memory, gpu, disk, network, tuple(locks), priority, hosts)
        for cpu, memory, gpu, disk, network, locks, priority, hosts in data["needs"]
    )
    edges = tuple(Dependency(*edge) for edge in data["dependencies"])
    held = needs if any(one != NOTHING for one in needs) else ()
    return Manifest(Cid(""), tests, requirements, needs=held, dependencies=edges)

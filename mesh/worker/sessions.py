"""Bundles on disk and the processes that run their tests, one session for each run.

A bundle is checked out once, under its CID, and stays for later runs (with the bytecode that Python wrote beside it)
until `BUNDLES_MAX` newer ones push it out, or the next version of its tree is made of it. Rejected: a checkout for each
run (compiles every module again).
"""

import dataclasses
import json
import os
import re
import tempfile
import zlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from mesh.content.unixfs.cid import as_raw
from mesh.manifests import Manifests
from mesh.ports import CollectionFailed, Content, Finished, Job, Runner, RunnerEvent, RunnerSession, Tail, WorkItem
from mesh.worker import artifacts
from mesh.worker.environments import Environment, Environments
from mesh.worker.leftovers import remove_tree
from mesh.worker.reading import setting_of
from mesh.worker.selecting import select
from mesh.worker.sharing import Names, Shares
from mesh.worker.uv import BuildFailed
from protocols.codec import decode, encode, encode_block
from protocols.errors import ContentNotFound, MeshError, UsageError
from protocols.ids import Cid, LeaseId, PeerId, RunId, TestIndex
from protocols.inputs import Place
from protocols.manifests import (
    THOUSAND,
    Device,
    EnvironmentInfo,
    Manifest,
    Origin,
    Record,
    RunSpec,
    Selection,
    Uncollected,
)
from protocols.work import Assign, Collection, GangHost

BUNDLES_MAX = 8
"""Checked-out bundles that a worker keeps."""


DEVICE_VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "NVIDIA_VISIBLE_DEVICES",
    "HIP_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES",
    "MESH_GPUS",
)


HASH_SEED = "PYTHONHASHSEED"


class RunSession:
    """The processes of one run, fed with leases."""

    def __init__(
        self,
        session: RunnerSession,
        manifest: Manifest,
        assign: Assign,
        origin: Cid | None,
        place: Callable[[], Place | None],
    ) -> None:
        self.scope = trio.CancelScope()
        self.dismissed = False
        """Ended by the agent because it was idle."""
        self.over = trio.Event()
        self.origin = origin
        """What its records link, stored here; None: their chunks are not signed."""
        self._spec = assign.spec
        self.last_used = trio.current_time()
        self._session = session
        self._manifest = manifest
        self.place = place
        """Where it runs, if its verdicts may be reused."""

    def is_like(self, assign: Assign) -> bool:
        """Whether another run has the same bundle and the same arguments."""
        mine, other = self._spec, assign.spec
        return (mine.bundle, mine.arguments, mine.command) == (other.bundle, other.arguments, other.command)

    def feed(self, assign: Assign, tests: Sequence[TestIndex]) -> None:
        """Queue tests of a lease."""
        attempts = {task.first + i: task.losses + 1 for task in assign.tasks for i in range(task.count)}
        entries = self._manifest.tests
        serial = any(self._manifest.needs_of(task.requirement).held for task in assign.tasks)
        variables = device_variables(assign.devices) + host_variables(assign.hosts)
        self._session.submit(
            [
                WorkItem(
                    assign.lease,
                    index,
                    entries[index].id,
                    f"@lease {assign.lease}" if serial else entries[index].scope,  # one slot, one after another
                    entries[index].timeout or assign.spec.timeout,
                    attempts[index],
                    variables,
                )
                for index in tests
            ]
        )

    def withdraw(self, lease: LeaseId) -> list[TestIndex]:
        return self._session.withdraw(lease)

    def kill(self, lease: LeaseId) -> None:
        self._session.kill(lease)

    def tail(self, index: TestIndex, offsets: Sequence[int]) -> Tail | None:
        return self._session.tail(index, offsets)

    def events(self) -> AsyncIterator[RunnerEvent]:
        return self._session.events()

    @property
    def endings(self) -> Sequence[str]:
        """See `mesh.ports.RunnerSession`."""
        return self._session.endings


def device_variables(devices: Sequence[Device]) -> tuple[tuple[str, str], ...]:
    """How a test finds the devices that its lease holds; nothing if it holds none."""
    if not devices:
        return ()
    names = ",".join(device.name for device in devices)
    share = sum(device.share for device in devices) / THOUSAND
    return (*((variable, names) for variable in DEVICE_VARIABLES), ("MESH_GPU_SHARE", f"{share:g}"))


def host_variables(hosts: Sequence[GangHost]) -> tuple[tuple[str, str], ...]:
    """How a test finds the hosts that it has at once; nothing if it has one."""
    if not hosts:
        return ()
    told = [
        {
            "name": host.name,
            "peer": host.peer,
            "addresses": host.addresses,
            "gpus": [device.name for device in host.devices],
        }
        for host in hosts
    ]
    return (("MESH_HOSTS", json.dumps(told)),)


def seeds(spec: RunSpec, given: str) -> dict[str, str]:
    """What Python's hashes begin with: the same on every host of a run and in each run of the same bundle, so that a
    test can be run again as it was; unless the run, or the node's own environment (`given`), says what it is to be."""
    if HASH_SEED in dict(spec.variables):
        return {}
    return {HASH_SEED: given or str(zlib.crc32(spec.bundle.encode()))}


class Workshop:
    """Where this worker keeps bundles and runs their tests."""

    def __init__(
        self,
        *,
        content: Content,
        manifests: Manifests,
        runner: Runner,
        folder: Path,
        peer: PeerId,
        slots: int,
        environments: Environments,
        hardware: Callable[[], str],
        hash_seed: str = "",
    ) -> None:
        self._content = content
        self._manifests = manifests
        self._runner = runner
        self._folder = folder
        self._peer = peer
        self._slots = slots
        self._environments = environments
        self._hardware = hardware
        self._hash_seed = hash_seed
        self._in_use: dict[Cid, int] = {}
        self._checkouts: dict[Cid, trio.Lock] = {}
        """For each bundle: one that takes long to come keeps no other waiting."""
        folder.mkdir(parents=True, exist_ok=True)
        kept = sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns)
        self._bundles: OrderedDict[Cid, None] = OrderedDict((Cid(path.name), None) for path in kept)

    def bundles(self) -> tuple[Cid, ...]:
        """Newest first."""
        return tuple(reversed(self._bundles))

    @asynccontextmanager
    async def open(self, assign: Assign, names: Names) -> AsyncIterator[RunSession]:
        """The run's processes, ready for tests; `MeshError` when the bundle or manifest can't be had. `names`: those
        that they share with the mesh."""
        if assign.manifest is None:
            raise ContentNotFound(f"run {assign.run} has no manifest yet")
        async with self._tree(assign) as root, self._environments.hold(assign.spec, root) as environment:
            manifest = await self._manifests.get(assign.manifest, assign.holders, keep=False)
            job = self._job(assign, root, environment)
            origin = await self._origin(assign, environment) if assign.signed else None
            async with (
                Shares(names, self._content, assign.run).serving() as socket,
                self._runner.session(dataclasses.replace(job, share=str(socket))) as session,
            ):
                setting = _setting(job, environment)
                yield RunSession(session, manifest, assign, origin, lambda: self._place(setting))

    def _place(self, setting: str) -> Place | None:
        return Place(setting, self._hardware(), self._peer) if setting else None

    async def collect(self, assign: Assign) -> Collection:
        """Collect the run's tests; the manifest is stored here as a UnixFS file."""
        async with self._tree(assign) as root:
            try:
                async with self._environments.hold(assign.spec, root) as environment:
                    job = self._job(assign, root, environment)
                    found = await self._runner.collect(job)
            except UsageError as error:  # on every host the same
                output = error.output if isinstance(error, BuildFailed) else str(error)
                record = await self._content.put(output.encode())
                return Collection(assign.lease, None, error.exit_code, str(error), record)
            if isinstance(found, Manifest) and assign.spec.selection is not None:
                found = select(found, decode(await self._read(assign.spec.selection, assign.holders), Selection))
        if isinstance(found, CollectionFailed):
            output = found.output.replace(f"{root}/", "")  # as pytest would say it in the submitter's own tree
            said = Uncollected(output.encode(errors="backslashreplace"), found.notes)
            record = await self._content.put(encode(said), "dag-cbor")
            return Collection(assign.lease, None, found.exit_code, told_reason(found.exit_code, output), record)
        info = await self._info(environment)
        setting = _setting(job, environment)
        manifest = dataclasses.replace(found, bundle=assign.spec.bundle, environment=info, setting=setting)
        with tempfile.NamedTemporaryFile(dir=self._folder.parent, prefix="manifest-") as file:
            await trio.Path(file.name).write_bytes(encode(manifest))
            cid = await self._content.add_path(Path(file.name))
        return Collection(assign.lease, cid, 0, "", None)

    async def warm_up(self, assign: Assign) -> None:
        """Bring the run's bundle here, and leave a process that has collected it, for its session."""
        async with self._tree(assign) as root, self._environments.hold(assign.spec, root) as environment:
            await self._runner.collect(self._job(assign, root, environment))

    async def _info(self, environment: Environment) -> EnvironmentInfo:
        """What the manifest tells of the environment; the list of distributions is stored."""
        lines = "".join(f"{line}\n" for line in environment.distributions)
        cid = await self._content.put(lines.encode())
        return EnvironmentInfo(
            environment.kind,
            environment.digest,
            environment.implementation,
            environment.version,
            environment.platform,
            cid,
        )

    async def _origin(self, assign: Assign, environment: Environment) -> Cid:
        """The block that tells where the records come from, stored."""
        assert assign.manifest is not None, "tests have a manifest"
        info = await self._info(environment)
        chosen = tuple(seeds(assign.spec, self._hash_seed).items())
        origin = Origin(assign.run, assign.spec, assign.manifest, info, chosen)
        cid = await self._content.put(encode_block(origin), "dag-cbor")
        named = [as_raw(cid), *([info.distributions] if info.distributions is not None else [])]
        await self._content.hold(named, f"run {assign.run}", assign.run)
        return cid

    async def complete(self, event: Finished, origin: Cid | None, run: RunId) -> Record:
        """The record with what only this side knows; what the test left in its artifact folder is stored, and the
        folder removed."""
        record = dataclasses.replace(event.record, worker=self._peer, origin=origin)
        if event.artifacts is None:
            return record
        try:
            warnings = await trio.to_thread.run_sync(artifacts.leave_out, event.artifacts)
            kept = await self._content.add_path(event.artifacts)
            await self._content.hold([kept], f"run {run}", run)
        except (OSError, MeshError) as error:  # a process that the test left behind still writes there, say
            kept, warnings = None, [artifacts.warning("all of it", str(error))]
        finally:
            await _remove(event.artifacts)
        return dataclasses.replace(record, artifacts=kept, warnings=(*record.warnings, *warnings))

    def _job(self, assign: Assign, root: Path, environment: Environment) -> Job:
        spec = assign.spec
        return Job(
            root=root,
            arguments=spec.arguments,
            command=spec.command,
            files=spec.files,
            timeout=spec.timeout,
            python=environment.python,
            variables={**dict(environment.variables), **seeds(spec, self._hash_seed), **dict(spec.variables)},
            slots=self._slots,
            run=str(assign.run),
            worker=self._peer,
            first_slot=assign.first_slot,
            slots_total=assign.slots_total,
            maxfail=spec.maxfail if not spec.retries else 0,  # with retries, only the log knows what counts
            test_type=spec.test_type,
            reads=spec.cached and spec.command is None,
        )

    async def _read(self, cid: Cid, holders: Sequence[PeerId] = ()) -> bytes:
        """A UnixFS file."""
        await self._content.fetch(cid, holders)
        return b"".join([part async for part in self._content.read(cid)])

    @asynccontextmanager
    async def _tree(self, assign: Assign) -> AsyncIterator[Path]:
        """The checked-out bundle, kept from removal meanwhile."""
        bundle = assign.spec.bundle
        target = self._folder / bundle / assign.spec.name
        self._in_use[bundle] = self._in_use.get(bundle, 0) + 1
        try:
            async with self._checkouts.setdefault(bundle, trio.Lock()):
                if assign.manifest is not None:
                    await self._content.fetch(assign.manifest, assign.holders)
                if not target.exists():
                    await self._content.fetch(bundle, assign.holders)
                    await self._environments.forget(bundle)
                    await self._check_out(bundle, target)
                self._bundles[bundle] = None
                self._bundles.move_to_end(bundle)
            await self._remove_old()
            yield target
        finally:
            self._in_use[bundle] -= 1

    async def _check_out(self, bundle: Cid, target: Path) -> None:
        """The newest checkout of the same name that nothing uses is made the new one: most of it is as it has to be."""
        for spare in reversed(self._bundles):
            lock = self._checkouts.setdefault(spare, trio.Lock())
            former = self._folder / spare / target.name
            if not self._in_use.get(spare) and not lock.locked() and former.exists():
                break
        else:
            await self._content.checkout(bundle, target, remember=True)
            return
        lock.acquire_nowait()
        try:
            del self._bundles[spare]
            await self._environments.forget(spare)
            await self._content.checkout(bundle, target, former, remember=True)
            await _remove(self._folder / spare)
        finally:
            lock.release()
        if not lock.statistics().tasks_waiting:
            del self._checkouts[spare]

    async def _remove_old(self) -> None:
        unused = [bundle for bundle in self._bundles if not self._in_use.get(bundle)]
        for bundle in unused[: max(0, len(self._bundles) - BUNDLES_MAX)]:
            lock = self._checkouts.setdefault(bundle, trio.Lock())
            if bundle not in self._bundles or self._in_use.get(bundle) or lock.locked():
                continue  # somebody else was faster
            async with lock:
                del self._bundles[bundle]
                await _remove(self._folder / bundle)
            if not lock.statistics().tasks_waiting:
                del self._checkouts[bundle]


def _setting(job: Job, environment: Environment) -> str:
    """Empty for a run whose verdicts are not to be reused. Its own variables are told by its spec, and the seeds that
    follow from the bundle are no input: with them, no verdict would outlive an edit."""
    return setting_of(environment.digest, {**os.environ, **dict(environment.variables)}) if job.reads else ""


async def _remove(folder: Path) -> None:
    await trio.to_thread.run_sync(remove_tree, folder)


_TELLING = re.compile(r"^(?:ERROR: (?!usage: )(.+)|\S+ error: (.+)|E {2,}(.+)|(the collecting process died.*))$", re.M)
"""Lines in which pytest, its argument parser, a traceback and the runner say what is wrong."""


def told_reason(exit_code: int, output: str) -> str:
    """One line of what pytest printed, the one that tells most."""
    lines = [line.strip("= \r") for line in output.splitlines() if line.strip("= \r")]
    if exit_code == 5:
        deselected = re.search(r"\d+ deselected", lines[-1]) if lines else None
        return "nothing was collected" + (f" ({deselected[0]})" if deselected else "")
    told = _TELLING.search(output)
    if told is None:
        return lines[0] if lines else "collection failed"
    found = next(group for group in told.groups() if group)
    return f"errors while collecting, the first: {found}" if told[3] else found

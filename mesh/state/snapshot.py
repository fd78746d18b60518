"""The state as bytes and back: what a snapshot of the log holds, and what two voters compare.

Canonical: equal states give equal bytes, whatever history led to them. Only what can't be computed again is written
(leases of a run, counts, nonces and the per-test arrays come from the rest), so a snapshot can't contradict itself.
"""

import hashlib
import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import cbor2

from mesh.state import dependencies, holdings, ranges, verdicts
from mesh.state.completions import SavedCompletion, restore_completion, save_completion
from mesh.state.dependencies import Barriers
from mesh.state.model import (
    NO_LEASE,
    Alert,
    Claimed,
    Completion,
    CoordinatorState,
    Failure,
    Lease,
    Pin,
    Run,
    RunPhase,
    RunSummary,
    Worker,
)
from protocols.alerts import Quarantine
from protocols.codec import decode, encode, encode_parts, encode_sequence_head, message
from protocols.commands import TaskRange
from protocols.errors import RemoteProtocolError
from protocols.ids import Cid, LeaseId, PeerId, RunId
from protocols.manifests import Companion, Dependency, Device, Needs, RunSpec
from protocols.raft import LOG_FORMAT_NEWEST, LOG_FORMAT_OLDEST, Snapshot
from protocols.snapshots import MeshSnapshot, pack

_VERSIONED = b"\x83" + cbor2.dumps("s.versioned")
"""How an encoded `Versioned` begins: an array of three, its tag."""


@message("s.run", later=5)
class SavedRun:
    id: RunId
    nonce: bytes
    spec: RunSpec
    submitted_at: float
    phase: RunPhase
    manifest: Cid | None
    tests: int
    requirements: tuple[tuple[str, str], ...]
    pending: tuple[TaskRange, ...]
    attempts: bytes
    retried: tuple[tuple[int, int], ...]
    chunks: tuple[SavedCompletion, ...]
    workers: tuple[PeerId, ...]
    collect_losses: int
    failure: Failure | None
    cancelled: str | None
    report: Cid | None
    exit_code: int | None
    reason: str
    finished_at: float | None
    cancel_code: int = 2
    preempted: tuple[tuple[int, int], ...] = ()
    needs: tuple[Needs, ...] = ()
    dependencies: tuple[Dependency, ...] = ()
    values: tuple[tuple[str, Cid], ...] = ()
    tries: tuple[SavedCompletion, ...] = ()


@message("s.claim")
class SavedClaim:
    name: str
    run: RunId
    worker: PeerId
    holder: int


@message("s.lease", later=3)
class SavedLease:
    id: LeaseId
    run: RunId
    worker: PeerId
    incarnation: int
    open: tuple[TaskRange, ...]
    collects: bool
    alone: bool
    devices: tuple[Device, ...] = ()
    hedges: LeaseId = NO_LEASE
    companions: tuple[Companion, ...] = ()


@message("s.worker")
class SavedWorker:
    peer: PeerId
    name: str
    incarnation: int
    slots: int
    registered: int
    losses: int


@message("s.state", later=4)
class SavedState:
    applied: int
    mesh: str
    yielded: str
    runs: tuple[SavedRun, ...]
    archive: tuple[RunSummary, ...]
    finished: tuple[RunId, ...]
    leases: tuple[SavedLease, ...]
    workers: tuple[SavedWorker, ...]
    claims: tuple[SavedClaim, ...] = ()
    pins: tuple[Pin, ...] = ()
    alerts: tuple[Alert, ...] = ()
    quarantine: tuple[Quarantine, ...] = ()


@message("s.versioned")
class Versioned:
    """From format 2 on: what a version that is too old can still read of a state, so that it can say so."""

    format: int
    state: bytes


STEP_COMPLETIONS = STEP_PINS = 256
"""Encoded between two looks at the clock: about a millisecond, or two."""


def encode_state(state: CoordinatorState) -> bytes:
    """The state, canonically, in the format that is in force."""
    captured = capture(state)
    return assembled(captured, encode_steps(captured))


@dataclass(frozen=True, slots=True)
class Capture:
    """The state as it was at one index, whatever is applied later: completions, which are nearly all of it, are values
    and shared; the rest is copied. Takes milliseconds where encoding a million tests takes a second."""

    format: int
    saved: SavedState
    """Its runs without their chunks."""
    chunks: tuple[tuple[Completion, ...], ...]
    """Of each of these runs."""


def capture(state: CoordinatorState) -> Capture:
    runs = [state.runs[run] for run in sorted(state.runs)]
    saved = SavedState(
        applied=state.applied,
        mesh=state.mesh,
        yielded=state.yielded,
        runs=tuple(_save_run(run) for run in runs),
        archive=tuple(state.archive.values()),
        finished=tuple(state.finished),
        leases=tuple(_save_lease(state.leases[lease]) for lease in sorted(state.leases)),
        workers=tuple(_save_worker(state.workers[peer]) for peer in sorted(state.workers)),
        claims=tuple(
            SavedClaim(name, held.run, held.worker, held.holder) for name, held in sorted(state.claims.items())
        ),
        pins=tuple(state.pins[root] for root in sorted(state.pins)),
        alerts=tuple(state.alerts[alert] for alert in sorted(state.alerts)),
        quarantine=tuple(state.quarantine[peer] for peer in sorted(state.quarantine)),
    )
    return Capture(state.format, saved, tuple(tuple(run.chunks) for run in runs))


def encode_steps(captured: Capture) -> Iterator[bytes]:
    """The encoding in pieces, so that others may have their turn in between; `assembled` makes it whole."""
    pins = captured.saved.pins
    parts = encode_parts(replace(captured.saved, runs=(), pins=pins[:1]))  # a field that says nothing may not be told
    before, between, after = _around(SavedState, ("runs", "pins"), parts)
    yield before + encode_sequence_head(len(captured.saved.runs))
    for run, chunks in zip(captured.saved.runs, captured.chunks, strict=True):
        yield from _run_steps(run, chunks)
    told = len(parts) > _place(SavedState, "pins")
    yield between + (encode_sequence_head(len(pins)) if told else b"")
    for start in range(0, len(pins), STEP_PINS):
        yield b"".join(map(encode, pins[start : start + STEP_PINS]))
    yield after


def assembled(captured: Capture, pieces: Iterable[bytes]) -> bytes:
    saved = b"".join(pieces)
    return saved if captured.format == 1 else encode(Versioned(captured.format, saved))


def _run_steps(run: SavedRun, chunks: Sequence[Completion]) -> Iterator[bytes]:
    before, after = _around(SavedRun, ("chunks",), encode_parts(run))
    yield before + encode_sequence_head(len(chunks))
    for start in range(0, len(chunks), STEP_COMPLETIONS):
        yield b"".join(encode(save_completion(done)) for done in chunks[start : start + STEP_COMPLETIONS])
    yield after


def _around(kind: type[Any], names: Sequence[str], parts: list[bytes]) -> list[bytes]:
    """What stands before, between and after fields of a message (named in their order), in its encoding."""
    places = [_place(kind, name) for name in names]
    starts = [0, *(place + 1 for place in places)]
    return [b"".join(parts[start:end]) for start, end in zip(starts, [*places, len(parts)], strict=True)]


def _place(kind: type[Any], name: str) -> int:
    """Of a field among the parts of a message: the first is its head."""
    return 1 + [field.name for field in fields(kind)].index(name)


def decode_state(data: bytes) -> CoordinatorState:
    """The state that `data` was made from; `RemoteProtocolError` for anything else."""
    saved = decode(data, SavedState, Versioned)
    version = saved.format if isinstance(saved, Versioned) else 1
    check_format(version)
    if isinstance(saved, Versioned):
        saved = decode(saved.state, SavedState)
    try:
        state = _restore(saved)
        state.format = version
        return state
    except (ValueError, IndexError, KeyError, AssertionError) as error:
        raise RemoteProtocolError(f"a damaged snapshot of the state: {type(error).__name__}: {error}") from None


def snapshot_file(snapshot: Snapshot, mesh: str, on: PeerId, now: float, unconfirmed: int = 0) -> bytes:
    """The file of `mesh snapshot save`, taken on a node at a time."""
    return pack(
        MeshSnapshot(
            mesh=mesh,
            index=snapshot.index,
            term=snapshot.term,
            log_format=format_of(snapshot.data),
            voters=snapshot.configuration.voters,
            taken_at=now,
            taken_on=on,
            unconfirmed=unconfirmed,
            state=snapshot.data,
        )
    )


def format_of(data: bytes) -> int:
    """The format of an encoded state, from its first bytes."""
    if not data.startswith(_VERSIONED):
        return 1
    try:
        version = cbor2.load(io.BytesIO(data[len(_VERSIONED) :][:9]))  # an integer has at most nine
    except cbor2.CBORDecodeError:
        return 1
    return version if type(version) is int else 1


def check_format(version: int) -> None:
    """`RemoteProtocolError` for a log format that this version does not read."""
    if not LOG_FORMAT_OLDEST <= version <= LOG_FORMAT_NEWEST:
        raise RemoteProtocolError(
            f"the log is in format {version}, and this version reads {LOG_FORMAT_OLDEST} to {LOG_FORMAT_NEWEST}"
        )


def state_hash(state: CoordinatorState) -> str:
    """SHA-256 of the state, in hexadecimal: equal on every voter at the same index."""
    return hashlib.sha256(encode_state(state)).hexdigest()


def _save_run(run: Run) -> SavedRun:
    return SavedRun(
        id=run.id,
        nonce=run.nonce,
        spec=run.spec,
        submitted_at=run.submitted_at,
        phase=run.phase,
        manifest=run.manifest,
        tests=run.tests,
        requirements=run.requirements,
        pending=tuple(run.pending),
        attempts=bytes(run.attempts),
        retried=tuple(sorted(run.retried.items())),
        chunks=(),
        workers=tuple(run.workers),
        collect_losses=run.collect_losses,
        failure=run.failure,
        cancelled=run.cancelled,
        cancel_code=run.cancel_code,
        values=tuple(sorted(run.values.items())),
        report=run.report,
        exit_code=run.exit_code,
        reason=run.reason,
        finished_at=run.finished_at,
        preempted=tuple(sorted(run.preempted.items())),
        needs=run.needs,
        dependencies=run.barriers.dependencies if run.barriers else (),
        tries=tuple(map(save_completion, run.tries)),
    )


def _save_lease(lease: Lease) -> SavedLease:
    return SavedLease(
        lease.id,
        lease.run,
        lease.worker,
        lease.incarnation,
        tuple(lease.open),
        lease.collects,
        lease.alone,
        lease.devices,
        lease.hedges,
        lease.companions,
    )


def _save_worker(worker: Worker) -> SavedWorker:
    return SavedWorker(worker.peer, worker.name, worker.incarnation, worker.slots, worker.registered, worker.losses)


def _restore(saved: SavedState) -> CoordinatorState:
    state = CoordinatorState(applied=saved.applied, mesh=saved.mesh, yielded=saved.yielded)
    for worker in saved.workers:
        state.workers[worker.peer] = Worker(
            worker.peer, worker.name, worker.incarnation, worker.slots, worker.registered, worker.losses
        )
    for run in saved.runs:
        state.runs[run.id] = _restore_run(run)
        state.nonces[run.nonce] = run.id
    for summary in saved.archive:
        state.archive[summary.id] = summary
        state.nonces[summary.nonce] = summary.id
    state.finished = list(saved.finished)
    for item in saved.leases:
        lease = Lease(
            id=item.id,
            run=item.run,
            worker=item.worker,
            incarnation=item.incarnation,
            open=list(item.open),
            collects=item.collects,
            alone=item.alone,
            devices=item.devices,
            hedges=item.hedges,
            companions=item.companions,
        )
        state.leases[lease.id] = lease
        holder = state.runs[lease.run]
        holder.leases.append(lease.id)
        if lease.hedges:
            holder.hedges[lease.open[0].first] = lease.id
        else:
            holder.leased += ranges.size(lease.open)
        state.workers[lease.worker].leases.append(lease.id)
        for companion in lease.companions:
            state.workers[companion.worker].hosted.append(lease.id)
        holdings.take(state, lease)
    state.claims = {item.name: Claimed(item.run, item.worker, item.holder) for item in saved.claims}
    state.pins = {pin.root: pin for pin in saved.pins}
    state.alerts = {alert.id: alert for alert in saved.alerts}
    state.quarantine = {held.worker: held for held in saved.quarantine}
    return state


def _restore_run(saved: SavedRun) -> Run:
    run = Run(
        id=saved.id,
        nonce=saved.nonce,
        spec=saved.spec,
        submitted_at=saved.submitted_at,
        phase=saved.phase,
        manifest=saved.manifest,
        requirements=saved.requirements,
        needs=saved.needs,
        barriers=Barriers(saved.dependencies) if saved.dependencies else None,
        pending=ranges.TaskList(saved.pending),
        retried=dict(saved.retried),
        preempted=dict(saved.preempted),
        workers=list(saved.workers),
        collect_losses=saved.collect_losses,
        failure=saved.failure,
        cancelled=saved.cancelled,
        cancel_code=saved.cancel_code,
        values=dict(saved.values),
        report=saved.report,
        exit_code=saved.exit_code,
        reason=saved.reason,
        finished_at=saved.finished_at,
    )
    if len(saved.attempts) != saved.tests:
        raise ValueError(f"run {saved.id} has {saved.tests} tests, and attempts of {len(saved.attempts)}")
    if dependencies.problem(saved.dependencies, saved.tests):
        raise ValueError(f"run {saved.id} has dependencies that it can't have")
    verdicts.open_book(run, saved.tests)
    run.attempts = bytearray(saved.attempts)
    for chunk in saved.chunks:
        verdicts.enter_completion(run, restore_completion(chunk))
    for tried in saved.tries:
        verdicts.enter_tries(run, restore_completion(tried))
    return run

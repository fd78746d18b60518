"""What a slot reports, or leaves behind when it dies, as records. Pure.

Bounds: whatever comes from a slot is cut here again; a slot is a process in which foreign code runs.
"""

import base64
import contextlib
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mesh.ports import CollectionFailed, Finished, WorkItem
from mesh.worker.limits import TEARDOWN_SECONDS_MAX
from mesh.worker.pytest_side import telling, wire
from mesh.worker.reading import SlotInputs
from protocols.ids import PeerId
from protocols.manifests import Outcome, Phase, Record

PHASES_MAX = 50

DEVICES = "CUDA_VISIBLE_DEVICES"
"""Of the variables that name a lease's devices, the one that always does."""
DEVICES_PROPERTY = "mesh.device"
"""Of a record, with their names."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a test ran."""

    worker: PeerId
    slot: int


def passed(item: WorkItem, place: Place, numbers: Sequence[float]) -> Record:
    """From (start, setup, call, teardown)."""
    started, setup, call, teardown = numbers
    return Record(
        test=item.id,
        outcome=Outcome.PASSED,
        duration=setup + call + teardown,
        started=started,
        worker=place.worker,
        slot=place.slot,
        attempt=item.attempt,
        phases=(Phase("setup", "passed", setup), Phase("call", "passed", call), Phase("teardown", "passed", teardown)),
        properties=_devices(item),
    )


def reported(item: WorkItem, place: Place, result: Mapping[str, Any]) -> Record:
    """From a slot's JSON object; `ValueError` or `TypeError` if it is none of ours."""
    phases = _phases(result.get("phases", ()), PHASES_MAX)
    return Record(
        test=item.id,
        outcome=Outcome(result["outcome"]),
        duration=sum(phase.duration for phase in phases),
        started=float(result.get("started", 0.0)),
        worker=place.worker,
        slot=place.slot,
        attempt=item.attempt,
        phases=phases,
        message=_text(result, "message"),
        longrepr=_text(result, "longrepr"),
        stdout=_text(result, "stdout"),
        stderr=_text(result, "stderr"),
        log=_text(result, "log"),
        dropped=int(result.get("dropped", 0)),
        signal=int(result.get("signal", 0)),
        properties=(
            *((str(name), str(value)) for name, value in result.get("properties", ())[: wire.PROPERTIES_MAX]),
            *_devices(item),
        ),
        warnings=tuple(
            wire.clip(str(text), wire.WARNING_BYTES_MAX)[0] for text in result.get("warnings", ())[: wire.WARNINGS_MAX]
        ),
        reruns=int(result.get("reruns", 0)),
        subtests=_phases(result.get("subtests", ()), wire.SUBTESTS_MAX),
        reports=_reports(result),
    )


def _devices(item: WorkItem) -> tuple[tuple[str, str], ...]:
    """What the test's lease held, as its process was told."""
    named = dict(item.variables).get(DEVICES)
    return ((DEVICES_PROPERTY, named),) if named else ()


def finished(item: WorkItem, place: Place, frame: wire.Frame, inputs: SlotInputs) -> Finished:
    """From a slot's "P" or "J" frame."""
    if frame[0] == "P":
        return Finished(item.lease, item.index, passed(item, place, frame[2:]), inputs=inputs.take(int(frame[1])))
    told = frame[1]
    artifacts = Path(told["artifacts"]) if "artifacts" in told else None
    return Finished(item.lease, item.index, reported(item, place, told), artifacts, inputs.take(int(told["key"])))


def _phases(entries: Sequence[Any], most: int) -> tuple[Phase, ...]:
    return tuple(Phase(str(name), str(outcome), float(seconds)) for name, outcome, seconds in entries[:most])


def _reports(result: Mapping[str, Any]) -> bytes:
    data = base64.b64decode(result.get("reports", ""), validate=True)
    return data if len(data) <= telling.PACK_BYTES_MAX else b""


def _text(result: Mapping[str, Any], name: str) -> str:
    value = result.get(name, "")
    if not isinstance(value, str):
        raise TypeError(f"{name} is {type(value).__name__}")
    return wire.clip(value, 2 * wire.OUTPUT_BYTES_MAX)[0]


@dataclass(frozen=True, slots=True)
class Remains:
    """What a dead slot leaves."""

    status: int
    """Exit code; negative: the signal that killed it."""
    stdout: str
    stderr: str
    stacks: str
    """What faulthandler wrote, if anything."""
    dropped: int


def died(item: WorkItem, place: Place, started: float, seconds: float, remains: Remains, limit: float) -> Record:
    """The verdict of the test that a slot died of. `limit` > 0: it was killed after so many seconds.

    A test that takes too long has failed, as with pytest-timeout; one that takes its process down is an error.
    """
    if limit > 0:
        outcome, message = Outcome.FAILED, f"timed out after {limit:g} s"
    elif remains.status < 0:
        outcome, message = Outcome.ERROR, f"the test process died: {signal_name(-remains.status)}"
    else:
        outcome, message = Outcome.ERROR, f"the test process died: exit code {remains.status}"
    return Record(
        test=item.id,
        outcome=outcome,
        duration=seconds,
        started=started,
        worker=place.worker,
        slot=place.slot,
        attempt=item.attempt,
        phases=(Phase("call", outcome.value, seconds),),
        properties=_devices(item),
        message=message,
        longrepr=message + ("\n\n" + stacks(remains.stacks) if remains.stacks else ""),
        stdout=remains.stdout,
        stderr=remains.stderr,
        dropped=remains.dropped,
        signal=max(0, -remains.status) if limit <= 0 else 0,
    )


def undone(item: WorkItem, place: Place, started: float, message: str, output: str = "") -> Record:
    """The error of a test that could not even begin."""
    return Record(
        test=item.id,
        outcome=Outcome.ERROR,
        duration=0.0,
        started=started,
        worker=place.worker,
        slot=place.slot,
        attempt=item.attempt,
        message=message[: wire.MESSAGE_CHARS_MAX],
        longrepr=wire.clip(f"{message}\n\n{output}".strip())[0],
    )


def broken_ending(status: int | None) -> str:
    """What is told of a process that did not come to the end of its last teardowns."""
    if status is None:
        return f"fixtures that outlive a test were not torn down within {TEARDOWN_SECONDS_MAX:g} s"
    how = signal_name(-status) if status < 0 else f"exit code {status}"
    return f"the test process died as it tore down the fixtures that outlive a test: {how}"


def collection_failed(code: int, stdout: str, stderr: str) -> CollectionFailed:
    if code == 4 and stderr.strip():
        return CollectionFailed(4, stderr.strip())
    output = "\n".join(part for part in (stdout.strip(), stderr.strip()) if part)
    if code in (2, 4, 5):
        return CollectionFailed(code, output)
    if code == 1 and "No module named 'pytest'" in stderr:
        return CollectionFailed(4, "the suite's environment has no pytest")
    how = signal_name(-code) if code < 0 else f"exit code {code}"
    return CollectionFailed(2, f"the collecting process died: {how}\n{output}")


def stacks(text: str) -> str:
    """faulthandler's dump without the headline that names the signal, which may be our own."""
    head, _, rest = text.partition("\n")
    return rest.strip() if head.startswith("Fatal Python error") else text.strip()


def signal_name(number: int) -> str:
    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"

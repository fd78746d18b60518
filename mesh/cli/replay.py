"""`mesh replay CID [TEST]`: what a record tells of its test, run again.

A record links its origin: the spec that its worker was told (bundle, arguments, variables, Python), the list of tests,
the environment and the seeds. So a replay needs a record, or the report that holds it, and whoever has the bundle. It
is a run like any other; at its end the outcomes are compared, and so are the environments, where they differ.
"""

import argparse
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from mesh.api.checks import parse_cid
from mesh.cli.client import Client
from mesh.cli.companion import home_for_once
from mesh.cli.follow import follow
from mesh.cli.output import print_json
from mesh.cli.progress import MODES
from mesh.cli.results import report_of
from mesh.cli.run import NONCE_BYTES
from mesh.cli.session import connect
from mesh.cli.signals import termination_interrupts
from mesh.cli.summary import read_report
from mesh.content.unixfs.cid import DAG_CBOR
from mesh.content.unixfs.cid import parse_cid as split_cid
from mesh.state.verify import SEAL_FILE, record_cid
from mesh.views.documents import spec_document
from protocols.codec import decode, encode
from protocols.errors import MeshError, MeshFailed, RemoteProtocolError, UsageError
from protocols.ids import Cid
from protocols.manifests import Chunk, EnvironmentInfo, Origin, Record, Seal, Selection

HELP = """Run a recorded test again from its record alone, or a whole report: the same bundle, arguments, order and
seeds, and as far as it can be had the same environment. CID is that of a report or of a record; TEST one of the
report's tests. The exit code is that of the new run; whether the outcomes are as recorded is its last line."""

DIFFERENCES_MAX = 20
"""Told one by one; of the others their number."""

M = TypeVar("M", Seal, Origin, Chunk, Record)


@dataclass(frozen=True, slots=True)
class Recorded:
    """What is run again."""

    origin: Origin
    outcomes: Mapping[str, str]
    """By test; those of them that have a verdict."""
    whole: bool
    """All of the run's tests, rather than these alone."""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("report", metavar="CID|RUN", help="a report, or a record")
    parser.add_argument("test", nargs="?", metavar="TEST", help="one of the report's tests; default: all of them")
    parser.add_argument("--progress", choices=MODES, default="auto", help="how to show progress")


def run(args: argparse.Namespace) -> int:
    client = connect(args)
    recorded = _recorded(client, args.report, args.test)
    _look_for(client, recorded.origin.spec.bundle)
    with home_for_once(client.home) as folder:
        spec = replay_spec(recorded)
        if not recorded.whole:
            (folder / "selection").write_bytes(encode(Selection(tuple(recorded.outcomes))))
            spec["selection"] = client.add(folder / "selection")
        submitted = client.submit(os.urandom(NONCE_BYTES), spec)
    with termination_interrupts():
        finished = follow(args, client, submitted, cancel=True)
    _compare(args, client, recorded, finished)
    return int(finished["exit_code"])


def replay_spec(recorded: Recorded) -> dict[str, Any]:
    """The spec of the new run, as `POST /api/runs` takes it."""
    origin = recorded.origin
    spec = spec_document(origin.spec)
    spec["variables"] = {**dict(origin.spec.variables), **dict(origin.variables)}
    spec |= {"after": [], "deadline": 0.0}  # both have been met; what earlier runs gave is among the variables
    spec |= {"cached": False, "cached_allow": []}
    spec.pop("trace", None)
    if not recorded.whole:
        spec |= {"selection": None, "maxfail": 0}
    if origin.environment is not None and not (origin.spec.prefers or origin.spec.python):
        spec["prefers"] = f"python == {origin.environment.python}"
    return spec


def differences(
    recorded: EnvironmentInfo, now: EnvironmentInfo, before: Sequence[str], after: Sequence[str]
) -> list[str]:
    """In words; `before` and `after` are the installed distributions, a line "name version" each."""
    told = [
        f"{name} {getattr(recorded, name)} -> {getattr(now, name)}"
        for name in ("kind", "implementation", "python", "platform")
        if getattr(recorded, name) != getattr(now, name)
    ]
    versions = [dict(line.split(" ", 1) for line in lines if " " in line) for lines in (before, after)]
    for name in sorted(versions[0].keys() | versions[1].keys()):
        old, new = (one.get(name, "(not installed)") for one in versions)
        if old != new:
            told.append(f"{name} {old} -> {new}")
    if not told and recorded.digest != now.digest:
        told.append(f"what it is made from: {recorded.digest} -> {now.digest}")
    return told


# What was recorded


def _recorded(client: Client, what: str, test: str | None) -> Recorded:
    if what.isdigit():
        what = report_of(client, what)
    try:
        cid = parse_cid(what)
    except UsageError:
        raise UsageError(f"{what[:80]!r} is neither a report's nor a record's CID (bafy…), nor a run") from None
    if split_cid(cid)[0] == DAG_CBOR:
        if test is not None:
            raise UsageError(f"{cid} is a record, of one test: name no other beside it")
        return _of_record(client, _decoded(client, cid, "", Record))
    try:
        seal = _decoded(client, cid, SEAL_FILE, Seal)
    except UsageError:
        raise UsageError(
            f"{cid} can't be replayed: it is no report, or one of a version before {SEAL_FILE} was part of it"
        ) from None
    entries = read_report(client, cid)["tests"]
    if test is None:
        if not seal.origins:
            raise UsageError(f"no test of {cid} ran anywhere: there is nothing to run again")
        origin = _decoded(client, cid, "origins/0.cbor", Origin)
        return Recorded(origin, {entry["test"]: entry["outcome"] for entry in entries}, whole=True)
    found = next((entry for entry in entries if entry["test"] == test), None)
    if found is None:
        raise UsageError(f"{test[:200]!r} is none of the tests of {cid} (its report.json names them)")
    if found["record"] is None:
        raise UsageError(f"the record of {test} was lost with the nodes that held it")
    return _of_record(client, _record_of(client, cid, seal, found["record"]))


def _look_for(client: Client, bundle: Cid) -> None:
    """Bundles go before reports do: said at once, not when the coordinator has waited for it."""
    try:
        next(client.read(bundle), b"")
    except UsageError:
        return  # it is no file to be read, but here
    except MeshFailed as error:
        raise MeshFailed(f"what was tested is no longer to be had: {error}") from None


def _of_record(client: Client, record: Record) -> Recorded:
    if record.reused is not None:
        record = _decoded(client, record.reused, "", Record)  # that of the attempt whose verdict it is
    if record.origin is None:
        raise UsageError(f"the record of {record.test} does not say where it comes from: it ran nowhere, or long ago")
    origin = _decoded(client, record.origin, "", Origin)
    return Recorded(origin, {record.test: record.outcome.value}, whole=False)


def _record_of(client: Client, report: Cid, seal: Seal, cid: str) -> Record:
    for number in range(seal.chunks):
        for data in _decoded(client, report, f"chunks/{number:06d}.cbor", Chunk).records:
            if record_cid(data) == cid:
                return decode(data, Record)
    raise MeshFailed(f"the record {cid} is not in the report {report}: `mesh verify` tells more")


def _decoded(client: Client, cid: str, path: str, kind: type[M]) -> M:
    data = b"".join(client.read(cid, path))
    try:
        return decode(data, kind)
    except RemoteProtocolError as error:
        name = f"{cid}/{path}" if path else cid
        raise UsageError(f"{name} is not what a record or report has there: {error}") from None


# What came of it


def _compare(args: argparse.Namespace, client: Client, recorded: Recorded, finished: dict[str, Any]) -> None:
    """The last line: whether it went as recorded."""
    report = finished.get("report")
    outcomes = {entry["test"]: entry["outcome"] for entry in read_report(client, report)["tests"]} if report else {}
    changed = {
        test: (before, outcomes.get(test, "without a verdict"))
        for test, before in recorded.outcomes.items()
        if outcomes.get(test) != before
    }
    environment = list(_environments(client, recorded.origin, report)) if report else []
    if args.json:
        told = [{"test": test, "recorded": old, "outcome": outcomes.get(test)} for test, (old, _) in changed.items()]
        print_json(
            {"event": "replayed", "run": finished["run"], "same": not changed, "different": told,
             "environment": environment}
        )  # fmt: skip
        return
    for difference in environment[:DIFFERENCES_MAX]:
        print(f"environment: {difference}")
    if len(environment) > DIFFERENCES_MAX:
        print(f"environment: … and {len(environment) - DIFFERENCES_MAX} more differences")
    for test, (old, new) in list(changed.items())[:DIFFERENCES_MAX]:
        print(f"{test} was {old}, is {new}")
    total = len(recorded.outcomes)
    if changed:
        print(f"replay: {len(changed)} of {total} outcomes differ from those recorded")
    else:
        print(f"replay: {'the outcome is' if total == 1 else f'all {total} outcomes are'} as recorded")


def _environments(client: Client, origin: Origin, report: str) -> Iterator[str]:
    """What differs, each thing once."""
    seal = _decoded(client, report, SEAL_FILE, Seal)
    told: dict[str, None] = {}
    try:
        before = _distributions(client, origin.environment)
        for number in range(seal.origins):
            now = _decoded(client, report, f"origins/{number}.cbor", Origin).environment
            if origin.environment is not None and now is not None:
                told |= dict.fromkeys(differences(origin.environment, now, before, _distributions(client, now)))
    except MeshError as error:
        told[f"what was installed can't be compared: {error}"] = None
    yield from told


def _distributions(client: Client, environment: EnvironmentInfo | None) -> list[str]:
    if environment is None or environment.distributions is None:
        return []
    return b"".join(client.read(environment.distributions)).decode(errors="replace").splitlines()

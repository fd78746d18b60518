"""`mesh verify CID|RUN|DIR`: whether a report is what its workers and its coordinator signed.

The node brings the report here, every block checked; this command hashes the files again, and believes the node nothing
but who belongs to its mesh. A directory that `mesh results`, or `ipfs get`, wrote is checked without any node.
"""

import argparse
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mesh.api.checks import parse_cid
from mesh.cli.client import Client
from mesh.cli.companion import home_for_once
from mesh.cli.output import print_document
from mesh.cli.results import report_of
from mesh.cli.session import connect, find
from mesh.net.identity import is_signed_by
from mesh.state.verify import SEAL_FILE, Files, Findings, verify
from protocols.errors import MeshError, StorageError, UsageError
from protocols.ids import PeerId

HELP = """Check a report: the hashes of all that is in it, the signatures of those who ran its tests and of who closed
it, that every test has one verdict, and that its documents agree."""

EXIT_WRONG = 1


@dataclass(frozen=True, slots=True)
class _Mesh:
    """Whom the node knows."""

    peers: Mapping[str, str] = field(default_factory=dict)
    """Peer -> name."""
    reports: Mapping[str, str] = field(default_factory=dict)
    """CIDs of the reports that the mesh's log names -> run."""


PAGES = ("report.html", "summary.md")
"""What `mesh results` makes of a report beside it: no part of it, and signed by nobody."""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("report", metavar="CID|RUN|DIR")
    parser.add_argument(
        "--trust", action="append", default=[], metavar="PEER", help="a coordinator of another mesh whose seal is good"
    )


def run(args: argparse.Namespace) -> int:
    cid, directory = None, _directory(args.report)
    if directory is not None:
        mesh, findings = _mesh(find(args)), _verify(directory)
    else:
        client = connect(args)
        cid = report_of(client, args.report) if args.report.isdigit() else parse_cid(args.report)
        mesh = _mesh(client)
        findings = _fetched(client, cid)
    if findings.seal is not None:
        _judge(findings, mesh, cid, args.trust)
    if args.json:
        print_document(_document(findings, mesh, cid))
    else:
        _print(findings, mesh, cid or args.report)
    return EXIT_WRONG if findings.problems else 0


def _directory(text: str) -> Path | None:
    """The one that is named; None for a run or a CID."""
    if text.isdigit():
        return None
    try:
        parse_cid(text)
    except UsageError:
        if Path(text).is_dir():
            return Path(text)
        expected = "a run (a number), a report's CID (bafy…) or a report's directory"
        raise UsageError(f"{text[:80]!r} is none of these: {expected}") from None
    return None


def _mesh(client: Client | None) -> _Mesh:
    if client is None:
        return _Mesh()
    nodes = {node["peer"]: node["name"] for node in client.get("/api/status")["nodes"]}
    runs = client.get("/api/runs")["runs"]
    return _Mesh(nodes, {run["report"]: run["run"] for run in runs if run.get("report")})


def _fetched(client: Client, cid: str) -> Findings:
    """What is found in the report's files, which are here meanwhile."""
    with home_for_once(client.home) as folder:
        target = folder / "report"
        try:
            client.post("/api/checkout", {"cid": cid, "target": str(target)})
        except MeshError as error:
            if error.exit_code != StorageError.exit_code:
                raise
            return Findings([str(error)])
        if not target.is_dir():
            raise UsageError(f"{cid} is a file, not a report's directory")
        return _verify(target, cid)


def _verify(directory: Path, cid: str | None = None) -> Findings:
    found = [path for path in sorted(directory.iterdir()) if path.name not in (SEAL_FILE, *PAGES)]
    entries = {path.name: _hash(path) for path in found}
    findings = verify(_files(directory, entries), is_signed_by)
    if cid is not None:
        whole = _hash(directory)
        if whole != cid:
            findings.wrong(f"what the node gave hashes to {whole}: other content, or not laid out as the mesh does it")
    return findings


def _files(directory: Path, entries: Mapping[str, Any]) -> Files:
    return Files(
        entries=entries,
        seal=_read(directory / SEAL_FILE),
        report=_read(directory / "report.json"),
        manifest=_read(directory / "manifest.cbor"),
        junit=_suite(directory / "junit.xml"),
        chunks=_all(directory, "chunks"),
        origins=_all(directory, "origins"),
        lines=_all(directory, "records"),
    )


def _hash(path: Path) -> Any:
    """The CID that a file or directory has, whatever the node says."""
    from mesh.content.adding import Adder

    return Adder(lambda blocks: None, {}).add(path, None).cid


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if _is_file(path) else None


def _is_file(path: Path) -> bool:
    """A report's own documents are no links, which might lead anywhere."""
    return path.is_file() and not path.is_symlink()


def _all(directory: Path, name: str) -> Iterator[tuple[str, bytes]]:
    folder = directory / name
    for path in sorted(folder.iterdir()) if folder.is_dir() and not folder.is_symlink() else ():
        if _is_file(path) and path.suffix in (".cbor", ".jsonl"):
            yield f"{name}/{path.name}", path.read_bytes()


def _suite(path: Path) -> Mapping[str, str] | None:
    """The suite's attributes, which stand at the beginning."""
    try:
        with path.open("rb") as file:
            for _, element in ElementTree.iterparse(file, ["start"]):
                if element.tag == "testsuite":
                    return dict(element.attrib)
    except (OSError, ElementTree.ParseError):
        pass
    return None


def _judge(findings: Findings, mesh: _Mesh, cid: str | None, trusted: list[str]) -> None:
    """Whether the coordinator's word counts here."""
    assert findings.seal is not None
    coordinator = findings.seal.coordinator
    if coordinator in trusted or coordinator in mesh.peers or cid in mesh.reports:
        return
    if mesh.peers:
        findings.wrong(f"it was closed by {coordinator}, who is no node of this mesh (--trust, if you know better)")
    else:
        findings.notes.append(f"no node is here to say whether {coordinator}, who closed it, is to be trusted")


def _document(findings: Findings, mesh: _Mesh, cid: str | None) -> dict[str, Any]:
    seal = findings.seal
    names: Mapping[str, str] = {**{str(peer): name for peer, name in findings.names.items()}, **mesh.peers}
    return {
        "report": cid,
        "ok": not findings.problems,
        "run": str(seal.run) if seal else None,
        "tests": findings.tests,
        "counts": dict(findings.counts),
        "coordinator": {"peer": seal.coordinator, "name": names.get(seal.coordinator, "")} if seal else None,
        "closed": seal.closed if seal else None,
        "workers": _counted(findings.ran, names),
        "reused": findings.reused,
        "ran_nowhere": _counted(findings.nowhere, names),
        "problems": findings.problems,
        "more_problems": findings.more,
        "notes": findings.notes,
    }


def _print(findings: Findings, mesh: _Mesh, what: str) -> None:
    document = _document(findings, mesh, what)
    for problem in findings.problems:
        print(f"WRONG {problem}")
    if findings.more:
        print(f"WRONG … and {findings.more} more")
    for told in findings.notes:
        print(f"note: {told}")
    for worker in document["workers"]:
        print(f"{_tests(worker)} ran on {_who(worker)}, and the records are signed by it")
    for coordinator in document["ran_nowhere"]:
        print(f"{_tests(coordinator)} ran nowhere, as {_who(coordinator)} says, which coordinated then")
    if findings.seal is not None:
        print(f"run {document['run']} was closed by {_who(document['coordinator'])}")
    counts = ", ".join(f"{count} {outcome}" for outcome, count in findings.counts.items() if count)
    verdict = "does NOT hold what was signed" if findings.problems else "is what was signed"
    print(f"{what} {verdict}: {counts or 'no tests'}")


def _counted(by_peer: Mapping[PeerId, int], names: Mapping[str, str]) -> list[dict[str, Any]]:
    """Who has most first."""
    return [
        {"peer": peer, "name": names.get(peer, ""), "tests": count}
        for peer, count in sorted(by_peer.items(), key=lambda one: (-one[1], one[0]))
    ]


def _tests(one: Mapping[str, Any]) -> str:
    return f"{one['tests']:>6} test{'s' if one['tests'] != 1 else ''}"


def _who(one: Mapping[str, Any]) -> str:
    return f"{one['name']} ({one['peer']})" if one["name"] else str(one["peer"])

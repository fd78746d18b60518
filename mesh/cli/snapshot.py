"""`mesh snapshot`: what the mesh agreed on, as a file, and a new mesh out of one."""

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from mesh.cli.arguments import checked_home, output_path
from mesh.cli.output import note, print_document
from mesh.cli.session import find, home_of
from mesh.views import human
from protocols.errors import UsageError

HELP = """Save what the mesh agreed on (runs, verdicts, leases, workers) to a file, or found a new mesh from one.

  save     from the node that runs in --home, true at this moment on a majority; where none runs, from the log in --home
  restore  into a --home without a log, whose node founds a new mesh when it starts: under another name, so that it
           never mixes with nodes of the old one. Recorded verdicts are kept, open runs go on, leases are closed.

A snapshot names content (bundles, records, reports) and holds none: that stays in the blocks/ of the nodes, and open
runs need their bundle from one of them. What is lost is said in the runs' reports."""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=["save", "restore"])
    parser.add_argument("file", nargs="?", type=Path, metavar="FILE", help="of restore")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="of save")


def run(args: argparse.Namespace) -> int:
    if args.action == "save":
        if args.file is not None or args.output is None:
            raise UsageError("mesh snapshot save writes to the FILE of -o FILE")
        return _save(args)
    if args.file is None or args.output is not None:
        raise UsageError("mesh snapshot restore needs a FILE, and --home for what it founds")
    return _restore(args)


def _save(args: argparse.Namespace) -> int:
    path = output_path(args.output, ())
    client = find(args)
    data = client.snapshot() if client is not None else _of_stopped(home_of(args))
    from mesh.disk.rescue import read_bytes

    document = _document(*read_bytes(data, "what the node sent"))
    _write(path, data)
    if args.json:
        print_document({"file": str(path), "bytes": len(data), "live": client is not None, **document})
        return 0
    print(f"saved {path}: {_words(document)}")
    if document["unconfirmed"]:
        note(
            f"the node is stopped, and its last {human.entries(document['unconfirmed'])} may not have been "
            "confirmed by a majority; all are in the snapshot"
        )
    return 0


def _of_stopped(home: Path) -> bytes:
    from mesh.disk.log import LOG_FILE
    from mesh.disk.rescue import snapshot_of, stopped_log
    from mesh.net.identity import open_identity

    if not (home / LOG_FILE).exists():
        raise UsageError(f"no node runs in {home}, and it holds no log of a mesh: name the --home of a node")
    with open_identity(home) as identity, stopped_log(home, identity.peer_id) as log:
        return snapshot_of(log, time.time())


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all, readable by its owner only: it names what every project runs."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}-")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _restore(args: argparse.Namespace) -> int:
    from mesh.disk.rescue import read_snapshot, restore
    from mesh.net.identity import open_identity

    snapshot, state = read_snapshot(args.file)
    document = _document(snapshot, state)
    home = checked_home(home_of(args))
    with open_identity(home) as identity:
        mesh = restore(home, identity.peer_id, snapshot, state)
    if args.json:
        print_document(
            {"home": str(home), "peer": identity.peer_id, **document, "from": document["mesh"], "mesh": mesh}
        )
        return 0
    print(f"restored {_words(document)}")
    print(f"mesh {mesh} begins when its node starts: python node.py --home {home}")
    note("nodes of the old mesh join it only with a fresh home (or without their log.sqlite); one that still has its")
    note("log goes on with the old mesh beside this one. Content is not in a snapshot: open runs need it from a node.")
    return 0


def _document(snapshot: Any, state: Any) -> dict[str, Any]:
    from mesh.disk.rescue import run_counts

    return {
        "mesh": snapshot.mesh,
        "index": snapshot.index,
        "term": snapshot.term,
        "log_format": snapshot.log_format,
        "voters": list(snapshot.voters),
        "taken_at": snapshot.taken_at,
        "taken_on": snapshot.taken_on,
        "unconfirmed": snapshot.unconfirmed,
        **run_counts(state),
    }


def _words(document: dict[str, Any]) -> str:
    return (
        f"{human.plural(document['runs'], 'run')} ({document['open_runs']} open) with "
        f"{human.plural(document['verdicts'], 'verdict')}, mesh {human.mesh(document['mesh'])} at index "
        f"{document['index']} of term {document['term']}, {human.moment(document['taken_at'])}"
    )

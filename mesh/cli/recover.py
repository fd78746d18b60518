"""`mesh recover`: the last resort when a majority of the voters will never come back."""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from mesh.cli.output import is_terminal, note, painted, print_document
from mesh.cli.session import home_of
from mesh.views import human
from protocols.errors import UsageError

HELP = """Found the mesh anew from the log of one stopped node, when a majority of its voters is lost for ever.

Without --force-new-mesh it only shows what is there: do that on every survivor, and recover the one with the highest
term, and among those the highest index. What other nodes had recorded and this one had not is LOST for good: runs
submitted there are gone, tests whose verdicts were there run again.

The log becomes that of a new mesh with this node as its one voter; as it was it is kept beside it. Old voters that
return after all don't mix with it: they go on as the old mesh, until they are stopped and join with a fresh home.
If a majority can still be started, start it instead: nothing is lost then."""

ANSWER = "lose it"


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--force-new-mesh", action="store_true", help="do it")
    parser.add_argument("--yes", action="store_true", help="don't ask (needed where there is no terminal)")


def run(args: argparse.Namespace) -> int:
    from mesh.disk.log import LOG_FILE
    from mesh.disk.rescue import recover, stopped_log
    from mesh.net.identity import open_identity

    home = home_of(args)
    if args.yes and not args.force_new_mesh:
        raise UsageError("--yes answers what --force-new-mesh asks: give both")
    if not (home / LOG_FILE).exists():
        raise UsageError(f"{home} holds no log of a mesh: name the --home of a stopped node that was a member")
    with open_identity(home) as identity, stopped_log(home, identity.peer_id) as log:
        document = _document(log, home)
        if not args.json:
            print(_words(document))
        if args.force_new_mesh:
            _confirm(args, document)
            mesh, copy = recover(log)
            document |= {"recovered": True, "from": document["mesh"], "mesh": mesh, "kept": str(copy)}
    if args.json:
        print_document(document)
    elif args.force_new_mesh:
        print(f"\nmesh {document['mesh']} begins when its node starts: python node.py --home {home}")
        print(f"the log as it was is kept in {document['kept']}")
        note("never start two of the old nodes with their old homes now; let each join with a fresh one, or without")
        note("its log.sqlite (blocks/ may stay, and should: the content of open runs is there)")
    else:
        note("nothing was changed; --force-new-mesh founds a new mesh from this")
    return 0


def _confirm(args: argparse.Namespace, document: dict[str, Any]) -> None:
    others = [peer for peer in document["voters"] if peer != document["peer"]]
    warning = (
        f"WARNING: what the other {human.plural(len(others), 'voter')} had and this node had not is lost for good, and "
        "the mesh has another name from here on. If a majority can be started, start it instead."
    )
    note(painted(warning, "red", "bold"))
    if args.yes:
        return
    if args.json or not (sys.stdin.isatty() and is_terminal(sys.stdout)):
        raise UsageError("nothing was changed: without a terminal to ask on, --force-new-mesh needs --yes")
    if input(f"Type {ANSWER!r} to go on: ").strip() != ANSWER:
        raise UsageError("nothing was changed")


def _document(log: Any, home: Path) -> dict[str, Any]:
    from mesh.disk.log import LOG_FILE
    from mesh.disk.rescue import run_counts

    return {
        "recovered": False,
        "home": str(home),
        "peer": log.peer,
        "mesh": log.state.mesh,
        "index": log.index,
        "term": log.term,
        "unconfirmed": log.unconfirmed,
        "voters": list(log.configuration.voters),
        "learners": list(log.configuration.learners),
        "written_at": (home / LOG_FILE).stat().st_mtime,
        **run_counts(log.state),
    }


def _words(document: dict[str, Any]) -> str:
    me = document["peer"]
    age = max(0.0, time.time() - document["written_at"])
    role = "a voter" if me in document["voters"] else "a learner" if me in document["learners"] else "no member"
    voters = ", ".join(human.peer(peer) + (" (this node)" if peer == me else "") for peer in document["voters"])
    rows = [
        ("mesh", document["mesh"]),
        ("node", f"{human.peer(me)}, {role}; its log was last written {human.duration(age)} ago"),
        ("voters", voters),
        ("log", f"up to index {document['index']}, term {document['term']}"),
        ("unconfirmed", f"its last {human.entries(document['unconfirmed'])} may be of no majority; kept"),
        ("runs", f"{document['runs']}, {document['open_runs']} open, {human.plural(document['verdicts'], 'verdict')}"),
    ]
    return "\n".join(f"{name:<13}{text}" for name, text in rows if name != "unconfirmed" or document["unconfirmed"])

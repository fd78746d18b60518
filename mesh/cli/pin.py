"""`mesh pin add|rm|ls`: what the mesh, and this node, keeps whatever happens."""

import argparse
from typing import Any

from mesh.api.checks import parse_cid
from mesh.cli.arguments import checked, whole
from mesh.cli.output import print_document, say_whose
from mesh.cli.session import connect
from mesh.views.pins import pin_lines
from protocols.commands import REPLICAS_DEFAULT, REPLICAS_MAX
from protocols.errors import UsageError

HELP = "Keep content in the mesh: add a CID, rm a CID, ls what is kept, where and why."


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=["add", "rm", "ls"])
    parser.add_argument("cid", nargs="?", type=checked(parse_cid), metavar="CID")
    parser.add_argument(
        "--replicas",
        type=whole(1, REPLICAS_MAX),
        metavar="N",
        help=f"with add: nodes that keep it; default {REPLICAS_DEFAULT}, 1: this node alone",
    )


def run(args: argparse.Namespace) -> int:
    if (args.cid is None) != (args.action == "ls"):
        needs = "takes no CID" if args.action == "ls" else "needs a CID"
        raise UsageError(f"mesh pin {args.action} {needs}")
    if args.replicas is not None and args.action != "add":
        raise UsageError(f"mesh pin {args.action} takes no --replicas")
    client = connect(args)
    if args.action == "ls":
        document = client.get("/api/pins")
    elif args.action == "add":
        document = client.post("/api/pins", {"cid": args.cid, "replicas": args.replicas or REPLICAS_DEFAULT})
    else:
        document = client.delete(f"/api/pins/{args.cid}")
    if args.json:
        print_document(document)
    elif args.action == "ls":
        print("\n".join(pin_lines(document["pins"])))
        say_whose(document)
    else:
        print(_added(document) if args.action == "add" else _removed(document))
    return 0


def _added(document: dict[str, Any]) -> str:
    if "wanted" not in document:
        return f"pinned {document['cid']}"
    return f"pinned {document['cid']}, on {len(document['holders'])} of {document['wanted']} nodes so far"


def _removed(document: dict[str, Any]) -> str:
    ended = [text for text in document.get("ended", ()) if text != "user"]
    told = f"unpinned {document['cid']}" + (f": it was the {' and the '.join(ended)}" if ended else "")
    left = document.get("left")
    return f"{told}; still kept as the {' and the '.join(left)}" if left else told

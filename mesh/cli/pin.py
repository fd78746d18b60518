"""`mesh pin add|rm|ls`: what the node keeps whatever happens."""

import argparse

from mesh.api.checks import parse_cid
from mesh.cli.arguments import checked
from mesh.cli.output import print_document
from mesh.cli.session import connect
from protocols.errors import UsageError

HELP = "Keep content on the node: add a CID, rm a CID, ls what is kept and why."


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=["add", "rm", "ls"])
    parser.add_argument("cid", nargs="?", type=checked(parse_cid), metavar="CID")


def run(args: argparse.Namespace) -> int:
    if (args.cid is None) != (args.action == "ls"):
        needs = "takes no CID" if args.action == "ls" else "needs a CID"
        raise UsageError(f"mesh pin {args.action} {needs}")
    client = connect(args)
    if args.action == "ls":
        document = client.get("/api/pins")
    elif args.action == "add":
        document = client.post("/api/pins", {"cid": args.cid})
    else:
        document = client.delete(f"/api/pins/{args.cid}")
    if args.json:
        print_document(document)
    elif args.action == "ls":
        for pin in document["pins"]:
            print(f"{pin['cid']}  {pin['reason']}")
    else:
        print(f"{'pinned' if args.action == 'add' else 'unpinned'} {args.cid}")
    return 0

"""`mesh command NODE VERB`: the command channel of the mesh."""

import argparse

from mesh.cli.output import print_document
from mesh.cli.session import connect

HELP = "Tell a node (peer ID, the end of one, or name) to stop, restart, update or drain."

VERBS = ("stop", "restart", "update", "drain")
"""`protocols.work.CommandVerb`, without its imports."""


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("node", metavar="NODE")
    parser.add_argument("verb", choices=VERBS)


def run(args: argparse.Namespace) -> int:
    document = connect(args).post("/api/command", {"node": args.node, "verb": args.verb})
    if args.json:
        print_document(document)
    else:
        print(f"{args.node} is told to {args.verb}")
    return 0

"""`mesh raft`: the group that keeps the log."""

import argparse

from mesh.cli.output import print_document
from mesh.cli.session import connect
from protocols.errors import NoQuorum

HELP = """The group that keeps the log: its members, how far each is, and whether all is well.

Any node answers, as the coordinator sees it; where none can be reached, as the node itself does, and says so.
Exit code 0 with a quorum, 11 without."""


def configure(parser: argparse.ArgumentParser) -> None:
    pass


def run(args: argparse.Namespace) -> int:
    document = connect(args).get("/api/raft")
    if args.json:
        print_document(document)
    else:
        from mesh.views.raft import raft_text

        print(raft_text(document))
    return 0 if document["health"]["quorum"] else NoQuorum.exit_code

"""`mesh nodes`: who is here and what they can do."""

import argparse

from mesh.cli.output import print_document
from mesh.cli.session import connect

HELP = "List the nodes: role, state, slots and hardware."


def configure(parser: argparse.ArgumentParser) -> None:
    pass


def run(args: argparse.Namespace) -> int:
    document = connect(args).get("/api/status")
    if args.json:
        print_document({"nodes": document["nodes"]})
    else:
        from mesh.views.status import nodes_table

        print(nodes_table(document))
    return 0

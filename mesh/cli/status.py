"""`mesh status`: what goes on."""

import argparse
import sys

from mesh.cli.output import is_terminal, print_document
from mesh.cli.session import connect

HELP = "What goes on: who coordinates, which nodes are here, which runs are open."


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--watch", action="store_true", help="and go on showing it, until Ctrl-C")


def run(args: argparse.Namespace) -> int:
    if args.watch:
        from mesh.cli.mesh_watch import watch_mesh

        return watch_mesh(args)
    client = connect(args)
    document = client.get("/api/status")
    if args.json:
        print_document(document)
    else:
        from mesh.views.status import status

        print(status(document))
        if is_terminal(sys.stdout):  # the token lets in whoever has it
            print(f"\ndashboard {client.endpoint.url}/#token={client.endpoint.token}")
    return 0

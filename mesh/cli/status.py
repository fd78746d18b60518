"""`mesh status`: what goes on."""

import argparse

from mesh.cli.output import print_document
from mesh.cli.session import connect

HELP = "What goes on: who coordinates, which nodes are here, which runs are open."


def configure(parser: argparse.ArgumentParser) -> None:
    pass


def run(args: argparse.Namespace) -> int:
    document = connect(args).get("/api/status")
    if args.json:
        print_document(document)
    else:
        from mesh.views.status import status

        print(status(document))
    return 0

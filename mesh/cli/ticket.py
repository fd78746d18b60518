"""`mesh ticket`: the one line that lets a node join. A secret: printed when asked for, never logged."""

import argparse

from mesh.cli.output import print_document
from mesh.cli.session import connect

HELP = "Print the join ticket of the mesh: whoever has it can join."


def configure(parser: argparse.ArgumentParser) -> None:
    pass


def run(args: argparse.Namespace) -> int:
    document = connect(args).get("/api/ticket")
    if args.json:
        print_document(document)
    else:
        print(document["ticket"])
    return 0

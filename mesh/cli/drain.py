"""`mesh drain NODE`: `mesh command NODE drain`."""

import argparse

from mesh.cli import command

HELP = "Let a node finish what it runs, give back the rest, and leave."


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("node", metavar="NODE")
    parser.set_defaults(verb="drain")


def run(args: argparse.Namespace) -> int:
    return command.run(args)

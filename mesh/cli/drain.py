"""`mesh drain NODE`: `mesh command NODE drain`."""

import argparse

from mesh.cli import command

HELP = "Let a node finish what it runs, give back the rest, and take nothing more. It stays in the mesh."


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("node", metavar="NODE")
    parser.set_defaults(verb="drain")


def run(args: argparse.Namespace) -> int:
    return command.run(args)

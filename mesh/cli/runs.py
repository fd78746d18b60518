"""`mesh runs`: every run that the mesh remembers."""

import argparse

from mesh.cli.output import print_document, say_whose
from mesh.cli.session import connect

HELP = "List the runs, oldest first, with how they ended."


def configure(parser: argparse.ArgumentParser) -> None:
    pass


def run(args: argparse.Namespace) -> int:
    document = connect(args).get("/api/runs")
    if args.json:
        print_document(document)
    else:
        from mesh.views.status import runs_table

        print(runs_table(document["runs"]))
        say_whose(document)
    return 0

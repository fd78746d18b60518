"""`mesh visualize -o FILE`: one sheet of what the mesh did."""

import argparse
from pathlib import Path

from mesh.cli.arguments import output_path
from mesh.cli.output import print_document
from mesh.cli.session import connect

HELP = "Draw one sheet: task status, workers, durations, overall numbers."

SUFFIXES = (".png", ".svg")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", required=True)


def run(args: argparse.Namespace) -> int:
    path = output_path(args.output, SUFFIXES)
    document = connect(args).get("/api/overview")
    from mesh.views.render import draw_overview

    draw_overview(document, path)
    if args.json:
        print_document(document)
    else:
        print(path)
    return 0

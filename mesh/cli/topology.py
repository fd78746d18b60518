"""`mesh topology`: the mesh as a picture, or as a graph for other tools."""

import argparse
from pathlib import Path

from mesh.cli.arguments import output_path
from mesh.cli.output import print_document
from mesh.cli.session import connect
from mesh.cli.visualize import add_size

HELP = "Draw the mesh: its nodes, who coordinates, who is connected to whom and how fast."

SUFFIXES = (".png", ".svg", ".dot", ".graphml")


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: topology.png (none with --json)")
    add_size(parser)


def run(args: argparse.Namespace) -> int:
    wanted = args.output is not None or not args.json
    path = output_path(args.output or Path("topology.png"), SUFFIXES) if wanted else None
    document = connect(args).get("/api/topology")
    if path is not None:
        from mesh.views.render import draw_topology

        draw_topology(document, path, args.size)
    if args.json:
        print_document(document)
    else:
        from mesh.views.status import links_table

        print(links_table(document))
        print(f"\n{path}")
    return 0

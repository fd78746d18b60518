"""`mesh cat CID[/PATH]`: the bytes of a file, fetched from whoever has them."""

import argparse
import sys

from mesh.cli.arguments import content_path
from mesh.cli.session import connect
from protocols.errors import UsageError

HELP = "Print the bytes of a file by its CID, or by a directory's CID and a path in it."


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("content", type=content_path, metavar="CID[/PATH]")


def run(args: argparse.Namespace) -> int:
    if args.json:
        raise UsageError("mesh cat prints a file's bytes, and has no JSON to print")
    cid, path = args.content
    for piece in connect(args).read(cid, path):
        sys.stdout.buffer.write(piece)
    sys.stdout.buffer.flush()
    return 0

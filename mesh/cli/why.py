"""`mesh why RUN|TEST`: answered from the scheduler's own reasons, not from guesses."""

import argparse
from urllib.parse import quote

from mesh.cli.output import print_document
from mesh.cli.session import connect

HELP = "Say why a run or a test waits, or how it ended."


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", metavar="RUN|TEST")


def run(args: argparse.Namespace) -> int:
    document = connect(args).get(f"/api/why/{quote(args.target, safe='')}")
    if args.json:
        print_document(document)
    else:
        print("\n".join(document["explanation"]))
    return 0

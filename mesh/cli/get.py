"""`mesh get CID -o PATH`: a file or directory, every block verified, written whole or not at all."""

import argparse
import os
from pathlib import Path

from mesh.api.checks import parse_cid
from mesh.cli.arguments import checked
from mesh.cli.output import print_document
from mesh.cli.session import connect
from protocols.errors import UsageError

HELP = "Fetch a file or directory by its CID and write it to PATH (default: the CID, here)."


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("cid", type=checked(parse_cid), metavar="CID")
    parser.add_argument("-o", "--output", type=Path, metavar="PATH")


def run(args: argparse.Namespace) -> int:
    target = Path(os.path.abspath((args.output or Path(args.cid)).expanduser()))
    if not target.parent.is_dir():
        raise UsageError(f"there is no directory {target.parent} to write {target.name!r} into")
    if os.path.lexists(target) and not (target.is_dir() and not any(target.iterdir())):
        raise UsageError(f"{target} exists already; name a path that does not")
    document = connect(args).post("/api/checkout", {"cid": args.cid, "target": str(target)})
    if args.json:
        print_document(document)
    else:
        print(f"saved {args.cid} to {target}")
    return 0

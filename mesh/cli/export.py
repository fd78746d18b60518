"""`mesh export CID -o FILE.car`: content as one file that any IPFS tool reads, written whole or not at all."""

import argparse
import os
from pathlib import Path

from mesh.api.checks import parse_cid
from mesh.cli.arguments import checked, output_path
from mesh.cli.output import print_document
from mesh.cli.session import connect
from protocols.errors import UsageError

HELP = "Fetch all that is under a CID and write it to a CAR file (default: CID.car, here)."


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("cid", type=checked(parse_cid), metavar="CID")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE")


def run(args: argparse.Namespace) -> int:
    target = output_path(args.output or Path(f"{args.cid}.car"), ())
    if os.path.lexists(target):
        raise UsageError(f"{target} exists already; name a file that does not")
    document = connect(args).post("/api/export", {"cid": args.cid, "target": str(target)})
    if args.json:
        print_document(document)
    else:
        print(f"saved {args.cid} to {target} ({document['blocks']} blocks of {document['bytes']:,} bytes)")
    return 0

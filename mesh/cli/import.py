"""`mesh import FILE.car`: the content of a CAR file, every block checked, pinned on the node."""

import argparse
from pathlib import Path

from mesh.cli.output import print_document
from mesh.cli.session import connect
from protocols.errors import UsageError

HELP = "Take the blocks of a CAR file into the node's content, pin its roots, and print them."


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", type=Path, metavar="FILE")


def run(args: argparse.Namespace) -> int:
    path = args.path.expanduser()
    if not path.is_file():
        raise UsageError(f"there is no file {str(args.path)!r} to import")
    client = connect(args)
    found = client.post("/api/import", {"path": str(path.resolve())})
    for root in found["roots"]:
        if not root["whole"]:
            raise UsageError(
                f"{path} lacks blocks of its root {root['cid']}: what it has is kept for now, and not pinned"
            )
    roots = [root["cid"] for root in found["roots"]]
    for root in roots:
        client.post("/api/pins", {"cid": root, "replicas": 1})
    if args.json:
        print_document({"roots": roots, "blocks": found["blocks"], "bytes": found["bytes"], "path": str(path)})
    else:
        for root in roots:
            print(f"imported {root}")
    return 0

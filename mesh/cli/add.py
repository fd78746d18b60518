"""`mesh add PATH`: a file or directory as IPFS content, pinned on the node."""

import argparse
from pathlib import Path

from mesh.cli.output import print_document
from mesh.cli.session import connect
from protocols.errors import UsageError

HELP = "Add a file or directory to the node's content, pin it, and print its CID."


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", type=Path, metavar="PATH")


def run(args: argparse.Namespace) -> int:
    path = args.path.expanduser()
    if not path.exists():
        raise UsageError(f"there is no file or directory {str(args.path)!r} to add")
    client = connect(args)
    cid = client.post("/api/content", {"path": str(path.resolve()), "names": None})["cid"]
    client.post("/api/pins", {"cid": cid, "replicas": 1})
    if args.json:
        print_document({"cid": cid, "path": str(path)})
    else:
        print(f"added {cid} {path.resolve().name}")
    return 0

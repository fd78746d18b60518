"""`mesh link CID[/PATH]`: an address that a browser opens without the node's token."""

import argparse
from urllib.parse import quote

from mesh.api.checks import view_path
from mesh.cli.arguments import content_path
from mesh.cli.output import print_document
from mesh.cli.session import connect

HELP = "Print a link that shows content in a browser. It opens nothing else, and ends with the node's token."


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("content", type=content_path, metavar="CID[/PATH]")


def run(args: argparse.Namespace) -> int:
    cid, path = args.content
    endpoint = connect(args).endpoint
    url = f"{endpoint.url}{view_path(endpoint.token, cid)}/{quote(path, errors='surrogateescape')}"
    if args.json:
        print_document({"cid": cid, "path": path, "url": url})
    else:
        print(url)
    return 0

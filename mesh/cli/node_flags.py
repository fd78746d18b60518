"""The flags of `python node.py`, all checked before libp2p is loaded: a wrong one is answered at once, by name."""

import argparse
import os
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from mesh.alerting.config import load as load_alerts
from mesh.api.checks import parse_bind
from mesh.cli.arguments import Parser, checked, checked_home, default_home, seconds, slots, whole
from mesh.net.multiaddrs import parse_listen_address, parse_peer_address, split_address
from mesh.net.ticket import is_ticket, parse_ticket
from mesh.options import NodeOptions
from protocols.errors import UsageError
from protocols.presence import Role

LABELS_MAX = 64

_LABEL = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}\Z")


def parse(argv: Sequence[str]) -> tuple[NodeOptions, argparse.Namespace]:
    """What to run, and how to log (`log_format`, `log_level`)."""
    args = _parser().parse_args(argv)
    if args.worker_timeout <= args.heartbeat_interval:
        raise UsageError(
            f"--worker-timeout {args.worker_timeout:g} must be longer than --heartbeat-interval"
            f" {args.heartbeat_interval:g}: a worker that beats on time would be given up"
        )
    labels = dict(args.label)
    if len(labels) > LABELS_MAX:
        raise UsageError(f"{len(labels)} --label flags are given; {LABELS_MAX} are allowed")
    options = NodeOptions(
        home=checked_home(args.home or default_home()),
        role=Role(args.role),
        listen=tuple(args.listen),
        join=tuple(args.join),
        expect=args.expect,
        slots=args.slots,
        labels=labels,
        mdns=args.mdns,
        ipfs=args.ipfs,
        api=args.api,
        heartbeat_interval=args.heartbeat_interval,
        worker_timeout=args.worker_timeout,
        replica_grace=args.replica_grace,
        alerts=args.alerts,
        otlp=traces_to(args.otlp),
    )
    load_alerts(options.alerts, options.home)
    return options, args


def _parser() -> Parser:
    parser = Parser(prog="node.py", description="Start a node of the mesh; SIGTERM drains it, a second one ends it.")
    add = parser.add_argument
    add("--role", choices=[role.value for role in Role], default="auto", help="what this node is willing to do")
    add("--home", type=Path, metavar="DIR", help="state directory; default $MESH_HOME, else the user's state directory")
    add("--listen", type=checked(parse_listen_address), action="append", default=[], metavar="MULTIADDR")
    add(
        "--join",
        type=checked(parse_join),
        action="append",
        default=[],
        metavar="TICKET|MULTIADDR",
        help="mesh to join; @FILE: a ticket in a file",
    )
    add("--expect", type=whole(1, 1000), default=1, metavar="N", help="wait for N nodes before founding a mesh")
    add("--slots", type=slots, default=None, metavar="N|auto", help="tests at once; auto = physical cores")
    add("--label", type=checked(_label), action="append", default=[], metavar="KEY=VALUE", help="extra capability")
    add("--mdns", action=argparse.BooleanOptionalAction, default=True, help="look for nodes in the local network")
    add("--ipfs", type=checked(_ipfs), default="embedded", metavar="embedded|MULTIADDR", help="or a Kubo daemon's RPC")
    add("--api", type=checked(_api), default="127.0.0.1:0", metavar="HOST:PORT|off", help="HTTP API and dashboard")
    add("--heartbeat-interval", type=seconds, default=1.0, metavar="S")
    add("--worker-timeout", type=seconds, default=10.0, metavar="S", help="a worker silent for so long is given up")
    add("--replica-grace", type=seconds, default=60.0, metavar="S", help="content of a node gone so long is copied")
    add("--alerts", type=Path, metavar="FILE", help="rules and sinks of alerts; default alerts.toml in the home")
    add(
        "--otlp",
        type=checked(_url),
        default=None,
        metavar="URL",
        help="OpenTelemetry collector for traces of runs",
    )
    add("--log-format", choices=["text", "json"], default="text", help="of the logs on stderr")
    add("--log-level", choices=["debug", "info", "warning", "error"], type=str.lower, default="info")
    return parser


def parse_join(text: str) -> str:
    if text.startswith("@"):
        try:
            text = Path(text[1:]).read_text(encoding="ascii").strip()
        except (OSError, ValueError) as error:
            raise UsageError(f"the ticket's file {text[1:]!r} can't be read ({type(error).__name__})") from None
    if is_ticket(text):
        parse_ticket(text)
        return "".join(text.split())
    if not text.startswith("/"):
        raise UsageError(f"{text[:20]!r} is neither a ticket (mesh1…) nor a multiaddr (/ip4/192.0.2.1/tcp/4001/p2p/…)")
    return parse_peer_address(text)[1]


def _label(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals or not _LABEL.match(key) or len(value) > 256 or not value.isprintable():
        raise UsageError(f"{text[:80]!r} is not key=value")
    return key, value


def _ipfs(text: str) -> str:
    if text == "embedded":
        return text
    if not text.startswith("/"):
        raise UsageError(f"{text[:80]!r} is neither 'embedded' nor a multiaddr, such as /ip4/127.0.0.1/tcp/5001")
    split_address(text.removesuffix("/http"))
    return text


def traces_to(url: str | None) -> str | None:
    """Where traces go (`NodeOptions.otlp`): where the flag says, or else the environment."""
    from mesh.monitoring import otlp

    if url and not otlp.installed():
        raise UsageError(f"--otlp {url}: {otlp.MISSING}")
    return url if url else "" if otlp.asked_for(os.environ) else None


def _url(text: str) -> str:
    split = urlsplit(text)
    if split.scheme not in ("http", "https") or not split.hostname:
        raise UsageError(f"{text[:80]!r} is no address of a collector, such as http://127.0.0.1:4318")
    return text


def _api(text: str) -> str:
    if text != "off":
        parse_bind(text)
    return text

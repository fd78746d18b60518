"""`mesh alerts`: what the mesh noticed; with --ack, that somebody knows."""

import argparse
import getpass
import time
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from mesh.cli.output import painted, print_document, say_whose
from mesh.cli.session import connect
from mesh.views import human
from protocols.errors import UsageError

HELP = "Show what the mesh noticed that somebody should know: active alerts, and the newest past ones with --all."

PAST_SHOWN_MAX = 20

STYLES = {"info": "cyan", "warning": "yellow", "critical": "red"}


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--ack", metavar="ID", help="say that you know; a worker that it put into quarantine is let out"
    )
    parser.add_argument("--by", metavar="NAME", help="with --ack: who knows; default this user")
    parser.add_argument("--all", action="store_true", help="also those that are over")


def run(args: argparse.Namespace) -> int:
    if args.by is not None and args.ack is None:
        raise UsageError("mesh alerts takes --by with --ack only")
    client = connect(args)
    if args.ack is not None:
        by = args.by or _user()
        document = client.post(f"/api/alerts/{quote(args.ack, safe='')}/acknowledge", {"by": by})
        if args.json:
            print_document(document)
        else:
            print(f"alert {document['id']} is acknowledged by {document['acknowledged_by']}")
        return 0
    document = client.get("/api/alerts")
    if args.json:
        print_document(document)
        return 0
    print(
        "\n".join(_lines(document["alerts"], args.all, time.time()) + _quarantine(document["quarantine"], time.time()))
    )
    say_whose(document)
    return 0


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "somebody"


def _lines(alerts: Sequence[Mapping[str, Any]], past: bool, now: float) -> list[str]:
    active = [alert for alert in alerts if alert["cleared_at"] is None]
    lines = [line for alert in active for line in _alert(alert, now)] or ["all is quiet"]
    if past:
        over = [alert for alert in alerts if alert["cleared_at"] is not None][:PAST_SHOWN_MAX]
        lines += (
            ["", "over:", *(f"  {_head(alert)}, {_ago(alert['cleared_at'], now)}" for alert in over)] if over else []
        )
    return lines


def _alert(alert: Mapping[str, Any], now: float) -> list[str]:
    known = f"; {alert['acknowledged_by']} knows" if alert["acknowledged_by"] else ""
    lines = [f"{_head(alert)}, since {_ago(alert['since'], now)}{known}"]
    return [*lines, *(f"    {human.clean(text)}" for text in (alert["detail"], alert["help"]) if text)]


def _head(alert: Mapping[str, Any]) -> str:
    severity = alert["severity"]
    return f"{alert['id']:>6}  {painted(f'{severity:<8}', STYLES[severity])}  {human.clean(alert['summary'])}"


def _ago(at: float, now: float) -> str:
    return f"{human.duration(max(0.0, now - at))} ago"


def _quarantine(held: Sequence[Mapping[str, Any]], now: float) -> list[str]:
    return [
        f"{one['name'] or one['worker']} is in quarantine for {human.duration(max(0.0, one['until'] - now))} more:"
        f" `mesh alerts --ack {one['alert']}` lets it out"
        for one in held
    ]

"""How a sink is told: each function blocks, for at most `SINK_SECONDS` or about that, and raises what went wrong.

They run in threads, and load what they need when they are first used: a mesh that is well never loads it.
"""

import html
import json
import os
import subprocess
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mesh.alerting.config import Command, Email, Sink, Slack, Webhook
from protocols.errors import MeshFailed

if TYPE_CHECKING:
    from email.message import EmailMessage

SINK_SECONDS = 15.0

OUTPUT_CHARACTERS_MAX = 300
"""Of a command that failed, in the log."""

MARKS = {"info": "ℹ️", "warning": "⚠️", "critical": "🔴"}
OVER_MARK = "✅"


def tell(sink: Sink, mesh: str, event: str, alert: Mapping[str, Any]) -> None:
    """Tell that an alert is "raised", or "cleared". `MeshFailed`: it did not take it."""
    match sink:
        case Webhook(url=url, token=token):
            headers = {"authorization": f"Bearer {token}"} if token else {}
            _post(url, {"event": event, "mesh": mesh, "alert": alert}, headers)
        case Slack(url=url):
            _post(url, {"text": slack_text(mesh, event, alert)}, {})
        case Email():
            _mail(sink, mesh, event, alert)
        case Command(command=command):
            _run(command, mesh, event, alert)


def headline(event: str, alert: Mapping[str, Any]) -> str:
    return f"over: {alert['summary']}" if event == "cleared" else str(alert["summary"])


def slack_text(mesh: str, event: str, alert: Mapping[str, Any]) -> str:
    """In Slack's marks; what comes from suites can't make any (&, < and > are escaped as Slack asks)."""
    mark = OVER_MARK if event == "cleared" else MARKS[alert["severity"]]
    lines = [f"{mark} *{_escaped(headline(event, alert))}*", _escaped(alert["detail"])]
    if event != "cleared":
        lines.append(f"_{_escaped(alert['help'])}_")
    lines.append(f"alert {alert['id']} ({alert['kind']}) of mesh {_escaped(mesh)}")
    return "\n".join(line for line in lines if line.strip("_"))


def _escaped(text: str) -> str:
    return html.escape(str(text), quote=False)


def _post(url: str, document: Mapping[str, Any], headers: Mapping[str, str]) -> None:
    import httpx

    try:
        answer = httpx.post(url, json=document, headers=dict(headers), timeout=SINK_SECONDS)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise MeshFailed(f"{type(error).__name__} ({error})") from None
    if answer.status_code >= 300:
        raise MeshFailed(f"it answers with HTTP {answer.status_code}")


def mail_of(sink: Email, mesh: str, event: str, alert: Mapping[str, Any]) -> "EmailMessage":
    from email.message import EmailMessage

    mail = EmailMessage()
    mail["Subject"] = " ".join(f"[mesh {alert['severity']}] {headline(event, alert)}".split())
    mail["From"] = sink.sender
    mail["To"] = ", ".join(sink.to)
    mail["X-Mesh-Alert"] = str(alert["id"])
    parts = [headline(event, alert), alert["detail"], "" if event == "cleared" else alert["help"]]
    about = {name: alert[name] for name in ("id", "kind", "severity", "run", "test", "node") if alert[name]}
    facts = "\n".join(f"{name}: {value}" for name, value in {"mesh": mesh, **about}.items())
    mail.set_content("\n\n".join(part for part in [*parts, facts] if part) + "\n")
    return mail


def _mail(sink: Email, mesh: str, event: str, alert: Mapping[str, Any]) -> None:
    import smtplib
    import ssl

    try:
        with smtplib.SMTP(sink.host, sink.port, timeout=SINK_SECONDS) as server:
            if sink.starttls:
                server.starttls(context=ssl.create_default_context())
            if sink.user:
                server.login(sink.user, sink.password)
            server.send_message(mail_of(sink, mesh, event, alert), sink.sender, list(sink.to))
    except (OSError, smtplib.SMTPException) as error:
        raise MeshFailed(f"{type(error).__name__} ({error})") from None


def _run(command: tuple[str, ...], mesh: str, event: str, alert: Mapping[str, Any]) -> None:
    """The alert is on its input as JSON, and the main of it in its environment."""
    told = {
        "MESH_ALERT_EVENT": event,
        "MESH_ALERT_KIND": alert["kind"],
        "MESH_ALERT_SEVERITY": alert["severity"],
        "MESH_ALERT_SUMMARY": alert["summary"],
        "MESH_ALERT_ID": str(alert["id"]),
    }
    document = json.dumps({"event": event, "mesh": mesh, "alert": alert}).encode()
    try:
        ended = subprocess.run(
            command,
            input=document,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, **{name: value.replace("\0", "") for name, value in told.items()}},
            timeout=SINK_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MeshFailed(str(error)) from None
    if ended.returncode:
        said = ended.stdout.decode(errors="replace").strip()[:OUTPUT_CHARACTERS_MAX]
        raise MeshFailed(f"it ended with code {ended.returncode}: {said}")

"""Sinks, each against a real one: an HTTP server, a mail server, a program. And what a file says of them."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes
from email.policy import default
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
import trio
from aiosmtpd.controller import Controller

from mesh.alerting.config import AlertConfig, Command, Email, Sink, Slack, Webhook, load, parse
from mesh.alerting.sinks import tell
from mesh.alerting.telling import ATTEMPTS_MAX, Telling, name_of
from mesh.cli import node_flags
from protocols.alerts import AlertKind, Severity
from protocols.errors import MeshFailed, UsageError
from tests.api.fake_views import ALERT


@contextmanager
def web(*statuses: int) -> Iterator[tuple[str, list[tuple[str, dict[str, Any]]]]]:
    """A server that answers with these, and then with 200: its address, and what it was sent, with the token."""
    taken: list[tuple[str, dict[str, Any]]] = []
    left = list(statuses)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            taken.append((self.headers.get("authorization", ""), json.loads(body)))
            self.send_response(left.pop(0) if left else 200)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook?key=secret", taken
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def test_a_webhook_gets_the_alert_and_slack_a_text() -> None:
    with web() as (url, taken):
        tell(Webhook(url=url, token="t0ken"), "lab", "raised", ALERT)
        hostile = {**ALERT, "summary": "<!channel> & *bold*", "severity": "critical"}
        tell(Slack(url=url), "lab", "cleared", hostile)
    assert taken[0] == ("Bearer t0ken", {"event": "raised", "mesh": "lab", "alert": ALERT})
    text = taken[1][1]["text"]
    assert text.startswith("✅ *over: &lt;!channel&gt; &amp; *bold**\n")
    assert "<" not in text


def test_who_does_not_take_it_is_an_error_in_words() -> None:
    with web(500) as (url, _), pytest.raises(MeshFailed, match="HTTP 500"):
        tell(Webhook(url=url), "lab", "raised", ALERT)
    with pytest.raises(MeshFailed, match="ConnectError"):
        tell(Webhook(url=url), "lab", "raised", ALERT)
    with pytest.raises(MeshFailed, match="code 3: no pager"):
        tell(Command(command=("sh", "-c", "echo no pager; exit 3")), "lab", "raised", ALERT)
    with pytest.raises(MeshFailed, match="No such file"):
        tell(Command(command=("/nowhere/pager",)), "lab", "raised", ALERT)
    with pytest.raises(MeshFailed, match="ConnectionRefused"):
        tell(Email(host="127.0.0.1", port=1, sender="a@lab", to=("b@lab",)), "lab", "raised", ALERT)


def test_a_command_gets_the_alert_on_its_input(tmp_path: Path) -> None:
    script = 'cat > "$0"; echo "$MESH_ALERT_EVENT $MESH_ALERT_KIND $MESH_ALERT_SEVERITY $MESH_ALERT_ID" >> "$0"'
    tell(Command(command=("sh", "-c", script, str(tmp_path / "told"))), "lab", "raised", ALERT)
    document, line = (tmp_path / "told").read_text().split("}}")
    assert json.loads(document + "}}")["alert"] == ALERT
    assert line.strip() == "raised slow-test warning 129"


class FreePort(Controller):
    """At a port that the system picks."""

    def _trigger_server(self) -> None:
        assert self.server is not None
        self.port = self.server.sockets[0].getsockname()[1]
        super()._trigger_server()


def test_a_mail_arrives() -> None:
    class Inbox:
        def __init__(self) -> None:
            self.mails: list[Any] = []

        async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
            self.mails.append((envelope.mail_from, envelope.rcpt_tos, envelope.content))
            return "250 taken"

    inbox = Inbox()
    controller = FreePort(inbox, hostname="127.0.0.1", port=0)
    controller.start()
    try:
        sink = Email(host="127.0.0.1", port=controller.port, sender="mesh@lab", to=("ada@lab", "bob@lab"))
        tell(sink, "lab", "raised", {**ALERT, "summary": "two\nlines: ü"})
    finally:
        controller.stop()
    ((sender, to, content),) = inbox.mails
    mail = message_from_bytes(content, policy=default)
    assert (sender, to, mail["to"]) == ("mesh@lab", ["ada@lab", "bob@lab"], "ada@lab, bob@lab")
    assert mail["subject"] == "[mesh warning] two lines: ü"
    text = mail.get_content()
    assert "1.00 s were expected." in text
    assert "test: a.py::x" in text


async def test_each_sink_is_told_what_it_wants_and_again_when_it_did_not_take_it(autojump_clock: object) -> None:
    told: list[tuple[str, str, str]] = []
    failures = {"slow": 2, "dead": 99}

    def how(sink: Sink, mesh: str, event: str, alert: Any) -> None:
        assert isinstance(sink, Command)
        (name,) = sink.command
        told.append((name, event, alert["id"]))
        if failures.get(name, 0) > 0:
            failures[name] -= 1
            raise MeshFailed("busy")

    sinks = [
        Command(command=("all",), least=Severity.INFO),
        Command(command=("slow",)),
        Command(command=("dead",)),
        Command(command=("hosts",), kinds=(AlertKind.BAD_HOST,)),
        Command(command=("loud",), least=Severity.CRITICAL),
        Command(command=("brief",), recovery=False),
    ]
    begin = trio.current_time()
    await Telling(sinks, how).all("lab", [("raised", ALERT), ("cleared", ALERT)])
    count = {name: sum(one == name for one, _, _ in told) for name in ("all", "slow", "dead", "hosts", "loud", "brief")}
    assert count == {"all": 2, "slow": 4, "dead": 2 * ATTEMPTS_MAX, "hosts": 0, "loud": 0, "brief": 1}
    assert trio.current_time() - begin < 120


FILE = """
[tool.mesh.alerts.rules]
slow_factor = 4
quarantine = true

[[tool.mesh.alerts.sinks]]
kind = "webhook"
url = "https://lab.example/hook"
token_env = "HOOK_TOKEN"
least = "info"

[[tool.mesh.alerts.sinks]]
kind = "slack"
url_env = "SLACK"
kinds = ["bad-host"]
recovery = false

[[tool.mesh.alerts.sinks]]
kind = "email"
host = "mail.lab"
from = "mesh@lab"
to = ["ada@lab"]
user = "mesh"
password_env = "MAIL"
starttls = true

[[tool.mesh.alerts.sinks]]
kind = "command"
command = ["/usr/bin/pager", "--mesh"]
"""


def test_a_file_of_rules_and_sinks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, secret in (("HOOK_TOKEN", "s3cret"), ("SLACK", "https://hooks.example/T/B"), ("MAIL", "pa55")):
        monkeypatch.setenv(name, secret)
    (tmp_path / "alerts.toml").write_text(FILE)
    config = load(None, tmp_path)
    assert (config.rules.slow_factor, config.rules.quarantine, config.rules.flaps) == (4.0, True, 3)
    webhook, slack, email, command = config.sinks
    assert webhook == Webhook(url="https://lab.example/hook", token="s3cret", least=Severity.INFO)
    assert slack == Slack(url="https://hooks.example/T/B", kinds=(AlertKind.BAD_HOST,), recovery=False)
    assert isinstance(email, Email)
    assert (email.port, email.password, email.starttls, email.to) == (25, "pa55", True, ("ada@lab",))
    assert command == Command(command=("/usr/bin/pager", "--mesh"))
    shown = repr(config) + " ".join(map(name_of, config.sinks))
    assert not any(secret in shown for secret in ("s3cret", "hooks.example", "pa55")), "secrets are in no log"
    assert load(None, tmp_path / "elsewhere") == AlertConfig()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("[tool.mesh]\nalerts = 1", r"\[tool.mesh.alerts\] must be a table"),
        ("[tool.mesh.alerts]\nrule = {}", "no key 'rule'; known are rules, sinks"),
        ("[tool.mesh.alerts.rules]\nslow = 1", "no key 'slow'"),
        ("[tool.mesh.alerts.rules]\nslow_factor = 'x'", "'slow_factor' .* must be a number from 0, not 'x'"),
        ("[tool.mesh.alerts.rules]\nslow_factor = 1", "'slow_factor' .* must be over 1"),
        ("[tool.mesh.alerts.rules]\nflaps = 1.5", "'flaps' .* must be a whole number"),
        ("[tool.mesh.alerts.rules]\nquarantine = 1", "'quarantine' .* must be true or false"),
        ("[tool.mesh.alerts]\nsinks = [{}]", "'kind' of sink 1 .* must be one of webhook, slack, email, command"),
        ("[tool.mesh.alerts]\nsinks = [{kind='webhook'}]", "'url' of sink 1"),
        ("[tool.mesh.alerts]\nsinks = [{kind='webhook', url='ftp://x'}]", "must be an http or https address"),
        ("[tool.mesh.alerts]\nsinks = [{kind='slack', url_env='NOPE'}]", "names the variable 'NOPE', which is not set"),
        ("[tool.mesh.alerts]\nsinks = [{kind='command', command=[]}]", "'command' of sink 1 .* must not be empty"),
        ("[tool.mesh.alerts]\nsinks = [{kind='command', command=['x'], least='loud'}]", "'least' of sink 1"),
        ("[tool.mesh.alerts]\nsinks = [{kind='command', command=['x'], kinds=['odd']}]", "'kinds' of sink 1 .* 'odd'"),
        ("[tool.mesh.alerts]\nsinks = [{kind='email', host='x', from='y', to=['z'], port=0}]", "'port' of sink 1"),
        ("not toml", "is not TOML"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path: Path, text: str, named: str) -> None:
    (tmp_path / "a.toml").write_text(text)
    with pytest.raises(UsageError, match=named):
        load(tmp_path / "a.toml", tmp_path)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"a\.toml' can't be read: No such file"):
        load(tmp_path / "a.toml", tmp_path)
    with pytest.raises(UsageError, match="can't be read"):
        node_flags.parse(["--home", str(tmp_path), "--alerts", str(tmp_path / "a.toml")])
    assert parse({}, {}) == AlertConfig()
